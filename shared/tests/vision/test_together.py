"""One pass over the videos gives what single runs give, and does everything once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from mepr_shared.contract.frames import FrameStore
from mepr_shared.corpora.index import Corpus, CorpusMeta
from mepr_shared.extract.engine import extract_together
from mepr_shared.labels import EmotionScale
from mepr_shared.plugin import ClipFeatures, ClipInput, Work
from mepr_shared.vision import together
from mepr_shared.vision.encoders import Readout
from mepr_shared.vision.regions import judged, picked
from mepr_shared.vision.settings import FrameRequest
from mepr_shared.vision.sight import Sight
from mepr_shared.vision.together import OnePass, VisualExtractor
from mepr_shared.vision.types import ClipFrames, Faces, Regions

REQUEST = FrameRequest(count=6, size=1280)


@dataclass
class FakeEncoder:
    """Gives mean colours; counts what it is asked."""

    size: int = 8
    shortest: int = 8
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    resample: int = 2
    batches: list[int] = field(default_factory=list)

    def encode(
        self, images: np.ndarray, readouts: Sequence[Readout], *, batch: Any = "auto"
    ) -> list[np.ndarray]:
        self.batches.append(len(images))
        means = images.astype(np.float32).mean(axis=(1, 2)) / 255
        return [np.tile(mean, r.grid) for mean, r in zip(means, readouts, strict=True)]


@dataclass
class FakeDetector:
    """Finds one box in every picture that is not dark; counts its calls."""

    key: str = "fake"
    calls: int = 0

    def find(self, images: list[np.ndarray]) -> list[Faces]:
        self.calls += 1
        found = []
        for image in images:
            bright = image.mean() > 60
            boxes = np.array([[4, 4, 20, 24]], np.float32)[: int(bright)]
            found.append(Faces(boxes, np.full(len(boxes), 0.75, np.float32)))
        return found


@dataclass(frozen=True)
class BoxView:
    """The detector's box, moved by some pixels."""

    detector: FakeDetector
    shift: float = 0.0

    def prepare(self, clips: Sequence[ClipFrames]) -> None:
        pass

    def look(self, clip: ClipFrames) -> Regions:
        found = clip.once(self.detector.key, self.detector.find)
        regions = picked(found, [0 if len(f.boxes) else None for f in found])
        status, reason = judged(clip, regions.mask, nothing="no_face", what="face")
        return replace(regions, boxes=regions.boxes + self.shift, status=status, reason=reason)


def extractor(detector: Any, encoder: Any, shift: float = 0.0, grid: int = 1) -> VisualExtractor:
    sight = Sight(REQUEST, BoxView(detector, shift), encoder)
    spec = {"encoder": "fake", "revision": "", "settings": {"shift": shift, "grid": grid}}
    return VisualExtractor(sight, encoder, Readout(grid=grid), spec, workers=2)


@pytest.fixture
def clips(tmp_path: Path) -> list[ClipInput]:
    """Five videos of 8 frames that grow brighter; one is dark, one half dark; a file is bad."""
    random = np.random.default_rng(0)
    made = []
    for number, levels in enumerate(((90, 200), (100, 150), (0, 0), (0, 200), (120, 220))):
        path = tmp_path / f"{number}.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=8)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for level in np.linspace(*levels, 8):
                image = np.clip(level + random.integers(0, 30, (48, 64, 3)), 0, 255)
                frame = av.VideoFrame.from_ndarray(image.astype(np.uint8), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        made.append(ClipInput(str(number), media=path))
    bad = tmp_path / "bad.mp4"
    bad.write_text("words")
    return [*made, ClipInput("bad", media=bad), ClipInput("none")]


def same(one: ClipFeatures, other: ClipFeatures) -> None:
    assert (one.status, one.reason, one.score) == (other.status, other.reason, other.score)
    for name in ("frames", "mask", "time_s", "frame_score"):
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a, b, atol=1e-6 if name == "frames" else 0)


