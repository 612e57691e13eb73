"""Faces: what the detector of facenet-pytorch finds, at any size and in any company."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from mepr_shared.errors import ConfigError, MissingDependency
from mepr_shared.media.frames import sample_frames
from mepr_shared.vision.boxes import overlap
from mepr_shared.vision.face_settings import FaceSettings
from mepr_shared.vision.faces import FaceDetector, _networks, resized
from mepr_shared.vision.types import Faces

pytest.importorskip("facenet_pytorch")


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    """A woman's face of about 85 by 120 px in a picture of 512."""
    return pytest.importorskip("skimage.data").astronaut()


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector.open(FaceSettings())


@pytest.fixture
def clips() -> Path:
    """The folder of real clips."""
    root = os.environ.get("MEPR_REAL_DATA")
    if not root:
        pytest.skip("MEPR_REAL_DATA is not set: no real clips here")
    return Path(root) / "clips"


def library(images: np.ndarray, least_px: float, settings: FaceSettings) -> list[Faces]:
    """What `facenet_pytorch.MTCNN` finds."""
    from facenet_pytorch import MTCNN

    thresholds = [settings.propose_score, settings.refine_score, settings.least_score]
    mtcnn = MTCNN(
        keep_all=True, select_largest=False, min_face_size=least_px, thresholds=thresholds
    )
    found = []
    for boxes, scores in zip(*mtcnn.detect(images), strict=True):
        empty = boxes is None
        found.append(
            Faces(
                np.zeros((0, 4)) if empty else np.asarray(boxes, float),
                np.zeros(0) if empty else np.asarray(scores, float),
            )
        )
    return found


def assert_same(found: Faces, expected: Faces, tolerance_px: float = 0.13) -> None:
    assert len(found.boxes) == len(expected.boxes)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=tolerance_px)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)


@pytest.mark.parametrize("least_score", [0.7, 0.9])
def test_the_same_as_the_library(portrait: np.ndarray, least_score: float) -> None:
    settings = FaceSettings(size=512, least_size=0.04, least_score=least_score)
    images = [portrait, portrait[:, ::-1], np.roll(portrait, 90, axis=0)]
    found = FaceDetector.open(settings).find(images)
    expected = library(np.stack(images), 0.04 * 512, settings)
    assert min(len(faces.boxes) for faces in expected) >= 1
    for ours, theirs in zip(found, expected, strict=True):
        assert_same(ours, theirs)


def test_the_same_as_the_library_in_a_crowd(clips: Path) -> None:
    """Five faces, and low thresholds that leave much to suppress."""
    image = sample_frames(clips / "multi_face.jpg", 1).images[0]
    settings = FaceSettings(size=1000, least_size=0.025, least_score=0.3, refine_score=0.4)
    expected = library(image[None], 25, settings)[0]
    assert len(expected.boxes) > 5
    assert_same(FaceDetector.open(settings).find([image])[0], expected)


def test_sizes_may_be_mixed(portrait: np.ndarray, detector: FaceDetector) -> None:
    rng = np.random.default_rng(0)
    images = [
        portrait,
        np.zeros((1, 1, 3), np.uint8),
        portrait[:400],
        rng.integers(0, 256, (1, 900, 3), dtype=np.uint8),
        portrait[::-1],
        portrait[:400, ::-1],
        np.full((70, 3, 3), 255, np.uint8),
    ]
    together = detector.find(images)
    assert [i for i, faces in enumerate(together) if len(faces.boxes)] == [0, 2, 5]
    for image, faces in zip(images, together, strict=True):
        assert (faces.boxes.dtype, faces.scores.dtype) == (np.float32, np.float32)
        assert faces.boxes.shape == (len(faces.scores), 4)
        assert_same(detector.find([image])[0], faces)
    assert detector.find([]) == []


