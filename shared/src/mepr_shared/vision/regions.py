"""From what was found in the frames of a clip to the regions a modality looks at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mepr_shared.vision.types import ClipFrames, Faces, Regions


def picked(found: Sequence[Faces], chosen: Sequence[int | None]) -> Regions:
    """Regions of one detection per frame.

    Args:
        found: per frame.
        chosen: per frame the index of the one that counts; None where none does.

    Returns:
        regions without a judgement; the boxes are those of the detections.
    """
    count = len(found)
    boxes, scores = np.zeros((count, 4), np.float32), np.zeros(count, np.float32)
    mask = np.array([index is not None for index in chosen], dtype=bool)
    others = []
    for frame, (detections, index) in enumerate(zip(found, chosen, strict=True)):
        if index is None:
            others.append(detections.boxes)
            continue
        boxes[frame], scores[frame] = detections.boxes[index], detections.scores[index]
        others.append(np.delete(detections.boxes, index, axis=0))
    return Regions(boxes, mask, scores, others=tuple(others))


def judged(
    clip: ClipFrames,
    mask: np.ndarray,
    *,
    nothing: str,
    what: str,
    notes: Sequence[str] = (),
) -> tuple[str, str]:
    """Status and reason of regions.

    Args:
        mask: bool `[T]`: frames with a region.
        nothing: the status where there is none in any frame, e.g. `no_face`.
        what: what is looked for, e.g. `face`.
        notes: more for the reason, which alone do not change the status.
    """
    if not clip.images:
        return clip.status, clip.reason
    found = int(mask.sum())
    if not found:
        where = "the picture" if len(mask) == 1 else f"any of {len(mask)} frames"
        return nothing, "; ".join(part for part in (f"no {what} in {where}", clip.reason) if part)
    missing = f"no {what} in {len(mask) - found} of {len(mask)} frames" if found < len(mask) else ""
    reason = "; ".join(part for part in (missing, *notes, clip.reason) if part)
    return ("partial" if missing or clip.status != "ok" else "ok"), reason
