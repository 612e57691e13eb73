"""A stage-3 run as something to call from Python: `mepr_fusion.Run.load(RUN).forward(...)`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from mepr_fusion.model import FusionOutput
from mepr_fusion.settings import MODES
from mepr_fusion.train import KIND, load_model
from mepr_shared.errors import ContractError, DataError, did_you_mean
from mepr_shared.labels import EMOTIONS, TRAITS
from mepr_shared.train.runs import Run

Array: TypeAlias = Tensor | np.ndarray

# Which of a modality's two embeddings a mode reads.
HALVES = {"both": slice(0, 2), "emotion": slice(0, 1), "traits": slice(1, 2)}


class FusionRun:
    """A trained or imported stage-3 model and what its run says of it.

    Attributes:
        run: the run directory.
        model: in eval mode, its parameters frozen; gradients for the inputs pass.
        modalities: names, in the order of the `M` axis.
        widths: modality -> width of its features `[emotion embedding | trait embedding]`, of
            which some single-task modes read only one half.
        device: where the model lies.
    """

    def __init__(self, run: Run, model: nn.Module, device: str = "cpu") -> None:
        self.run = run
        self.model = model.to(device).eval().requires_grad_(False)
        halves = HALVES[MODES[run.config["settings"]["mode"]][0]]
        self.widths = {name: sum(pair[halves]) for name, pair in run.config["modalities"].items()}
        self.modalities = tuple(self.widths)
        self.device = device

    @classmethod
    def load(cls, path: Path | str, device: str = "cpu") -> FusionRun:
        """Open any stage-3 run, trained here or imported.

        Raises:
            ContractError: not a stage-3 run, not trained yet, or damaged.
        """
        run = Run.load(Path(path))
        if run.kind != KIND:
            raise ContractError(f"{run.path} is a {run.kind} run", hint="give a stage-3 run")
        return cls(run, load_model(run, device), device)

    @property
    def is_published(self) -> bool:
        """It is the published variant, whose emotion logits are not calibrated."""
        return self.run.config["settings"]["model"].get("kind") == "published"

    def forward(
        self,
        features: Mapping[str, Array],
        emotion_logits: Mapping[str, Array] | Array,
        trait_scores: Mapping[str, Array] | Array,
    ) -> FusionOutput:
        """Answers for `B` samples.

        A modality that `features` does not name, or whose row there is NaN throughout, is absent
        from (those) samples, whatever the predictions say; a NaN half is an embedding its export
        lacks. A prediction that is not given, or has a NaN, is left out of the averages.

        Args:
            features: modality -> `[B, width]`, `[emotion embedding | trait embedding]`.
            emotion_logits: modality -> `[B, 7]`, or `[B, M, 7]` in the order of `modalities`.
                For our own model **calibrated, comparable** logits
                (`mepr_fusion.calibrate.comparable` makes them of an export's); for the published
                variant the unimodal models' logits as they are.
            trait_scores: modality -> `[B, 5]`, or `[B, M, 5]`; scores in [0, 1].

        Returns:
            Tensors on `device`. Emotion logits are calibrated (before any prior shift) except
            for the published variant. A task that the run's mode does not have is NaN.

        Raises:
            DataError: an unknown modality, a wrong shape, or a sample without any modality.
        """
        self._refuse_unknown("features", features)
        placed = {
            name: self._place(features[name], f"features[{name!r}]", (None, self.widths[name]))
            for name in self.modalities
            if name in features
        }
        batch = _batch_size(placed)
        present = torch.zeros(batch, len(self.modalities), dtype=torch.bool, device=self.device)
        everything = {}
        for index, name in enumerate(self.modalities):
            if name in placed:
                everything[name] = placed[name]
                present[:, index] = ~placed[name].isnan().all(dim=1)
            else:
                everything[name] = self._unknown(batch, self.widths[name])
        lost = torch.nonzero(~present.any(dim=1)).flatten().tolist()
        if lost:
            raise DataError(
                f"{len(lost)} of {batch} samples have no modality, the first is row {lost[0]}"
            )
        return self.model(
            everything,
            self._stack("emotion_logits", emotion_logits, batch, len(EMOTIONS)),
            self._stack("trait_scores", trait_scores, batch, len(TRAITS)),
            present,
        )

    def _stack(
        self, what: str, given: Mapping[str, Array] | Array, batch: int, outputs: int
    ) -> Tensor:
        """`[B, M, K]` of one task's predictions, NaN where there are none."""
        if not isinstance(given, Mapping):
            return self._place(given, what, (batch, len(self.modalities), outputs))
        self._refuse_unknown(what, given)
        columns = [
            self._place(given[name], f"{what}[{name!r}]", (batch, outputs))
            if name in given
            else self._unknown(batch, outputs)
            for name in self.modalities
        ]
        return torch.stack(columns, dim=1)

    def _place(self, values: Array, what: str, shape: tuple[int | None, ...]) -> Tensor:
        """As float32 on the device; an axis of `shape` that is None may have any size."""
        tensor = torch.as_tensor(values)
        fits = tensor.ndim == len(shape) and all(
            size in (None, found) for size, found in zip(shape, tensor.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("B" if size is None else str(size) for size in shape)
            raise DataError(f"{what} has shape {list(tensor.shape)}, expected [{wanted}]")
        return tensor.to(self.device, torch.float32)

    def _unknown(self, *shape: int) -> Tensor:
        return torch.full(shape, torch.nan, device=self.device)

    def _refuse_unknown(self, what: str, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.widths:
                raise DataError(
                    f"{what}: this run has no modality {name!r}",
                    hint=did_you_mean(name, self.modalities),
                )


def _batch_size(features: Mapping[str, Tensor]) -> int:
    sizes = {name: len(values) for name, values in features.items()}
    if not sizes:
        raise DataError("features are empty: at least one modality is needed")
    if len(set(sizes.values())) > 1:
        raise DataError(f"modalities have different numbers of samples: {sizes}")
    return next(iter(sizes.values()))
