"""Frames -> the main person in each, from head to foot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from mepr_shared.vision.boxes import area, centre, contains, overlap
from mepr_shared.vision.regions import judged, picked
from mepr_shared.vision.track import Track, follow, linked
from mepr_shared.vision.types import ClipFrames, Faces, Regions

# A body around a detected face (brow to chin), in widths and heights of that face. By the drawing
# canon a grown person is 7.5 heads high, and 2 to 3 wide at the shoulders (Loomis 1943, "Figure
# Drawing for All It's Worth"). A face is some four fifths of a head high, so that 7.5 heads are 9.4
# faces; hair and arms need room. Who sits or bows is shorter.
ABOVE, HEIGHT, WIDTH = 0.6, 10.0, 4.0


class Detector(Protocol):
    """Finds faces or persons: `mepr_shared.vision.faces.FaceDetector`, `PersonDetector`."""

    def look(self, clip: ClipFrames) -> list[Faces]: ...
    def prepare(self, clips: Sequence[ClipFrames]) -> None: ...


@dataclass(frozen=True)
class BodyView:
    """The person that the main face belongs to.

    A detected person whose box holds the centre of the face, of several the one with the head
    there; where there is none, a box derived from the face. In frames that do not show the face,
    the same person's box, followed over time; where no frame shows a face, the main person.

    Attributes:
        faces: finds faces.
        persons: finds persons; None: all boxes are derived from faces.
    """

    faces: Detector
    persons: Detector | None = None

    def prepare(self, clips: Sequence[ClipFrames]) -> None:
        """Find the faces and persons of several clips at once."""
        for detector in (self.faces, self.persons):
            if detector is not None:
                detector.prepare(clips)

    def look(self, clip: ClipFrames) -> Regions:
        """One person per frame, cut at its edges; frames without are masked."""
        faces = self.faces.look(clip)
        face = picked(faces, follow(faces, clip.time_s))
        guesses = _inside(derived_boxes(face.boxes), clip)
        if self.persons is None:
            regions = replace(face, boxes=guesses, derived=face.mask, others=())
        else:
            persons = self.persons.look(clip)
            found = picked(persons, tied(persons, face, guesses, clip.time_s))
            regions = _filled(replace(found, boxes=_inside(found.boxes, clip)), face, guesses)
        regions = _seen(regions)
        count = 0 if regions.derived is None else int(regions.derived.sum())
        whole = int(regions.mask.sum())
        status, reason = judged(
            clip,
            regions.mask,
            nothing="no_person",
            what="person",
            notes=[f"{count} of {whole} boxes derived from the face"] if count else [],
        )
        return replace(regions, status=status, reason=reason)


def derived_boxes(faces: np.ndarray) -> np.ndarray:
    """Where the bodies of faces `[..., 4]` are by human proportions, float32 `[..., 4]`."""
    width = (faces[..., 2] - faces[..., 0]) * WIDTH
    height = faces[..., 3] - faces[..., 1]
    middle, top = centre(faces)[..., 0], faces[..., 1] - ABOVE * height
    sides = [middle - width / 2, top, middle + width / 2, top + HEIGHT * height]
    return np.stack(sides, axis=-1).astype(np.float32)


def tied(
    persons: Sequence[Faces], face: Regions, guesses: np.ndarray, time_s: np.ndarray
) -> list[int | None]:
    """Which person each frame's main face belongs to.

    Args:
        persons: found per frame.
        face: the main face, masked where it is not seen.
        guesses: `[T, 4]` bodies derived from it.
        time_s: `[T]`.

    Returns:
        per frame the index of the person, or None.
    """
    if not face.mask.any():
        return follow(persons, time_s)
    chosen: list[int | None] = [None] * len(persons)
    for frame in np.flatnonzero(face.mask).tolist():
        chosen[frame] = _holder(persons[frame].boxes, face.boxes[frame], guesses[frame])
    owners = _owners(linked(persons, time_s), chosen, face.mask)
    for frame in np.flatnonzero(~face.mask).tolist():
        chosen[frame] = next((places[frame] for places in owners if frame in places), None)
    return chosen


def _holder(boxes: np.ndarray, face: np.ndarray, guess: np.ndarray) -> int | None:
    """Which of the persons `[N, 4]` a face belongs to; None where none holds its centre.

    Several do where people stand before each other. A body is cut by the picture's edge, hidden by
    a table, or seated: its head says more than its whole. The rest tells a person from a part.
    """
    holding = np.flatnonzero(contains(boxes, centre(face)))
    if not len(holding):
        return None
    held = boxes[holding]
    crown = np.array([centre(face)[0], face[1] - ABOVE * (face[3] - face[1])])
    crowns = np.stack([centre(held)[:, 0], held[:, 1]], axis=-1)
    away = np.linalg.norm(crowns - crown, axis=-1) / np.sqrt(max(float(area(face)), 1.0))
    unlike = away + 1 - overlap(held, guess)
    # By place among equals, so that the order of the boxes does not matter.
    return int(holding[np.lexsort((*held.T, unlike))[0]])


def _owners(
    tracks: Sequence[Track], chosen: Sequence[int | None], shown: np.ndarray
) -> list[dict[int, int]]:
    """The tracks of the person whose face it is: frame -> which box. Most frames with it first.

    Several, for a track ends where the picture is cut. Those that hold the face in most of the
    frames that show both; who is mistaken for the person now and then is not among them.
    """
    owners = []
    for track in tracks:
        places = dict(zip(track.frames, track.places, strict=True))
        both = [frame for frame in places if shown[frame]]
        votes = sum(chosen[frame] == places[frame] for frame in both)
        if 2 * votes > len(both):
            owners.append((votes, places))
    return [places for _, places in sorted(owners, key=lambda owner: -owner[0])]


def _filled(found: Regions, face: Regions, guesses: np.ndarray) -> Regions:
    """Boxes derived from the face where its person was not detected."""
    derived = face.mask & ~found.mask
    return replace(
        found,
        boxes=np.where(derived[:, None], guesses, found.boxes),
        scores=np.where(derived, face.scores, found.scores).astype(np.float32),
        mask=found.mask | derived,
        derived=derived,
    )


def _inside(boxes: np.ndarray, clip: ClipFrames) -> np.ndarray:
    """The parts of boxes `[T, 4]` that lie inside their frames."""
    sides = np.array([image.shape[1::-1] * 2 for image in clip.images]).reshape(-1, 4)
    return np.clip(boxes, 0, sides).astype(np.float32)


def _seen(regions: Regions) -> Regions:
    """Without the boxes that lie beyond their frames."""
    mask = regions.mask & (area(regions.boxes) > 0)
    scores = np.where(mask, regions.scores, 0).astype(np.float32)
    derived = None if regions.derived is None else regions.derived & mask
    return replace(regions, mask=mask, scores=scores, derived=derived)