def test_boxes_are_in_pixels_of_the_picture(portrait: np.ndarray, detector: FaceDetector) -> None:
    """Twice as large a picture has twice as large boxes, borders move nothing."""
    face = detector.find([portrait])[0].boxes[0]
    assert 170 < face[0] < 200 < 240 < face[2] < 280
    assert 50 < face[1] < 90 < 160 < face[3] < 200
    double = np.repeat(np.repeat(portrait, 2, axis=0), 2, axis=1)
    assert overlap(detector.find([double])[0].boxes / 2, face).max() > 0.9
    bordered = FaceDetector.open(FaceSettings(border=0.25))
    assert overlap(bordered.find([portrait])[0].boxes, face).max() > 0.8


def test_best_first_and_no_worse_than_asked(portrait: np.ndarray) -> None:
    settings = FaceSettings(least_score=0.3, propose_score=0.3, refine_score=0.3)
    small = np.ascontiguousarray(portrait[:256:2, 100:356:2])
    scores = FaceDetector.open(settings).find([np.tile(portrait, (1, 2, 1)), small])[0].scores
    assert len(scores) >= 2
    assert (np.diff(scores) <= 0).all()
    assert scores[-1] >= 0.3


def test_a_face_that_fills_the_picture_needs_a_border(portrait: np.ndarray) -> None:
    tight = portrait[68:166, 185:257]
    assert not len(FaceDetector.open(FaceSettings()).find([tight])[0].boxes)
    found = FaceDetector.open(FaceSettings(border=0.25)).find([tight])[0]
    assert len(found.boxes) == 1
    assert overlap(found.boxes, np.array([0, 0, 72, 98])).max() > 0.5


def test_flipped_and_unwritable_pictures(portrait: np.ndarray, detector: FaceDetector) -> None:
    copy = np.ascontiguousarray(portrait[:, ::-1])
    copy.flags.writeable = False
    flipped, fixed = detector.find([portrait[:, ::-1], copy])
    assert_same(flipped, fixed)


@pytest.mark.parametrize(("height", "width"), [(480, 640), (640, 480), (1, 999), (20, 20)])
def test_reduced_pictures_keep_their_ratio(height: int, width: int) -> None:
    small = resized([np.full((height, width, 3), 7, np.uint8)] * 2, 100)
    sides = tuple(max(1, round(side * 100 / max(height, width))) for side in (height, width))
    assert small.shape == (2, *sides, 3)
    assert (small == 7).all()


def test_detectors_share_their_networks() -> None:
    one, other = FaceDetector.open(FaceSettings()), FaceDetector.open(FaceSettings(size=300))
    assert one.networks is other.networks
    assert one.key == FaceDetector.open(FaceSettings()).key != other.key
    assert len({one.key, other.key}) == 2


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _networks.cache_clear()
    monkeypatch.setitem(sys.modules, "facenet_pytorch", None)
    with pytest.raises(MissingDependency, match=r"pip install 'mepr-shared\[faces\]'"):
        FaceDetector.open(FaceSettings())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"detector": "mtcn"}, "did you mean 'mtcnn'"),
        ({"size": 0}, "size = 0"),
        ({"least_size": 20.0}, "least_size = 20"),
        ({"least_score": 1.0}, "least_score = 1"),
        ({"refine_score": 0.0}, "refine_score = 0"),
        ({"border": -0.1}, "border = -0.1"),
    ],
)
def test_settings_out_of_range(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FaceSettings(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "faces"),
    [
        ("single_face.mp4", 1),
        ("obama_speech.mp4", 2),
        ("carphone_pristine.mp4", 1),
        ("liveportrait_s13.mp4", 1),
        ("liveportrait_s18.mp4", 1),
        ("no_face.mp4", 0),
        ("multi_face.jpg", 5),
    ],
)
def test_real_clips(clips: Path, detector: FaceDetector, name: str, faces: int) -> None:
    frames = sample_frames(clips / name, 6, size=1280)
    found = detector.find(frames.images)
    assert [len(here.boxes) for here in found] == [faces] * len(frames.images)


def test_until_the_man_leaves(clips: Path, detector: FaceDetector) -> None:
    frames = sample_frames(clips / "face_noface.mov", 12, size=1280)
    found = [len(faces.boxes) for faces in detector.find(frames.images)]
    assert found == [int(time_s < 2.4) for time_s in frames.time_s]
