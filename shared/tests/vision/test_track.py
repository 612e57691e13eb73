"""Tracks: the main person stays the main person."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from mepr_shared.media.frames import sample_frames
from mepr_shared.vision.track import follow, linked
from mepr_shared.vision.types import Faces

STEP_S = 0.2


def box(x: float, y: float = 100, side: float = 50) -> list[float]:
    return [x - side / 2, y - side / 2, x + side / 2, y + side / 2]


def frame(*boxes: list[float]) -> Faces:
    return Faces(np.array(boxes, np.float32).reshape(-1, 4), np.full(len(boxes), 0.99, np.float32))


def times(count: int) -> np.ndarray:
    return (np.arange(count) * STEP_S).astype(np.float32)


def centres(found: list[Faces], chosen: list[int | None]) -> list[float | None]:
    """x of the chosen boxes."""
    return [
        None if index is None else float(faces.boxes[index][[0, 2]].mean())
        for faces, index in zip(found, chosen, strict=True)
    ]


def main(found: list[Faces]) -> list[float | None]:
    return centres(found, follow(found, times(len(found))))


def test_nothing_to_follow() -> None:
    assert follow([], np.zeros(0)) == []
    assert follow([frame(), frame()], times(2)) == [None, None]
    assert follow([frame(box(10, side=0))], times(1)) == [0]


def test_a_picture_gives_the_largest() -> None:
    assert follow([frame(box(100), box(300, side=80), box(500, side=60))], times(1)) == [1]


def test_the_main_person_is_not_who_is_largest_at_first() -> None:
    passer = [frame(box(100), box(400, side=90))] * 2
    alone = [frame(box(100))] * 10
    assert main(passer + alone) == [100] * 12


def test_sizes_that_take_turns_do_not_change_the_person() -> None:
    found = [frame(box(100, side=50 + 4 * (i % 2)), box(200, side=51)) for i in range(12)]
    assert main(found) == [100] * 12


@pytest.mark.parametrize("seed", range(5))
def test_the_order_within_a_frame_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found, shuffled = [], []
    places = rng.uniform(0, 600, (4, 2))
    for _ in range(20):
        places += rng.normal(0, 12, places.shape)
        here = [box(x, y, rng.uniform(40, 60)) for x, y in places[rng.random(4) < 0.8]]
        found.append(frame(*here))
        shuffled.append(frame(*(here[i] for i in rng.permutation(len(here)))))
    assert centres(found, follow(found, times(20))) == centres(
        shuffled, follow(shuffled, times(20))
    )


def test_every_box_is_in_one_track() -> None:
    rng = np.random.default_rng(1)
    found = [frame(*(box(*rng.uniform(0, 400, 2)) for _ in range(i % 4))) for i in range(12)]
    tracks = linked(found, times(12))
    members = [m for t in tracks for m in zip(t.frames, t.places, strict=True)]
    assert sorted(members) == [(i, j) for i, faces in enumerate(found) for j in range(i % 4)]


@pytest.mark.parametrize("scale", [0.1, 1, 7])
def test_resolution_does_not_matter(scale: float) -> None:
    found = [frame(box(100 + 9 * i), box(300 - 3 * i, side=60), box(450)) for i in range(10)]
    larger = [Faces(f.boxes * scale * 10, f.scores) for f in found]
    assert follow(larger, times(10)) == follow(found, times(10))


def test_people_who_cross() -> None:
    """The larger one goes right, the other left; where they meet one hides the other."""
    found = [frame(box(100 + 30 * i, side=54), box(400 - 30 * i, side=50)) for i in range(11)]
    assert main(found) == [100 + 30 * i for i in range(11)]
    found[5] = frame(box(250, side=54))
    assert main(found) == [100 + 30 * i for i in range(11)]


def test_a_gap_is_left_empty_and_the_person_found_again() -> None:
    found = [frame(box(100))] * 5 + [frame()] * 4 + [frame(box(150))] * 5
    assert main(found) == [100] * 5 + [None] * 4 + [150] * 5


def test_a_bystander_does_not_step_in() -> None:
    """Neither one who was there all the time, nor one who comes while the main person is away."""
    there = [frame(box(100, side=80), box(330))] * 6 + [frame(box(330))] * 8
    assert main(there) == [100] * 6 + [None] * 8
    comes = [frame(box(100))] * 6 + [frame(box(400))] * 6 + [frame(box(100))] * 6
    assert main(comes) == [100] * 6 + [None] * 6 + [100] * 6


def test_a_neighbour_is_not_taken_for_a_jump() -> None:
    """Two heads close together: each keeps its own box while the other is hidden."""
    both, right = frame(box(100, side=60), box(155)), frame(box(155))
    assert main([both] * 6 + [right] * 4 + [both] * 6) == [100] * 6 + [None] * 4 + [100] * 6


def test_after_a_cut_the_person_is_elsewhere() -> None:
    assert main([frame(box(100))] * 12 + [frame(box(500))] * 8) == [100] * 12 + [500] * 8
    assert main([frame(box(500))] * 8 + [frame(box(100))] * 12) == [500] * 8 + [100] * 12


def test_what_flashes_up_is_no_cut() -> None:
    """A false alarm, or something of another size."""
    short = [frame(box(100))] * 12 + [frame()] * 3 + [frame(box(500))] * 2 + [frame()] * 3
    assert main(short) == [100] * 12 + [None] * 8
    small = [frame(box(100))] * 12 + [frame(box(500, side=20))] * 8
    assert main(small) == [100] * 12 + [None] * 8


def test_two_men() -> None:
    """The speaker is the right one of the two throughout."""
    root = os.environ.get("MEPR_REAL_DATA")
    if not root:
        pytest.skip("MEPR_REAL_DATA is not set: no real clips here")
    pytest.importorskip("facenet_pytorch")
    from mepr_shared.vision.face_settings import FaceSettings
    from mepr_shared.vision.faces import FaceDetector

    frames = sample_frames(Path(root) / "clips" / "obama_speech.mp4", 12)
    found = FaceDetector.open(FaceSettings()).find(frames.images)
    for middle in centres(found, follow(found, frames.time_s)):
        assert middle is not None
        assert 180 < middle < 230
