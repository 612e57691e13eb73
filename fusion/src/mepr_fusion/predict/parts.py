"""The modalities of a bundle, loaded: encoder and stage-2 model of each, and one pass for all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from mepr_fusion.bundle.format import Bundle
from mepr_shared import config
from mepr_shared.errors import ContractError
from mepr_shared.plugin import (
    ClipFeatures,
    ClipInput,
    Discovered,
    Extractor,
    Modality,
    SharesPass,
    Work,
)
from mepr_shared.train.checkpoint import load_weights
from mepr_shared.train.clips import USABLE
from mepr_shared.train.inference import ClipOutputs, run_model
from mepr_shared.train.models import model_from_config
from mepr_shared.train.predict import collected

# (what is done now, how much of it, of how much)
Progress = Callable[[str, int, int], None]
# Windows whose sound is held at a time.
AT_ONCE = 16
# Of two installations with the same weights, the name of the release may differ.
_NOT_COMPARED = ("revision",)


@dataclass(frozen=True)
class Part:
    """One modality, ready to answer.

    Attributes:
        name: of the modality.
        task: of a stage-1 model; None for a stage-2 model.
        model: in eval mode.
        extractor: the pretrained encoder with its preprocessing, set as in training.
    """

    name: str
    task: str | None
    model: Any
    extractor: Extractor

    @torch.inference_mode()
    def answer(self, features: ClipFeatures, device: str) -> ClipOutputs | None:
        """The model's answer `[1, ...]` to one clip; None without usable features."""
        if features.status not in USABLE or features.frames is None or not len(features.frames):
            return None
        # Through float16, as training saw the features in the frame store.
        frames = torch.from_numpy(features.frames.astype(np.float16).astype(np.float32))
        mask = torch.ones(len(frames), dtype=torch.bool)
        if features.mask is not None:
            mask = torch.from_numpy(features.mask)
        return run_model(self.model, self.task, frames[None].to(device), mask[None].to(device))


@dataclass
class Encoded:
    """Features of clips, and what they cost.

    Attributes:
        features: modality -> one entry per clip.
        seconds: part -> wall time in s.
    """

    features: dict[str, list[ClipFeatures]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def spent(self, part: str, seconds: float) -> None:
        """Add to what a part cost."""
        self.seconds[part] = self.seconds.get(part, 0.0) + seconds


def open_part(bundle: Bundle, name: str, found: Discovered, device: str) -> Part:
    """Load a modality's encoder and model.

    Raises:
        MeprError: the installed package cannot do exactly what the models were trained on.
    """
    entry = bundle.modalities[name]
    assert found.modality is not None
    extractor = open_extractor(found.modality, found, entry["config"]["encoder"], device)
    model = model_from_config(entry["config"])
    load_weights(model, bundle.weights(name))
    return Part(name, entry["config"].get("task"), model.to(device).eval(), extractor)


def open_extractor(
    modality: Modality, found: Discovered, spec: Mapping[str, Any], device: str
) -> Extractor:
    """The encoder that the features of training came from.

    Raises:
        ContractError: the installed package, or the encoder, is not the same; names what differs.
    """
    where = f"{found.distribution} {found.version}"
    table = {"id": spec["encoder"], "revision": spec.get("revision") or "", **spec["settings"]}
    settings: Any = config.build(modality.encoder_settings, table, where=f"{where}: encoder")
    extractor = modality.open_extractor(settings, device=device)
    different = difference(spec, extractor.spec)
    if different:
        raise ContractError(
            f"{where} does not make the features of {modality.name} that the bundle was trained "
            f"on: {different}",
            hint=f"install the {found.distribution} and weights of then, make the bundle anew, "
            f"or leave {modality.name} out with --modalities",
        )
    return extractor


def difference(wanted: Mapping[str, Any], found: Mapping[str, Any], path: str = "") -> str:
    """The first entry that differs, as `settings.frames was 30, is 10`; empty where none does."""
    for key in sorted({*wanted, *found}):
        old, new = wanted.get(key), found.get(key)
        if (not path and key in _NOT_COMPARED) or old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            return difference(old, new, f"{path}{key}.")
        return f"{path}{key} was {old!r}, is {new!r}"
    return ""


def encode(
    extractors: Mapping[str, Extractor],
    clips: Sequence[ClipInput],
    *,
    progress: Progress | None = None,
    watch: Any = None,
) -> Encoded:
    """Features of clips by every encoder, each clip's pictures decoded once for all that look.

    Args:
        extractors: by modality.
        watch: see `mepr_shared.vision.together.OnePass`.
    """
    encoded = Encoded()
    looking = {name: e for name, e in extractors.items() if isinstance(e, SharesPass)}
    if looking:
        encoded.features |= {name: [] for name in looking}
        shared: Any = next(iter(looking.values())).one_pass(looking)
        shared.watch = watch
        names = tuple(looking)
        started = time.perf_counter()
        for number, (_, found) in enumerate(shared.run([Work(clip, names) for clip in clips])):
            for name, features in found.items():
                encoded.features[name].append(features)
            if progress:
                progress("look", number + 1, len(clips))
        _share(encoded, shared.seconds, names, time.perf_counter() - started)
    for name, extractor in extractors.items():
        if name in looking:
            continue
        started = time.perf_counter()
        encoded.features[name] = []
        for start in range(0, len(clips), AT_ONCE):
            some = clips[start : start + AT_ONCE]
            encoded.features[name] += [collected(found) for found in extractor.extract(some)]
            if progress:
                progress(f"encode {name}", start + len(some), len(clips))
        encoded.spent(f"encode {name}", time.perf_counter() - started)
    return encoded


def _share(
    encoded: Encoded, seconds: Mapping[str, float], names: Sequence[str], total: float
) -> None:
    """The parts of a shared pass in words; what is decoded meanwhile costs no time of its own."""
    known = {
        "decode": seconds.get("wait", 0.0),
        "detect": seconds.get("look", 0.0),
        "crop": seconds.get("crop", 0.0),
        f"encode {'+'.join(names)}": seconds.get("encode", 0.0),
    }
    for part, spent in known.items():
        encoded.spent(part, spent)
    encoded.spent("other", max(0.0, total - sum(known.values())))
