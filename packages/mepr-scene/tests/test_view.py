"""The scene is all of every frame."""

from __future__ import annotations

import numpy as np
import pytest

from mepr_scene.preprocess import SceneView
from mepr_shared.vision.crop import Fit, crop
from mepr_shared.vision.types import ClipFrames, Regions


def look(*sizes: tuple[int, int], status: str = "ok", reason: str = "") -> Regions:
    """At frames of these widths and heights."""
    images = [np.zeros((height, width, 3), np.uint8) for width, height in sizes]
    clip = ClipFrames(images, np.arange(len(sizes), dtype=np.float32), status, reason)
    return SceneView().look(clip)


def test_every_frame_whole() -> None:
    """Width and height are not exchanged, and frames may differ in size."""
    regions = look((640, 360), (360, 640), (1, 1))
    np.testing.assert_array_equal(regions.boxes, [[0, 0, 640, 360], [0, 0, 360, 640], [0, 0, 1, 1]])
    assert regions.boxes.dtype == np.float32 and regions.mask.dtype == np.bool_
    assert regions.mask.all() and (regions.scores == 1).all()
    assert (regions.status, regions.reason) == ("ok", "")


@pytest.mark.parametrize("status", ["no_media", "no_video", "decode_error", "too_short"])
def test_bad_media_pass_through(status: str) -> None:
    regions = look(status=status, reason="why")
    assert (regions.status, regions.reason) == (status, "why")
    assert regions.boxes.shape == (0, 4) and regions.mask.shape == (0,)


def test_damaged_media_stay_partial() -> None:
    regions = look((64, 64), status="partial", reason="the video stops at 2 s")
    assert (regions.status, regions.reason) == ("partial", "the video stops at 2 s")
    assert regions.mask.all()


@pytest.mark.parametrize(("fit", "share"), [("letterbox", 1.0), ("crop", 9 / 16)])
def test_what_is_shown_of_a_wide_frame(fit: Fit, share: float) -> None:
    """All of it between bars, or the middle square alone."""
    image = np.zeros((360, 640, 3), np.uint8)
    image[..., 0] = np.linspace(1, 255, 640).astype(np.uint8)
    regions = SceneView().look(ClipFrames([image], np.zeros(1, np.float32)))
    square = crop(image, regions.boxes[0], 64, fit=fit, colour=(0, 0, 0))
    shown = square[32, :, 0].astype(float)
    assert (shown[-1] - shown[0]) / 254 == pytest.approx(share, abs=0.03)
    bars = (square[..., 0] == 0).all(axis=1).sum()
    assert bars == (64 - 36 if fit == "letterbox" else 0)
