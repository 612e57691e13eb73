"""`Predictor` and `mepr-fusion predict`, over toy modalities."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import mepr_fusion
from mepr_fusion.bundle.sources import find_sources
from mepr_fusion.bundle.write import write_bundle
from mepr_fusion.cli import main
from mepr_fusion.evaluate import Evaluation
from mepr_fusion.inputs import choose
from mepr_fusion.predict import predictor as predictor_module
from mepr_fusion.predict.predictor import Predictor
from mepr_fusion.settings import FusionSettings
from mepr_fusion.train import train
from mepr_shared import config
from mepr_shared.errors import ConfigError, ContractError, DataError
from mepr_shared.plugin import Discovered
from mepr_shared.testing.toy_modalities import ToyModality
from mepr_shared.testing.toy_stages import renamed, sound


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Discovered]], None]:
    """Makes it look as if these packages were installed."""

    def these(found: list[Discovered]) -> None:
        monkeypatch.setattr(predictor_module, "discover", lambda: found)

    return these


@pytest.fixture
def installed(toys, install) -> dict[str, ToyModality]:
    """All of the bundle's modalities; gives them, with nothing encoded yet."""
    install([modality.discovered for modality in toys.modalities.values()])
    for modality in toys.modalities.values():
        modality.encoded.clear()
        modality.heard.clear()
    return toys.modalities


