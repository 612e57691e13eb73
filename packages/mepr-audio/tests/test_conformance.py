"""mepr-audio is a modality like any other."""

from __future__ import annotations

import json
import tempfile
import wave
from pathlib import Path

import numpy as np
import pytest

from mepr_audio.plugin import AUDIO
from mepr_shared.corpora.demo import make_demo
from mepr_shared.corpora.index import Corpus, CorpusMeta
from mepr_shared.plugin import ClipInput
from mepr_shared.testing.conformance import ModalityConformance

SOUNDS = tempfile.TemporaryDirectory(prefix="mepr-audio-")


def sound(name: str, samples: np.ndarray, rate: int = 16_000) -> Path:
    """A 16-bit WAV file."""
    path = Path(SOUNDS.name) / name
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


class TestAudio(ModalityConformance):
    modality = AUDIO
    import_name = "mepr_audio"

    @classmethod
    def good_clips(cls) -> list[ClipInput]:
        clips = []
        for number, (seconds, rate) in enumerate(((0.6, 16_000), (2.3, 44_100), (38.0, 8_000))):
            time = np.arange(int(seconds * rate)) / rate
            tone = 0.4 * np.sin(2 * np.pi * (150 + 60 * number) * time) * np.sin(5 * time)
            clips.append(ClipInput(str(number), media=sound(f"{number}.wav", tone, rate)))
        return clips

    @classmethod
    def bad_clips(cls) -> list[tuple[ClipInput, str]]:
        text = Path(SOUNDS.name) / "text.wav"
        text.write_text("words, not sound")
        silence = sound("silence.wav", np.zeros(8000))
        return [
            (ClipInput("none"), "no_media"),
            (ClipInput("gone", media=Path(SOUNDS.name) / "gone.wav"), "no_media"),
            (ClipInput("text", media=text), "decode_error"),
            (ClipInput("silence", media=silence), "no_audio"),
            (ClipInput("short", media=sound("short.wav", np.full(800, 0.1))), "too_short"),
            (ClipInput("beyond", media=silence, start_s=3.0), "too_short"),
        ]

    @classmethod
    def make_corpora(cls, folder: Path) -> tuple[Path, Path]:
        make_demo(folder, clips=210, seed=1, media=42)
        corpus = Corpus.read(folder / "demo_both.parquet")
        columns = {
            name: corpus.table[name].to_pylist() for name in ("sample_id", "split", "source_id")
        }
        media = corpus.table["media"].to_pylist()
        columns["media"] = [str(corpus.media_path(path)) if path else None for path in media]
        labels = {"emotion": corpus.emotion_values, "traits": corpus.trait_values}
        paths = []
        for task, values in labels.items():
            paths.append(folder / f"voices_{task}.parquet")
            meta = CorpusMeta(paths[-1].stem, corpus.meta.scale)
            Corpus.build(meta, {**columns, task: values}).write(paths[-1])
        return paths[0], paths[1]

    def test_predict_answers_for_every_file(
        self, workspace: dict[str, Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        capsys.readouterr()
        good, bad = self.good_clips()[2].media, Path(SOUNDS.name) / "nowhere.mp4"
        self.cli("predict", str(good), str(bad), "--run", str(workspace["run"]), "--json")
        first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
        assert (first["input"], first["status"]) == (str(good), "ok")
        assert len(first["emotion"]["probabilities"]) == 7
        assert all(0 <= score <= 1 for score in first["traits"].values())
        assert (second["status"], second["emotion"], second["traits"]) == ("no_media", None, None)
