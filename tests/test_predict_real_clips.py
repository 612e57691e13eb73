"""`Predictor` with the real modalities on real clips; models with random weights are enough.

What it says of a clip is what extraction, stage-2 export and stage 3 say of it in a corpus.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mepr_shared.config import build, parse_assignments, read_toml

DATA = os.environ.get("MEPR_REAL_DATA")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA, reason="MEPR_REAL_DATA names no folder of clips"),
]

LOOKING = ("body", "face", "scene")
# What each clip is known to have, by modality; the others are `ok`.
STATUSES = {
    "carphone_pristine.mp4": {"audio": "no_audio", "text": "no_text"},
    "face_noface.mov": {"face": "partial", "body": "partial", "text": "no_text"},
    "liveportrait_s13.mp4": {"text": "no_text"},
    "liveportrait_s18.mp4": {"text": "no_text"},
    "multi_face.jpg": {"audio": "no_audio", "text": "no_text"},
    "no_face.mp4": {"face": "no_face", "body": "no_person", "text": "no_text"},
    "obama_speech.mp4": {},
    "single_face.mp4": {"text": "no_text"},
}
COMPARED = ("obama_speech.mp4", "no_face.mp4", "multi_face.jpg", "single_face.mp4")


@pytest.fixture(scope="module")
def clips() -> Path:
    return Path(DATA or "") / "clips"


@pytest.fixture(scope="module")
def stages(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores, runs with random weights and exports of a few clips, and stage 3 over them."""
    from mepr_fusion.inputs import choose
    from mepr_fusion.settings import FusionSettings
    from mepr_fusion.train import train
    from mepr_shared.contract.frames import FrameStore
    from mepr_shared.corpora.index import Corpus, CorpusMeta
    from mepr_shared.extract.engine import extract_together
    from mepr_shared.plugin import discover
    from mepr_shared.testing.toy_stages import toy_run
    from mepr_shared.train.export_run import export_run

    folder = tmp_path_factory.mktemp("stages")
    random = np.random.default_rng(0)
    columns = {
        "sample_id": list(COMPARED),
        "split": ["train", "train", "val", "val"],
        "media": [str(clips / name) for name in COMPARED],
        "text": ["they say this", None, "and that", None],
        "emotion": np.eye(7, dtype=np.float32)[[0, 1, 0, 1]],
        "traits": random.uniform(0.3, 0.7, (4, 5)).astype(np.float32),
    }
    corpus = Corpus.build(CorpusMeta("clips"), columns).write(folder / "clips.parquet")
    pairs = []
    for found in discover():
        assert found.modality is not None, found.problem
        table = read_toml(found.modality.profiles["small"])["encoder"]
        settings: Any = build(found.modality.encoder_settings, table)
        pairs.append((found.modality, found.modality.open_extractor(settings, device="cpu")))
    extract_together(pairs, corpus, folder / "store")
    for modality, extractor in pairs:
        store = FrameStore.find(folder / "store", "clips", modality.name)
        place = folder / modality.name / "stage2"
        run = toy_run(place, modality, extractor=extractor, width=store.width)
        signature = {"distribution": modality.distribution, "module": f"mepr_{modality.name}"}
        export_run(run, corpus, store, folder / "exports", **signature)
    quick = parse_assignments(["fit.epochs=1", "model.width=16", "model.heads=2"])
    train(
        choose([folder / "clips.parquet"], folder / "exports", {}),
        build(FusionSettings, quick),
        folder / "stage3",
        exports_root=folder / "exports",
    )
    return folder


@pytest.fixture(scope="module")
def predictor(stages: Path) -> Any:
    from mepr_fusion import Predictor
    from mepr_fusion.bundle.sources import find_sources
    from mepr_fusion.bundle.write import write_bundle
    from mepr_shared.train.runs import Run

    run = Run.load(stages / "stage3")
    return Predictor.load(write_bundle(run, find_sources(run, roots=[stages]), stages / "bundle"))


def test_numbers_are_those_of_the_pipeline(stages: Path, predictor: Any) -> None:
    from mepr_fusion.evaluate import Evaluation
    from mepr_shared.train.runs import Run

    evaluation = Evaluation(Run.load(stages / "stage3"))
    corpus, joined = evaluation.inputs.corpora[0], evaluation.joined
    wanted = evaluation.outputs("fusion", np.arange(len(joined)))
    for row, clip in enumerate(joined.rows):
        media = corpus.media_path(corpus.table["media"][clip].as_py())
        _, evidence = predictor.examine(media, text=corpus.texts[clip] or "")
        np.testing.assert_array_equal(evidence.joined.present[0], joined.present[row])
        for found, right in (
            (evidence.fused.emotion_logits[0], wanted.emotion_logits[row]),
            (evidence.fused.trait_scores[0], wanted.trait_scores[row]),
            (evidence.joined.emotion_predictions[0], joined.emotion_predictions[row]),
            (evidence.joined.trait_predictions[0], joined.trait_predictions[row]),
        ):
            np.testing.assert_allclose(found, right, atol=1e-4)


def test_every_clip_gets_an_answer(
    clips: Path, predictor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mepr_shared.vision.encoders.loaded import LoadedEncoder

    encoded, plain = [], LoadedEncoder.encode

    def counting(self: Any, images: Any, *arguments: Any, **options: Any) -> Any:
        encoded.append(len(images))
        return plain(self, images, *arguments, **options)

    monkeypatch.setattr(LoadedEncoder, "encode", counting)
    for name, different in STATUSES.items():
        encoded.clear()
        found = predictor.predict(clips / name)
        said = {modality: answer.status for modality, answer in found.modalities.items()}
        assert said == {m: different.get(m, "ok") for m in ("audio", *LOOKING, "text")}, name
        seen = [found.modalities[m] for m in LOOKING]
        assert sum(encoded) == sum(answer.frames - answer.masked for answer in seen), name
        assert len(encoded) <= 1, "crops of all modalities share the encoder's batches"
        words = set(found.transcript.text.lower().replace(",", "").split())
        assert {"today", "negotiations"} <= words if name == "obama_speech.mp4" else not words
        people = [warning for warning in found.warnings if "more than one person" in warning]
        assert bool(people) == (name in ("obama_speech.mp4", "multi_face.jpg")), name
        assert found.emotion and found.traits and found.seconds["total"] > 0
