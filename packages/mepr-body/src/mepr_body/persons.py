"""Persons in pictures, by an object detector of `transformers` (RT-DETR, YOLOS, DETR, ...).

These detectors are trained to give one box per object: nothing is suppressed afterwards. Code that
comes with a model is never run.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np
import torch

from mepr_body.plugin import PersonSettings
from mepr_shared.errors import ConfigError, MeprError, MissingDependency, require
from mepr_shared.extract.weights import PretrainedFolder, resolve
from mepr_shared.vision.encoders.hugging_face import loaded
from mepr_shared.vision.types import ClipFrames, Faces, together

PERSON = "person"
# Pictures in one forward pass.
BATCH = 8
# Narrower pictures show nobody, and some image processors reduce them to no pixels at all.
LEAST_PX, LARGEST_RATIO = 16, 8
_HINT = (
    "encoder.persons.detector takes a folder or an id, e.g. PekingU/rtdetr_r18vd or "
    "hustvl/yolos-tiny; empty (--set encoder.persons.detector=) it derives bodies from faces"
)


class PersonDetector:
    """Finds persons.

    Args:
        settings: the `[encoder.persons]` table.
        model, processor: of `transformers`.
        folder: where the model lies.
        device: where it runs.

    Raises:
        ConfigError: none of the model's labels is `person`.
    """

    def __init__(
        self,
        settings: PersonSettings,
        model: Any,
        processor: Any,
        folder: PretrainedFolder,
        device: str,
    ) -> None:
        self.settings = settings
        self.weights_sha256 = folder.weights_sha256
        self._model = model
        self._processor = processor
        self._device = device
        self._label = _person_label(model.config.id2label, settings.detector)

    @classmethod
    def open(cls, settings: PersonSettings, *, device: str = "cpu") -> PersonDetector:
        """Load the detector.

        Raises:
            ConfigError: not to be had, no object detector, or one that knows no persons.
            MissingDependency: transformers is not installed.
        """
        try:
            folder = resolve(settings.detector, revision=settings.revision)
            model, processor = _loaded(folder, device)
        except MissingDependency:
            raise
        except MeprError as error:
            message = f"encoder.persons.detector = {settings.detector}: {error.message}"
            raise ConfigError(message, hint=_HINT) from None
        return cls(settings, model, processor, folder, device)

    @property
    def key(self) -> Hashable:
        """What was found under one key is what any detector of this key finds."""
        return ("persons", self.settings, self.weights_sha256)

    def look(self, clip: ClipFrames) -> list[Faces]:
        """The persons in a clip's frames, sought once for all who ask."""
        found: list[Faces] = clip.once(self.key, self.find)
        return found

    def prepare(self, clips: Sequence[ClipFrames]) -> None:
        """Look into several clips at once."""
        together(clips, self.key, self.find)

    def find(self, images: Sequence[np.ndarray]) -> list[Faces]:
        """The persons of each picture, best score first.

        Args:
            images: RGB, uint8 `[H, W, 3]` each, of any sizes.

        Returns:
            per picture boxes in its own pixels, possibly beyond its edges, with scores of
            `least_score` and more; none in a picture with a side under 16 pixels, or eight times
            as long as it is wide.
        """
        found = [_nothing()] * len(images)
        for places in _batches(images):
            for place, persons in zip(places, self._find([images[i] for i in places]), strict=True):
                found[place] = persons
        return found

    @torch.inference_mode()
    def _find(self, images: list[np.ndarray]) -> list[Faces]:
        """As `find`, of pictures of one size."""
        inputs = self._processor(images=images, return_tensors="pt").to(self._device)
        results = self._processor.post_process_object_detection(
            self._model(**inputs),
            threshold=self.settings.least_score,
            target_sizes=[image.shape[:2] for image in images],
        )
        return [self._persons(result) for result in results]

    def _persons(self, result: dict[str, torch.Tensor]) -> Faces:
        mine = result["labels"] == self._label
        scores, boxes = result["scores"][mine].float().cpu(), result["boxes"][mine].float().cpu()
        order = torch.argsort(scores, descending=True, stable=True)
        found = boxes[order].numpy().reshape(-1, 4)
        # Networks may give sides of 0.
        real = (found[:, 2:] > found[:, :2]).all(axis=1)
        return Faces(found[real], scores[order].numpy()[real])


def _batches(images: Sequence[np.ndarray]) -> list[list[int]]:
    """Positions of pictures of equal size, `BATCH` at most together.

    Processors pad a batch of mixed sizes to the largest, and YOLOS sees the padding.
    """

    def size(place: int) -> tuple[int, ...]:
        return images[place].shape[:2]

    seen = [
        place
        for place in range(len(images))
        if min(size(place)) >= LEAST_PX and max(size(place)) <= LARGEST_RATIO * min(size(place))
    ]
    groups = [list(places) for _, places in groupby(sorted(seen, key=size), key=size)]
    return [places[at : at + BATCH] for places in groups for at in range(0, len(places), BATCH)]


@lru_cache(maxsize=2)
def _loaded(folder: PretrainedFolder, device: str) -> tuple[Any, Any]:
    """Model and image processor of a folder.

    Raises:
        ConfigError: it holds no object detector, or not all of its weights.
    """
    transformers = require("transformers", extra="mepr-shared[vision]")
    # As for the encoders: PIL's resampling, whether torchvision is there or not.
    new = int(transformers.__version__.split(".")[0]) >= 5
    backend: dict[str, Any] = {"backend": "pil"} if new else {"use_fast": False}
    model, information = loaded(
        transformers.AutoModelForObjectDetection,
        folder.path,
        "detector",
        trust_remote_code=False,
        output_loading_info=True,
    )
    # Counters of batch normalisation, which some folders lack, change nothing.
    missing = sorted(k for k in information["missing_keys"] if "num_batches_tracked" not in k)
    if missing:
        raise ConfigError(
            f"{folder.path} does not hold all weights of an object detector: "
            f"{len(missing)} are missing, {missing[0]} for one"
        )
    kind = transformers.AutoImageProcessor
    processor = loaded(kind, folder.path, "processor", trust_remote_code=False, **backend)
    return model.float().eval().requires_grad_(False).to(device), processor


def _person_label(names: dict[int, str], detector: str) -> int:
    for label, name in names.items():
        if name.strip().lower() == PERSON:
            return int(label)
    raise ConfigError(
        f"{detector} knows no persons: none of its {len(names)} labels is {PERSON!r}", hint=_HINT
    )


def _nothing() -> Faces:
    return Faces(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
