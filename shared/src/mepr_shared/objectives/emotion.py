"""Emotion losses. Each sample is judged by its own kind: sigmoid and BCE, or softmax and CE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mepr_shared.errors import ConfigError, DataError, did_you_mean
from mepr_shared.labels import EMOTIONS

EmotionLoss = Literal["auto", "bce", "ce", "soft_ce", "kl"]
EMOTION_LOSSES: tuple[str, ...] = get_args(EmotionLoss)

PerClass = Sequence[float] | np.ndarray | Tensor


class EmotionObjective(nn.Module):
    """The emotion loss of a batch that may mix multi-label, single-label and unlabelled rows.

    Args:
        loss: `"auto"` follows each row's kind, `bce` for multi-label rows and cross-entropy for
            the others (`soft_ce`, which is `ce` on a one-hot row). A name applies that loss to
            every labelled row: `bce` takes the targets as they are, `ce` their argmax,
            `soft_ce` and `kl` the targets divided by their sum. `kl` is `soft_ce` less the
            entropy of the (weighted) target, so that a perfect prediction scores 0; its
            gradients are the same.
        pos_weight: `[7]` weights of the positives in `bce` (`positive_weights`).
        class_weight: `[7]` weights of the classes in `ce`, `soft_ce` and `kl`
            (`balanced_weights`).
        label_smoothing: share of each target given to the uniform one (1/7 under softmax, 1/2
            under sigmoid).
        logit_adjustment: tau of the logit-adjusted cross-entropy, CE(z + tau log prior), of
            Menon et al. (2021, eq. 10); at 1 the argmax of z aims at balanced recall.
        class_prior: `[7]` training share of each class; needed by `logit_adjustment`.

    Raises:
        ConfigError: unknown loss, or a value out of range.
    """

    pos_weight: Tensor
    class_weight: Tensor
    log_prior: Tensor

    def __init__(
        self,
        loss: EmotionLoss = "auto",
        *,
        pos_weight: PerClass | None = None,
        class_weight: PerClass | None = None,
        label_smoothing: float = 0.0,
        logit_adjustment: float = 0.0,
        class_prior: PerClass | None = None,
    ) -> None:
        super().__init__()
        if loss not in EMOTION_LOSSES:
            hint = did_you_mean(loss, EMOTION_LOSSES)
            raise ConfigError(f"unknown emotion loss {loss!r}", hint=hint)
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"label_smoothing = {label_smoothing} is not in [0, 1)")
        if logit_adjustment < 0:
            raise ConfigError(f"logit_adjustment = {logit_adjustment} is negative")
        if logit_adjustment > 0 and class_prior is None:
            raise ConfigError("logit_adjustment needs class_prior", hint="see class_shares")
        self.loss = loss
        self.label_smoothing = label_smoothing
        self.logit_adjustment = logit_adjustment
        # Not persistent: they belong to the training data, not to the model's weights.
        self.register_buffer("pos_weight", _per_class(pos_weight, "pos_weight"), persistent=False)
        weight = _per_class(class_weight, "class_weight")
        self.register_buffer("class_weight", weight, persistent=False)
        prior = _per_class(class_prior, "class_prior")
        self.register_buffer("log_prior", prior.log(), persistent=False)

    def activation(self, multi_label: bool) -> Literal["sigmoid", "softmax"]:
        """What turns the logits of such rows into probabilities."""
        if self.loss == "auto":
            return "sigmoid" if multi_label else "softmax"
        return "sigmoid" if self.loss == "bce" else "softmax"

    def prior_shift(self, multi_label: bool) -> Tensor:
        """`[7]` by which this objective moves the best logits of such rows: `calibrated_logits`.

        Under sigmoid it is log pos_weight: the minimum of w p (-log s) + (1 - p)(-log(1 - s)) is
        at logit(s) = logit(p) + log w. Under softmax the weighted cross-entropy is least where
        the prediction is proportional to class_weight * p, so the shift is log class_weight; the
        logit adjustment is undone by adding tau log prior, hence less that. Label smoothing
        flattens probabilities as well; that is left to the temperature.
        """
        if self.activation(multi_label) == "sigmoid":
            return self.pos_weight.log()
        return self.class_weight.log() - self._adjustment()

    def forward(self, logits: Tensor, targets: Tensor, multi_label: Tensor) -> Tensor:
        """Mean loss over the labelled rows.

        Args:
            logits: `[B, 7]`.
            targets: `[B, 7]`; a row with NaN is unlabelled.
            multi_label: `[B]` bool, the kind of each row.

        Returns:
            A scalar; exactly 0, with zero gradients, where no row is labelled. A multi-label row
            counts the mean over its seven classes.
        """
        labelled = ~torch.isnan(targets).any(dim=1)
        targets = torch.where(labelled[:, None], targets, torch.nan)
        return self.row_losses(logits, targets, multi_label).sum() / labelled.sum().clamp_min(1)

    def row_losses(
        self, logits: Tensor, targets: Tensor, multi_label: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """Loss `[B]` of every row; exactly 0, with zero gradients, where nothing is known.

        Args:
            logits: `[B, 7]`; what stands beside an unknown target does not matter, even NaN.
            targets: `[B, 7]`. Under sigmoid NaN is an unknown class and adds nothing to the mean
                over seven; under softmax a row with NaN is unknown as a whole.
            multi_label: `[B]` bool, the kind of each row.
            weights: `[B, 7]` of the classes of each row, in place of the objective's own
                `pos_weight` (sigmoid rows) and `class_weight` (softmax rows).
        """
        if logits.dtype not in (torch.float32, torch.float64):
            logits = logits.float()
        sigmoid = multi_label.bool()
        if self.loss != "auto":
            sigmoid = torch.full_like(sigmoid, self.loss == "bce")
        known = ~torch.isnan(targets)
        known = known & (sigmoid | known.all(dim=1))[:, None]
        # Both sides are replaced before any arithmetic: NaN * 0 is NaN.
        logits = torch.where(known, logits, 0.0)
        targets = torch.where(known, targets.to(logits.dtype), 0.0)
        if self.loss == "bce":
            return self._sigmoid_losses(logits, targets, known, weights)
        if self.loss != "auto":
            return self._softmax_losses(logits, targets, known, weights)
        both = (
            self._sigmoid_losses(logits, targets, known, weights),
            self._softmax_losses(logits, targets, known, weights),
        )
        return torch.where(sigmoid, *both)

    def _adjustment(self) -> Tensor:
        if self.logit_adjustment == 0:  # 0 * log 0 would be NaN
            return torch.zeros_like(self.log_prior)
        return self.logit_adjustment * self.log_prior

    def _sigmoid_losses(
        self, logits: Tensor, targets: Tensor, known: Tensor, weights: Tensor | None
    ) -> Tensor:
        targets = targets + self.label_smoothing * (0.5 - targets)
        losses = functional.binary_cross_entropy_with_logits(
            logits,
            targets,
            pos_weight=self.pos_weight.to(logits.dtype) if weights is None else weights,
            reduction="none",
        )
        return (losses * known).mean(dim=1)

    def _softmax_losses(
        self, logits: Tensor, targets: Tensor, known: Tensor, weights: Tensor | None
    ) -> Tensor:
        if self.loss == "ce":
            hard = functional.one_hot(targets.argmax(dim=1), targets.shape[1])
            targets = hard.to(logits.dtype) * known
        total = targets.sum(dim=1, keepdim=True)
        targets = targets / torch.where(total == 0, 1.0, total)
        targets = targets + self.label_smoothing * (1 / targets.shape[1] - targets)
        weights = self.class_weight.to(logits.dtype) if weights is None else weights
        weighted = targets * weights * known
        log_probabilities = (logits + self._adjustment().to(logits.dtype)).log_softmax(dim=1)
        losses = -(weighted * log_probabilities).sum(dim=1)
        if self.loss == "kl":
            # s KL(t || q) with t = weighted / s, s = sum(weighted): never negative, unlike the
            # plain sum of weighted p log(p / q).
            losses = losses + torch.xlogy(weighted, weighted).sum(dim=1)
            mass = weighted.sum(dim=1)
            losses = losses - torch.xlogy(mass, mass)
        return losses


def calibrated_logits(logits: Tensor, prior_shift: Tensor) -> Tensor:
    """Logits `[..., 7]` from which a training weight's shift is taken out: z - log w.

    Probabilities that are shown, calibrated or used for pseudo-labels come from these; the
    decision for balanced recall uses the raw logits.
    """
    return logits - prior_shift.to(logits)


def positive_weights(targets: np.ndarray, cap: float = 10.0) -> Tensor:
    """`[7]` negatives / positives per class of the training split, within [1/cap, cap].

    Args:
        targets: `[N, 7]` 0/1; rows with NaN are unlabelled. A class with one value only gets 1:
            there is nothing to balance.
    """
    known = _labelled(targets)
    positives = known.sum(axis=0)
    negatives = len(known) - positives
    both = (positives > 0) & (negatives > 0)
    ratio = np.divide(negatives, positives, out=np.ones(len(EMOTIONS)), where=both)
    return torch.tensor(np.clip(ratio, 1 / cap, cap), dtype=torch.float32)


def class_shares(targets: np.ndarray) -> Tensor:
    """`[7]` share of each class among the labelled rows of `targets` `[N, 7]`, summing to 1.

    Counts are smoothed by half a row, so that no class has share 0 (its log is needed).
    """
    counts = _labelled(targets).sum(axis=0) + 0.5
    return torch.tensor(counts / counts.sum(), dtype=torch.float32)


def balanced_weights(targets: np.ndarray, power: float = 1.0) -> Tensor:
    """`[7]` class weights share^-power, scaled to a mean of 1 over the training rows.

    `power` 1 gives every class the same total weight, 0 none; values between trade balanced
    recall against accuracy. A class without a row gets 1. The scaling makes the plain mean over
    a batch an unbiased estimate of the loss over the split, whatever classes the batch holds.

    Args:
        targets: `[N, 7]` one-hot or distributions; rows with NaN are unlabelled.
    """
    counts = _labelled(targets).sum(axis=0)
    share = counts / counts.sum()
    seen = share > 0
    weights = np.where(seen, np.where(seen, share, 1.0) ** -power, 0.0)
    weights = weights / (weights * share).sum()
    return torch.tensor(np.where(seen, weights, 1.0), dtype=torch.float32)


def _labelled(targets: np.ndarray) -> np.ndarray:
    targets = np.asarray(targets, dtype=np.float64)
    known = targets[~np.isnan(targets).any(axis=1)]
    if len(known) == 0:
        raise DataError("no row of the training split has an emotion label")
    return known


def _per_class(values: PerClass | None, name: str) -> Tensor:
    if values is None:
        return torch.ones(len(EMOTIONS))
    tensor = torch.as_tensor(values, dtype=torch.float32).clone()
    if tensor.shape != (len(EMOTIONS),) or not (tensor > 0).all() or tensor.isinf().any():
        raise ConfigError(f"{name} takes {len(EMOTIONS)} positive numbers, got {tensor.tolist()}")
    return tensor
