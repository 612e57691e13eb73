"""Where the modalities that look at pictures looked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

# Other people in fewer frames than this share are passers-by, or mistakes of a detector.
OFTEN = 0.3


@dataclass(frozen=True)
class Sighting:
    """What one modality looked at in one window.

    Attributes:
        time_s: float32 `[T]`: when each frame appears.
        boxes: float32 `[T, 4]`: left, top, right, bottom in pixels of the frame.
        mask: bool `[T]`: False where there was nothing to look at.
        scores: float32 `[T]`: of the detection.
        others: `[T]` how many more were found in the frame and not chosen.
        size: (width, height) of the frames that `boxes` refer to, in pixels.
        pictures: RGB uint8 `[h, w, 3]` of each frame, reduced; empty unless they were asked for.
    """

    time_s: np.ndarray
    boxes: np.ndarray
    mask: np.ndarray
    scores: np.ndarray
    others: np.ndarray
    size: tuple[int, int] | None
    pictures: list[np.ndarray]


@dataclass
class Sightings:
    """Collects them while a file is read.

    Attributes:
        pictures_px: longest side of the pictures that are kept; 0 keeps none.
        found: modality -> one entry per window.
    """

    pictures_px: int = 0
    found: dict[str, list[Sighting]] = field(default_factory=dict)
    _kept: dict[int, tuple[Any, list[np.ndarray]]] = field(default_factory=dict, repr=False)

    def add(self, work: Any, name: str, clip: Any, regions: Any) -> None:
        """Take down what a modality looked at; see `mepr_shared.vision.together.OnePass`."""
        counts = [len(boxes) for boxes in regions.others] or [0] * len(regions.mask)
        size = clip.images[0].shape[1::-1] if clip.images else None
        sighting = Sighting(
            clip.time_s,
            regions.boxes,
            regions.mask,
            regions.scores,
            np.array(counts, dtype=np.int64),
            size,
            self._pictures(clip),
        )
        self.found.setdefault(name, []).append(sighting)

    def warnings(self) -> list[str]:
        """A line where more than one person is seen often."""
        for name, windows in self.found.items():
            shown = np.concatenate([w.others[w.mask] for w in windows]) if windows else np.zeros(0)
            several = int((shown > 0).sum())
            if len(shown) and several >= OFTEN * len(shown):
                return [
                    f"more than one person is seen ({name}: in {several} of {len(shown)} frames); "
                    "the answer is for the main one, and the voices are not told apart"
                ]
        return []

    def forget(self) -> None:
        """Let go of the last frames: nothing more will be added."""
        self._kept = {}

    def _pictures(self, clip: Any) -> list[np.ndarray]:
        """Reduced frames, made once for all modalities that share them."""
        if not self.pictures_px or not clip.images:
            return []
        key = id(clip)
        if key not in self._kept:
            from mepr_shared.vision.faces import resized

            scale = min(1.0, self.pictures_px / max(clip.images[0].shape[:2]))
            longest = max(1, round(scale * max(clip.images[0].shape[:2])))
            # The clip is kept as well: another one must not get its number while we have it.
            self._kept = {key: (clip, [resized([image], longest)[0] for image in clip.images])}
        return self._kept[key][1]
