"""Who of the people in a clip is the main one, and where that one is in each frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from mepr_shared.vision.boxes import area, centre

# A person is looked for within so many sides of the box (square root of its area) of the place
# where the last one was or was heading to: more for every second since, up to a limit.
REACH, REACH_PER_S, LONGEST_REACH = 1.0, 1.0, 3.0
# From one frame with the person to the next the side changes by this factor at most.
LARGEST_GROWTH = 2.0
# Movement is continued for this many times the interval it was seen in.
FORESIGHT = 2.0
# What appears elsewhere and was never seen beside the main person is that person after a cut, if it
# stays this long: false alarms and passers-by are shorter.
SETTLED_S = 1.0


class Found(Protocol):
    """What was found in one frame, e.g. `Faces`: boxes `[N, 4]` in pixels and scores `[N]`."""

    @property
    def boxes(self) -> np.ndarray: ...
    @property
    def scores(self) -> np.ndarray: ...


@dataclass
class Track:
    """One person's boxes over time.

    Attributes:
        frames: in which frames, ascending.
        places: which box of each frame.
        boxes: float64 `[4]` each.
        weight: sum of area times score: who is large, and long in the picture, weighs most.
    """

    frames: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    boxes: list[np.ndarray] = field(default_factory=list)
    weight: float = 0.0

    def add(self, frame: int, place: int, box: np.ndarray, score: float) -> None:
        self.frames.append(frame)
        self.places.append(place)
        self.boxes.append(box)
        self.weight += float(area(box)) * score


def follow(found: Sequence[Found], time_s: np.ndarray) -> list[int | None]:
    """The main person in each frame.

    Boxes are linked over time, nearest and most alike in size first. The main person is the track
    with the largest sum of area times score over the clip, not the largest box of some frame. Where
    it is gone, the frame has none: another person who is there meanwhile does not take its place.
    Only tracks that lie wholly before or after it, are about as large, and last a second count as
    the same person, for videos that are cut show one speaker from several sides. A face has no
    identity here: a clip that cuts from one person to another for good passes to the other.

    Args:
        found: per frame, in order of time; the order within a frame does not matter.
        time_s: `[T]`.

    Returns:
        per frame the index of the box of the main person, or None.
    """
    chosen: list[int | None] = [None] * len(found)
    tracks = linked(found, np.asarray(time_s, np.float64))
    for track in _one_person(tracks, np.asarray(time_s, np.float64)):
        for frame, place in zip(track.frames, track.places, strict=True):
            chosen[frame] = place
    return chosen


def linked(found: Sequence[Found], time_s: np.ndarray) -> list[Track]:
    """Tracks, in order of their first frames; every box is in exactly one."""
    tracks: list[Track] = []
    for frame, detections in enumerate(found):
        boxes = np.asarray(detections.boxes, np.float64).reshape(-1, 4)
        scores = np.asarray(detections.scores, np.float64)
        # By place in the picture, so that ties fall the same way however a frame is ordered.
        order = np.lexsort((scores, *boxes.T[::-1]))
        costs = [_costs(track, boxes[order], frame, time_s) for track in tracks]
        owners = _assigned(np.array(costs).reshape(len(tracks), len(order)))
        for position, place in enumerate(order.tolist()):
            if position not in owners:
                tracks.append(Track())
            track = tracks[owners.get(position, -1)]
            track.add(frame, place, boxes[place], float(scores[place]))
    return tracks


def _costs(track: Track, boxes: np.ndarray, frame: int, time_s: np.ndarray) -> np.ndarray:
    """How unlike the continuation of a track boxes `[N, 4]` are: `[N]`, infinite where too much."""
    last = track.boxes[-1]
    since_s = time_s[frame] - time_s[track.frames[-1]]
    expected = centre(last)
    if len(track.boxes) > 1:
        interval_s = max(time_s[track.frames[-1]] - time_s[track.frames[-2]], 1e-6)
        steps = min(since_s / interval_s, FORESIGHT)
        expected = expected + (expected - centre(track.boxes[-2])) * steps
    sides, last_side = np.sqrt(np.maximum(area(boxes), 1)), np.sqrt(max(float(area(last)), 1))
    growth = np.abs(np.log(sides / last_side))
    unit = np.sqrt(sides * last_side)
    from_expected = np.linalg.norm(centre(boxes) - expected, axis=-1) / unit
    from_last = np.linalg.norm(centre(boxes) - centre(last), axis=-1) / unit
    reach = min(REACH + REACH_PER_S * since_s, LONGEST_REACH)
    near = (np.minimum(from_expected, from_last) <= reach) & (growth <= np.log(LARGEST_GROWTH))
    return np.where(near, from_expected + growth, np.inf)


def _assigned(costs: np.ndarray) -> dict[int, int]:
    """Column -> row of pairs, cheapest first, each row and column once. `costs`: `[R, C]`."""
    owners: dict[int, int] = {}
    rows: set[int] = set()
    for flat in np.argsort(costs, axis=None, kind="stable").tolist():
        row, column = divmod(flat, costs.shape[1])
        if not np.isfinite(costs[row, column]):
            break
        if row not in rows and column not in owners:
            owners[column] = row
            rows.add(row)
    return owners


def _one_person(tracks: list[Track], time_s: np.ndarray) -> list[Track]:
    """The main track and those of the same person before and after it."""
    by_weight = sorted(tracks, key=lambda track: -track.weight)
    if not by_weight:
        return []
    main, *others = by_weight
    person = [main]
    step_s = float(np.median(np.diff(time_s))) if len(time_s) > 1 else 0.0
    for track in others:
        first = min(part.frames[0] for part in person)
        last = max(part.frames[-1] for part in person)
        apart = track.frames[-1] < first or last < track.frames[0]
        lasts_s = time_s[track.frames[-1]] - time_s[track.frames[0]] + step_s
        if apart and lasts_s >= SETTLED_S and _alike(track, main):
            person.append(track)
    return person


def _alike(track: Track, other: Track) -> bool:
    """Whether typical sides differ by no more than a person's may."""
    sides = [float(np.sqrt(np.median(area(np.array(t.boxes))))) for t in (track, other)]
    return max(sides) <= LARGEST_GROWTH * min(sides)