@pytest.fixture
def command(installed, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def run(*words: object, code: int = 0) -> Any:
        capsys.readouterr()
        try:
            found = main([str(word) for word in words])
        except SystemExit as stop:
            found = int(stop.code or 0)
        out = capsys.readouterr()
        assert found == code, out.err
        return out

    return run


@pytest.mark.parametrize("corpus", ["films", "talks"])
def test_a_clip_gets_what_it_gets_in_a_corpus(toys, installed, corpus: str) -> None:
    """Frames, stage 2, export, join and stage 3 against one call, over both kinds of corpora."""
    evaluation = Evaluation(toys.stage3)
    joined = evaluation.joined
    predictor = Predictor.load(toys.bundle, corpus=corpus)
    index = next(c for c in evaluation.inputs.corpora if c.name == corpus)
    number, compared = joined.corpora.index(corpus), 0
    for row in np.flatnonzero(joined.corpus_of == number)[:12]:
        clip = joined.rows[row]
        media, text = index.table["media"][clip].as_py(), index.texts[clip]
        if media is None:
            continue
        wanted = evaluation.outputs("fusion", np.array([row]))
        prediction, evidence = predictor.examine(index.media_path(media), text=text or "")
        np.testing.assert_array_equal(evidence.joined.present[0], joined.present[row])
        np.testing.assert_allclose(evidence.fused.emotion_logits, wanted.emotion_logits, atol=1e-5)
        np.testing.assert_allclose(evidence.fused.trait_scores, wanted.trait_scores, atol=1e-5)
        np.testing.assert_allclose(
            evidence.joined.emotion_predictions[0], joined.emotion_predictions[row], atol=1e-5
        )
        decided = wanted.emotion_logits + joined.prior_shift[number]
        if corpus == "films":
            assert prediction.emotion.present == (
                list(prediction.emotion.probabilities)[decided.argmax()],
            )
            assert sum(prediction.emotion.probabilities.values()) == pytest.approx(1)
        else:
            assert prediction.emotion.output == "sigmoid"
        compared += 1
    assert compared > 5


def test_everything_is_encoded_once(toys, installed, tmp_path: Path) -> None:
    predictor = mepr_fusion.Predictor.load(toys.bundle)
    prediction = predictor.predict(sound(tmp_path / "a.wav", 2.0))
    assert {name: m.encoded for name, m in installed.items()} == {
        name: ["000000"] for name in installed
    }
    assert installed["text"].heard == ["a.wav"]
    assert prediction.transcript.source == "asr" and prediction.transcript.text == "good day"
    assert {a.status for a in prediction.modalities.values()} == {"ok"}
    assert prediction.modalities["face"].masked == 1 and prediction.modalities["face"].frames == 4
    assert prediction.modalities["face"].score == 0.75
    audio = prediction.modalities["audio"]
    assert audio.emotion is not None and audio.traits is None
    for trait in prediction.traits.values():
        assert 0 <= trait.low < trait.score < trait.high <= 1
    parts = sum(s for name, s in prediction.seconds.items() if name != "total")
    assert parts == pytest.approx(prediction.seconds["total"], rel=0.1, abs=0.02)
    json.dumps(prediction.to_dict(), allow_nan=False)


def test_what_is_missing_is_said(toys, installed, tmp_path: Path) -> None:
    predictor = Predictor.load(toys.bundle, modalities=["text", "face", "audio"])
    found = predictor.predict(sound(tmp_path / "silent_nobody.wav", 1.0))
    said = {name: (answer.status, answer.reason) for name, answer in found.modalities.items()}
    assert said == {
        "audio": ("ok", ""),
        "face": ("no_face", "no face in any frame"),
        "scene": ("switched_off", "switched off"),
        "text": ("no_text", "no speech was found"),
    }
    assert installed["scene"].encoded == []
    deaf = Predictor.load(toys.bundle, modalities=["audio"])
    assert deaf.predict(sound(tmp_path / "b.wav")).transcript.status == "switched_off"
    assert installed["text"].heard == ["silent_nobody.wav"]
    with pytest.raises(DataError, match="nothing in .*nobody.wav can be used .*face: no_face"):
        looking = Predictor.load(toys.bundle, modalities=["text", "face"])
        looking.predict(tmp_path / "silent_nobody.wav")


def test_packages_that_are_not_there_or_not_the_same(toys, installed, install) -> None:
    text, audio, face = (installed[name] for name in ("text", "audio", "face"))
    broken = replace(audio.discovered, modality=None, problem="ImportError: no wheel")
    install([text.discovered, broken, face.discovered])
    absent = Predictor.load(toys.bundle).absent
    assert absent["scene"][0] == "not_installed" and "pip install" in absent["scene"][1]
    assert "no wheel" in absent["audio"][1]
    install([text.discovered, renamed(face, version="2").discovered])
    with pytest.raises(
        ContractError, match="mepr-face 2 does not .*weights_sha256 was '1', is '2'"
    ):
        Predictor.load(toys.bundle)
    assert set(Predictor.load(toys.bundle, modalities=["text"]).parts) == {"text"}
    install([])
    with pytest.raises(ConfigError, match="none of the bundle's modalities can be used"):
        Predictor.load(toys.bundle)
    with pytest.raises(ConfigError, match="did you mean 'face'"):
        Predictor.load(toys.bundle, modalities=["fase"])
    with pytest.raises(ConfigError, match="did you mean 'films'"):
        Predictor.load(toys.bundle, corpus="film")


def test_long_recordings_have_a_timeline(toys, installed, tmp_path: Path) -> None:
    subtitles = tmp_path / "a.srt"
    subtitles.write_text(
        "\ufeff1\r\n00:00:00,500 --> 00:00:01,500\r\n<i>good</i>\r\n\r\n"
        "2\n00:00:04,000 --> 00:00:04,800\nnight\n",
        "utf-8",
    )
    predictor = Predictor.load(toys.bundle)
    told: list[tuple[str, int, int]] = []
    found = predictor.predict(
        sound(tmp_path / "a.wav", 5.0),
        srt=subtitles,
        window_s=2.0,
        progress=lambda *part: told.append(part),
    )
    assert [(w.start_s, w.end_s) for w in found.windows] == [(0, 2), (2, 4), (3, 5)]
    assert [w.text for w in found.windows] == ["good", "", "night"]
    assert [w.modalities for w in found.windows][1] == ("audio", "face", "scene")
    assert found.modalities["text"].status == "partial"
    assert found.modalities["text"].reason == "no_text in 1 of 3 windows"
    for emotion in found.emotion.probabilities:
        mean = np.mean([w.emotion.probabilities[emotion] for w in found.windows])
        assert found.emotion.probabilities[emotion] == pytest.approx(mean)
    assert ("look", 3, 3) in told and ("encode audio", 3, 3) in told
    assert installed["text"].heard == []
    # Each window is what it would be as a clip of its own, whatever is around it.
    again = predictor.predict(tmp_path / "a.wav", srt=subtitles, window_s=2.0)
    assert again.windows == found.windows
    spread = predictor.predict(tmp_path / "a.wav", text="one two three four five", window_s=2.5)
    assert [w.text for w in spread.windows] == ["one two", "three four five"]
    assert any("no times" in warning for warning in spread.warnings)


def test_warnings(toys, installed, tmp_path: Path) -> None:
    predictor = Predictor.load(toys.bundle)
    found = predictor.predict(sound(tmp_path / "german_crowd.wav", 1.0), frames=2)
    assert found.transcript.language == "de"
    speech, people, frames = found.warnings
    assert "not English but 'de' (probability 0.97)" in speech
    assert "more than one person is seen" in people
    assert frames == "2 frames were looked at, in training it were 4"
    assert found.modalities["face"].frames == 2


def test_several_files_and_a_bad_one(toys, command, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    sound(folder / "a.wav", 1.0)
    sound(folder / "<b>x.wav", 3.0, seed=1)
    (folder / "empty.mp4").touch()
    (folder / "notes.txt").write_text("not looked at")
    words = ("predict", folder, "--bundle", toys.bundle, "--out", tmp_path / "out")
    done = command(*words, "--window", "2", "--json")
    records = [json.loads(line) for line in done.out.splitlines()]
    assert [r["input"]["name"] for r in records] == ["<b>x.wav", "a.wav", "empty.mp4"]
    assert "0 bytes" in records[2]["error"] and "2 of 3 files answered" in done.err
    rows = pq.read_table(tmp_path / "out/predictions.parquet").to_pylist()
    with (tmp_path / "out/predictions.csv").open() as file:
        assert [row["path"] for row in csv.DictReader(file)] == [row["path"] for row in rows]
    first = next(row for row in rows if row["path"].endswith("a.wav"))
    assert first["p_anger"] == pytest.approx(
        records[1]["emotion"]["probabilities"]["anger"], abs=1e-6
    )
    assert [bool(row["error"]) for row in rows] == [False, False, True]
    assert len(pq.read_table(tmp_path / "out/timeline.parquet")) == 2
    stored = json.loads((tmp_path / "out/a.wav.json").read_text())
    assert stored["emotion"] == records[1]["emotion"]
    assert "already predictions" in command(*words, code=2).err
    shown = command("predict", folder / "a.wav", "--bundle", toys.bundle)
    assert "apparent personality" in shown.out and "good day" in shown.out


def test_a_run_in_place_of_a_bundle(toys, command, tmp_path: Path) -> None:
    file = sound(tmp_path / "a.wav", 1.0)
    answers = []
    for models in (("--bundle", toys.bundle), ("--run", toys.stage3.path)):
        found = json.loads(command("predict", file, *models, "--json", "--text", "hello").out)
        answers.append((found["emotion"], found["traits"], found["bundle"]))
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("a.wav", ("--max-seconds", "0.5"), "1 s long, more than the limit of 0 s"),
        ("a.wav", ("--max-bytes", "100"), "more than the limit of 100 bytes"),
        ("a.wav", ("--window", "0.1"), "--window takes 1 or more"),
        ("a.wav", ("--hop", "40"), "--hop takes 0.5 to 30"),
        ("a.wav", ("--frames", "0"), "it takes 1 or more"),
        ("a.wav", ("--srt", "nothing.srt"), "nothing.srt cannot be read"),
        ("a.wav", ("--srt", "text.mp4"), "holds no subtitles"),
        ("a.wav", ("--corpus", "talk"), "did you mean 'talks'"),
        ("text.mp4", (), "is no media"),
        ("empty.mp4", (), "is empty: 0 bytes"),
        ("gone.mp4", (), "cannot be read: No such file"),
        ("folder", (), "no media in the folder"),
    ],
)
def test_bad_input_is_one_line(
    toys, command, tmp_path: Path, monkeypatch, name: str, options: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    sound(Path("a.wav"), 1.0)
    Path("text.mp4").write_text("words, not pictures")
    Path("empty.mp4").touch()
    Path("folder").mkdir()
    models = ("--bundle", toys.bundle, "--out", "out")
    said = command("predict", name, *models, *options, code=2).err
    last = [line for line in said.splitlines() if "error" in line]
    assert len(last) == 1 and words in last[0]
    assert not Path("out").exists()


def test_many_at_once_are_not_mixed_up(toys, installed, tmp_path: Path) -> None:
    predictor = Predictor.load(toys.bundle)
    files = [sound(tmp_path / f"{number}.wav", 1.0, seed=number) for number in range(8)]
    alone = [predictor.predict(file) for file in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(predictor.predict, files))
    for one, other in zip(alone, together, strict=True):
        assert (one.input, one.emotion, one.traits) == (other.input, other.emotion, other.traits)
    assert len({found.emotion.probabilities["anger"] for found in alone}) == 8


@pytest.mark.parametrize("mode", ["both->traits", "emotion->emotion"])
def test_models_of_one_task(toys, installed, tmp_path: Path, mode: str) -> None:
    quick = config.parse_assignments(["fit.epochs=1", "model.width=16", "model.heads=2"])
    corpus = toys.folder / "films.parquet"
    run = train(
        choose([corpus], toys.folder / "exports", {}),
        config.build(FusionSettings, quick, {"mode": mode}),
        tmp_path / "stage3",
        exports_root=toys.folder / "exports",
    )
    bundle = write_bundle(run, find_sources(run, roots=[toys.folder]), tmp_path / "bundle")
    evaluation = Evaluation(run)
    joined, index = evaluation.joined, evaluation.inputs.corpora[0]
    row = int(np.flatnonzero(joined.present.all(axis=1))[0])
    media = index.media_path(index.table["media"][joined.rows[row]].as_py())
    found, evidence = Predictor.load(bundle).examine(media, text=index.texts[joined.rows[row]])
    wanted = evaluation.outputs("fusion", np.array([row]))
    np.testing.assert_allclose(evidence.fused.emotion_logits, wanted.emotion_logits, atol=1e-5)
    np.testing.assert_allclose(evidence.fused.trait_scores, wanted.trait_scores, atol=1e-5)
    assert (found.emotion is None, found.traits is None) == (
        "emotion" not in mode,
        "traits" not in mode,
    )
