"""What passes between the parts that look at a clip: its frames, the faces in them, its regions."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Faces:
    """The faces of one frame, best first.

    Attributes:
        boxes: float32 `[N, 4]`: left, top, right, bottom in pixels of the frame.
        scores: float32 `[N]` in [0, 1].
    """

    boxes: np.ndarray
    scores: np.ndarray


@dataclass
class ClipFrames:
    """The sampled frames of one clip, and what was found in them so far.

    Attributes:
        images: RGB, uint8 `[H, W, 3]` each, in order of time.
        time_s: float32 `[T]`: when each appears, in seconds since the start of the file.
        status, reason: as `mepr_shared.media.frames.Frames` has them.
    """

    images: list[np.ndarray]
    time_s: np.ndarray
    status: str = "ok"
    reason: str = ""
    _found: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def once(self, key: Hashable, find: Callable[[list[np.ndarray]], Any]) -> Any:
        """`find(images)`, computed on the first call with this key: detection is shared."""
        if key not in self._found:
            self._found[key] = find(self.images)
        return self._found[key]

    def knows(self, key: Hashable) -> bool:
        """Whether `once` has an answer for this key."""
        return key in self._found


def together(
    clips: Sequence[ClipFrames],
    key: Hashable,
    find: Callable[[list[np.ndarray]], Sequence[Any]],
) -> None:
    """`clip.once(key, find)` for several clips with one call of `find`.

    Args:
        find: gives one answer per picture, whatever pictures it is given.
    """
    new = [clip for clip in clips if not clip.knows(key)]
    answers = iter(find([image for clip in new for image in clip.images]))
    for clip in new:
        clip.once(key, lambda images: [next(answers) for _ in images])


@dataclass(frozen=True)
class Regions:
    """Where a modality looks in the frames of one clip.

    Attributes:
        boxes: float32 `[T, 4]`: left, top, right, bottom in pixels of the frame, possibly beyond
            its edges; of no meaning where `mask` is False.
        mask: bool `[T]`: False where there is nothing to look at.
        scores: float32 `[T]` in [0, 1]: of the detection that led there; 0 where masked.
        status, reason: a status of the contract; of the frames themselves where those are not ok.
        others: per frame the boxes `[n, 4]` that were found and not chosen, for people to see.
        derived: bool `[T]`: True where the box was guessed from another one, not detected.
    """

    boxes: np.ndarray
    mask: np.ndarray
    scores: np.ndarray
    status: str = "ok"
    reason: str = ""
    others: tuple[np.ndarray, ...] = ()
    derived: np.ndarray | None = None
