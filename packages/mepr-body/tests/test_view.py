"""Which person is looked at: the one that the main face belongs to, whoever else is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from mepr_body.preprocess import BodyView, derived_boxes
from mepr_shared.vision.types import ClipFrames, Faces, Regions

WIDTH, HEIGHT = 640, 480
# A person who faces the camera in the middle of the picture, and the face.
FACE, BODY = (290, 100, 350, 180), (220, 60, 420, 480)
Boxes = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Planted:
    """A detector that finds what it is told to find."""

    boxes: Sequence[Boxes]
    scores: Sequence[Sequence[float]] | None = None

    def look(self, clip: ClipFrames) -> list[Faces]:
        assert len(clip.images) == len(self.boxes)
        scores = self.scores or [[0.9] * len(boxes) for boxes in self.boxes]
        return [
            Faces(np.array(b, np.float32).reshape(-1, 4), np.array(s, np.float32))
            for b, s in zip(self.boxes, scores, strict=True)
        ]


def clip_of(count: int, status: str = "ok", reason: str = "") -> ClipFrames:
    images = [np.zeros((HEIGHT, WIDTH, 3), np.uint8) for _ in range(count)]
    return ClipFrames(images, np.arange(count, dtype=np.float32) / 5, status, reason)


def look(
    faces: Sequence[Boxes], persons: Sequence[Boxes] | None, clip: ClipFrames | None = None
) -> Regions:
    view = BodyView(Planted(faces), None if persons is None else Planted(persons))
    return view.look(clip or clip_of(len(faces)))


def shifted(box: Sequence[float], right: float, down: float = 0.0) -> list[float]:
    return [box[0] + right, box[1] + down, box[2] + right, box[3] + down]


# --- the person of the face ----------------------------------------------------------------------


def test_the_person_of_the_main_face() -> None:
    """Another person is larger and more certain, and shows no face."""
    larger = (430, 10, 640, 480)
    persons = Planted([[larger, BODY]] * 5, [[0.99, 0.6]] * 5)
    regions = BodyView(Planted([[FACE]] * 5), persons).look(clip_of(5))
    np.testing.assert_array_equal(regions.boxes, [BODY] * 5)
    np.testing.assert_allclose(regions.scores, 0.6)
    assert (regions.status, regions.reason) == ("ok", "")
    assert regions.derived is not None and not regions.derived.any()
    for others in regions.others:
        np.testing.assert_array_equal(others, [larger])


def test_the_main_face_decides_among_several_faces() -> None:
    """Two people with a face each: the larger face's person, though the other body is larger."""
    other_face, other_body = (80, 120, 110, 160), (0, 90, 215, 480)
    regions = look([[other_face, FACE]] * 6, [[other_body, BODY]] * 6)
    np.testing.assert_array_equal(regions.boxes, [BODY] * 6)


def test_who_stands_behind_is_not_the_person() -> None:
    """Two boxes hold the face: of a narrow person who sits, and of a broad one who stands behind.

    The head of the first is where the face is. As a whole the second looks more like a body.
    """
    face = (170, 200, 230, 280)
    sits, stands = (130, 150, 270, 480), (60, 20, 300, 480)
    for persons in ([sits, stands], [stands, sits]):
        regions = look([[face]] * 4, [persons] * 4)
        np.testing.assert_array_equal(regions.boxes, [sits] * 4)


def test_part_of_the_person_is_not_the_person() -> None:
    """A second box around head and chest of the same person, or of someone in front."""
    head_and_chest = (280, 55, 360, 250)
    regions = look([[FACE]] * 4, [[head_and_chest, BODY]] * 4)
    np.testing.assert_array_equal(regions.boxes, [BODY] * 4)
    in_front = (240, 130, 400, 480)
    regions = look([[FACE]] * 4, [[in_front, BODY]] * 4)
    np.testing.assert_array_equal(regions.boxes, [BODY] * 4)


@pytest.mark.parametrize("seen", ["always", "except while they cross"])
def test_two_people_crossing(seen: str) -> None:
    """One walks by behind the other, from left to right; both are found in every frame."""
    steps = np.linspace(-210, 210, 21)
    passers = [shifted(BODY, step, down=-30) for step in steps]
    crossing = np.abs(steps) < 90
    hidden = crossing if seen != "always" else np.zeros(21, dtype=bool)
    faces = [[] if gone else [FACE] for gone in hidden]
    regions = look(faces, [[passer, BODY] for passer in passers])
    np.testing.assert_array_equal(regions.boxes, [BODY] * 21)
    assert regions.status == "ok"


