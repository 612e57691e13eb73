"""How faces are found: the `[encoder.faces]` table. Light: no NumPy."""

from __future__ import annotations

from dataclasses import dataclass

from mepr_shared.errors import ConfigError, did_you_mean

DETECTORS = ("mtcnn",)


@dataclass(frozen=True)
class FaceSettings:
    """How faces are found.

    Every picture is brought to one size first, so that the cost per frame is the same whatever its
    resolution. Cost grows with the square of `size` for the copies, and with the inverse square of
    `least_size` for the search.

    Attributes:
        detector: `mtcnn`, the only one so far.
        size: longest side, in pixels, to which pictures are reduced or enlarged for detection,
            border included.
        least_size: the smallest face that is looked for, as a share of the longest side of the
            picture: 0.06 is 77 px of 1280.
        least_score: faces that the last network is less sure of are left out.
        propose_score, refine_score: what the first and second network must be sure of to pass a
            box on. Higher is faster and finds fewer faces.
        border: what is added on each side before detection, as a share of the longest side, by
            repeating the outermost pixels. Faces that fill the picture are found with 0.25: tight
            face crops need it, videos do not.
    """

    detector: str = "mtcnn"
    size: int = 400
    least_size: float = 0.06
    least_score: float = 0.9
    propose_score: float = 0.6
    refine_score: float = 0.7
    border: float = 0.0

    def __post_init__(self) -> None:
        if self.detector not in DETECTORS:
            raise ConfigError(
                f"unknown face detector {self.detector!r}",
                hint=did_you_mean(self.detector, DETECTORS),
            )
        if not 48 <= self.size <= 4096:
            raise ConfigError(f"faces.size = {self.size}: it takes 48 to 4096 pixels")
        if not 0.01 <= self.least_size <= 1:
            raise ConfigError(f"faces.least_size = {self.least_size:g}: it takes 0.01 to 1")
        for name in ("least_score", "propose_score", "refine_score"):
            score = getattr(self, name)
            if not 0 < score < 1:
                raise ConfigError(f"faces.{name} = {score:g}: it takes a score between 0 and 1")
        if not 0 <= self.border <= 2:
            raise ConfigError(f"faces.border = {self.border:g}: it takes 0 to 2")