def test_one_pass_equals_single_runs_and_does_everything_once(
    clips: list[ClipInput], monkeypatch: pytest.MonkeyPatch
) -> None:
    detector, encoder = FakeDetector(), FakeEncoder()
    extractors = {
        "face": extractor(detector, encoder),
        "body": extractor(detector, encoder, shift=10, grid=2),
        "scene": extractor(detector, encoder, shift=-2),
    }
    alone = {name: e.extract(clips) for name, e in extractors.items()}
    opened: list[str] = []
    decode = together.decode
    monkeypatch.setattr(
        together,
        "decode",
        lambda clip, request: opened.append(clip.sample_id) or decode(clip, request),
    )
    detector.calls, encoder.batches = 0, []
    one_pass = OnePass(extractors)
    found = list(one_pass.run(Work(clip, tuple(extractors)) for clip in clips))
    assert [work.clip for work, _ in found] == clips
    for number, (_, features) in enumerate(found):
        for name in extractors:
            same(features[name], alone[name][number])
    assert sorted(opened) == sorted(clip.sample_id for clip in clips)
    assert one_pass.decoded == len(clips)
    assert detector.calls == len(clips)
    # Crops of all clips and modalities share batches.
    assert len(encoder.batches) < len(clips)
    assert set(one_pass.seconds) == {"decode", "wait", "look", "crop", "encode"}


def test_statuses_masks_and_scores(clips: list[ClipInput]) -> None:
    found = extractor(FakeDetector(), FakeEncoder()).extract(clips)
    assert [f.status for f in found[:6]] == ["ok", "ok", "no_face", "partial", "ok", "decode_error"]
    assert found[6].status == "no_media"
    half = found[3]
    assert half.frames is not None and half.mask is not None and half.frame_score is not None
    assert 0 < half.mask.sum() < len(half.mask) == 6
    assert half.reason == f"no face in {6 - half.mask.sum()} of 6 frames"
    assert not half.frames[~half.mask].any() and half.frames[half.mask].any(axis=1).all()
    np.testing.assert_array_equal(half.frame_score, np.where(half.mask, 0.75, 0))
    assert found[2].frames is None and found[2].reason == "no face in any of 6 frames"
    assert half.time_s is not None and (np.diff(half.time_s) > 0).all() and half.time_s[0] == 0


def test_full_queues_are_encoded_before_the_end(
    clips: list[ClipInput], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "QUEUED_CROPS", 7)
    monkeypatch.setattr(together, "GROUPED_FRAMES", 6)
    encoder = FakeEncoder()
    found = extractor(FakeDetector(), encoder).extract(clips)
    # Two clips of six crops each, then what the others have.
    assert encoder.batches[0] == 12 and len(encoder.batches) == 2
    assert [f.frames is not None for f in found[:5]] == [True, True, False, True, True]


def test_an_abandoned_pass_leaves_no_decoding_behind(clips: list[ClipInput]) -> None:
    started: list[str] = []

    def work() -> Any:
        for clip in clips * 50:
            started.append(clip.sample_id)
            yield Work(clip, ("face",))

    run = OnePass({"face": extractor(FakeDetector(), FakeEncoder())}).run(work())
    with pytest.raises(RuntimeError, match="enough"):
        for _ in run:
            raise RuntimeError("enough")
    run.close()
    assert len(started) < len(clips) * 25


@dataclass(frozen=True)
class FakeModality:
    name: str
    inputs: tuple[str, ...] = ("media",)


def test_the_engine_extracts_only_what_each_store_lacks(
    clips: list[ClipInput], tmp_path: Path
) -> None:
    columns = {
        "sample_id": [clip.sample_id for clip in clips],
        "media": [str(clip.media) if clip.media else None for clip in clips],
    }
    corpus = Corpus.build(CorpusMeta("demo", EmotionScale()), columns)
    corpus = corpus.write(tmp_path / "demo.parquet")
    detector, encoder = FakeDetector(), FakeEncoder()
    face = (FakeModality("face"), extractor(detector, encoder))
    body = (FakeModality("body"), extractor(detector, encoder, shift=10))
    (first,) = extract_together([face], corpus, tmp_path / "store")
    assert (first.extracted, first.reused) == (7, 0)
    calls: list[tuple[int, int]] = []
    again = extract_together(
        [face, body], corpus, tmp_path / "store", on_progress=lambda *at: calls.append(at)
    )
    assert [(s.extracted, s.reused) for s in again] == [(0, 7), (7, 0)]
    assert calls[-1] == (7, 7)
    assert again[1].statuses == {
        "ok": 3, "partial": 1, "no_face": 1, "decode_error": 1, "no_media": 1,
    }  # fmt: skip
    store = FrameStore.open(again[1].store)
    (row,) = store.row_of(["3"])
    assert 0 < store.frame_mask(row).sum() < 6