def test_people_who_change_places() -> None:
    """Both walk, in opposite directions; the one with the face is followed by the face."""
    steps = np.linspace(-200, 200, 21)
    mine = [shifted(BODY, step) for step in steps]
    faces = [[shifted(FACE, step)] for step in steps]
    theirs = [shifted(BODY, -step, down=-40) for step in steps]
    regions = look(faces, [list(pair) for pair in zip(theirs, mine, strict=True)])
    expected = np.clip(mine, 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
    np.testing.assert_allclose(regions.boxes, expected, atol=1e-3)


# --- frames without the face ---------------------------------------------------------------------


def test_a_face_in_half_of_the_frames() -> None:
    """Where it turns away, the same person is followed; a passer-by is not taken for them."""
    faces = [[FACE] if frame % 2 == 0 else [] for frame in range(10)]
    persons = [[shifted(BODY, -215), shifted(BODY, frame)] for frame in range(10)]
    regions = look(faces, persons)
    np.testing.assert_array_equal(regions.boxes, [shifted(BODY, frame) for frame in range(10)])
    assert (regions.status, regions.reason) == ("ok", "")


def test_the_person_on_both_sides_of_a_cut() -> None:
    """Another camera: both tracks have shown the face, and both are this person's without it."""
    far, far_face = (10, 190, 150, 480), (59, 218, 101, 274)
    near, near_face = shifted(BODY, 200), shifted(FACE, 200)
    shots = [(far, far_face)] * 6 + [(near, near_face)] * 8
    faces = [[face] if frame % 2 else [] for frame, (_, face) in enumerate(shots)]
    regions = look(faces, [[body] for body, _ in shots])
    np.testing.assert_array_equal(regions.boxes, [body for body, _ in shots])
    assert regions.status == "ok"


def test_once_mistaken_is_not_the_person() -> None:
    """The person is missed once, and someone behind holds the face in that frame alone.

    That does not make the other one the person in frames where the person and the face are gone.
    """
    behind = (200, 20, 500, 480)
    persons: list[Boxes] = [[BODY, behind]] * 12
    persons[4] = [behind]
    persons[8] = persons[9] = [behind]
    faces: list[Boxes] = [[FACE]] * 12
    faces[8] = faces[9] = []
    regions = look(faces, persons)
    np.testing.assert_array_equal(np.flatnonzero(~regions.mask), [8, 9])
    assert (regions.status, regions.reason) == ("partial", "no person in 2 of 12 frames")


def test_nobody_shows_a_face() -> None:
    """The person who is large for long is followed; a larger one passes for a moment."""
    persons = [[shifted(BODY, 3 * frame)] for frame in range(12)]
    persons[5] = [(0, 0, 210, 480), *persons[5]]
    regions = look([[]] * 12, persons)
    np.testing.assert_array_equal(regions.boxes, [shifted(BODY, 3 * f) for f in range(12)])
    assert regions.status == "ok"


def test_a_crowd() -> None:
    """Forty people in every frame, one of them close."""
    random = np.random.default_rng(0)
    crowd = []
    for left, top in random.uniform((0, 200), (600, 300), (40, 2)):
        crowd.append([left, top, left + 30, top + 90])
    small_faces = [[b[0] + 10, b[1] + 5, b[0] + 20, b[1] + 18] for b in crowd]
    frames = 6
    moved = [[shifted(box, random.normal(0, 1)) for box in crowd] for _ in range(frames)]
    regions = look([[*small_faces, FACE]] * frames, [[*people, BODY] for people in moved])
    np.testing.assert_array_equal(regions.boxes, [BODY] * frames)
    assert [len(others) for others in regions.others] == [40] * frames


# --- boxes derived from the face -----------------------------------------------------------------


def test_a_person_who_is_missed_is_derived_from_the_face() -> None:
    persons: list[Boxes] = [[BODY]] * 5
    persons[2] = []
    persons[3] = [(100, 0, 310, 480)]  # holds a part of the face, not its middle
    regions = look([[FACE]] * 5, persons)
    np.testing.assert_array_equal(regions.derived, [False, False, True, True, False])
    assert (regions.status, regions.reason) == ("ok", "2 of 5 boxes derived from the face")
    expected = np.clip(derived_boxes(np.array(FACE)), 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
    np.testing.assert_allclose(regions.boxes[2:4], [expected, expected])


def test_derived_boxes_have_the_proportions_of_people() -> None:
    """Centred on the face, with room for the hair, and the same whatever the scale."""
    face = np.array([100.0, 200.0, 130.0, 240.0])
    left, top, right, bottom = derived_boxes(face)
    assert (left + right) / 2 == pytest.approx(115)
    assert 200 - 0.8 * 40 <= top <= 200 - 0.25 * 40
    assert 2 * 40 <= right - left <= 4 * 40  # two to three heads, and arms
    assert 6 * 40 <= bottom - top <= 10.5 * 40
    np.testing.assert_allclose(derived_boxes(face * 3), np.array([left, top, right, bottom]) * 3)
    assert derived_boxes(np.zeros((0, 4))).shape == (0, 4)


@pytest.mark.parametrize(
    "face", [(-10, 40, 30, 90), (610, 200, 650, 250), (300, -20, 360, 60), (300, 440, 360, 490)]
)
def test_derived_boxes_are_cut_at_the_edges(face: Sequence[float]) -> None:
    regions = look([[face]] * 2, None)
    for left, top, right, bottom in regions.boxes.tolist():
        assert 0 <= left < right <= WIDTH and 0 <= top < bottom <= HEIGHT
    assert regions.mask.all() and regions.derived is not None and regions.derived.all()


@pytest.mark.parametrize("persons", [None, [[], []]])
def test_what_lies_beyond_the_picture_is_not_seen(persons: list[Boxes] | None) -> None:
    """A box of which nothing is in the picture has no area to crop."""
    beyond = (WIDTH + 300, 100, WIDTH + 330, 140)
    regions = look([[beyond]] * 2, persons)
    assert not regions.mask.any() and not regions.scores.any()
    assert regions.derived is not None and not regions.derived.any()
    assert (regions.status, regions.reason) == ("no_person", "no person in any of 2 frames")


def test_without_a_person_detector_all_boxes_are_derived() -> None:
    faces: list[Boxes] = [[FACE], [], [shifted(FACE, 20)]]
    regions = look(faces, None)
    np.testing.assert_array_equal(regions.mask, [True, False, True])
    np.testing.assert_array_equal(regions.derived, [True, False, True])
    assert regions.status == "partial"
    assert regions.reason == ("no person in 1 of 3 frames; 2 of 2 boxes derived from the face")
    np.testing.assert_allclose(regions.scores, [0.9, 0, 0.9])


# --- statuses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("persons", [None, [[], [], []]])
def test_no_people(persons: list[Boxes] | None) -> None:
    regions = look([[], [], []], persons)
    assert not regions.mask.any()
    assert (regions.status, regions.reason) == ("no_person", "no person in any of 3 frames")


def test_no_people_in_a_picture() -> None:
    assert look([[]], [[]]).reason == "no person in the picture"


@pytest.mark.parametrize("status", ["no_media", "no_video", "decode_error", "too_short"])
@pytest.mark.parametrize("persons", [None, []])
def test_bad_media_pass_through(status: str, persons: list[Boxes] | None) -> None:
    regions = look([], persons, clip_of(0, status, "why"))
    assert (regions.status, regions.reason) == (status, "why")
    assert regions.boxes.shape == (0, 4) and regions.mask.shape == (0,)


def test_reasons_are_joined() -> None:
    """Damaged media stay partial when all is found, and both reasons are said when not."""
    damaged = "the video stops at 2 s"
    whole = look([[FACE]] * 2, [[BODY]] * 2, clip_of(2, "partial", damaged))
    assert (whole.status, whole.reason) == ("partial", damaged)
    half = look([[FACE], []], [[BODY], []], clip_of(2, "partial", damaged))
    assert half.reason == f"no person in 1 of 2 frames; {damaged}"
    none = look([[], []], [[], []], clip_of(2, "partial", damaged))
    assert (none.status, none.reason) == ("no_person", f"no person in any of 2 frames; {damaged}")


# --- invariances ---------------------------------------------------------------------------------


def test_the_order_within_a_frame_does_not_matter() -> None:
    random = np.random.default_rng(1)
    faces, persons = [], []
    for frame in range(10):
        bodies = [shifted(BODY, 100 * k + 4 * frame, 5 * k) for k in (-2, -1, 0, 1, 2)]
        persons.append(bodies)
        faces.append([shifted(FACE, 100 * k + 4 * frame, 5 * k) for k in (-1, 0, 2)][: frame % 4])
    expected = look(faces, persons)
    assert expected.mask.all()
    for _ in range(5):
        mixed_faces = [[f[i] for i in random.permutation(len(f))] for f in faces]
        mixed_persons = [[p[i] for i in random.permutation(len(p))] for p in persons]
        regions = look(mixed_faces, mixed_persons)
        np.testing.assert_array_equal(regions.boxes, expected.boxes)
        np.testing.assert_array_equal(regions.mask, expected.mask)
