"""Labels that a teacher gives to samples without one (SYSTEM, section 7)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# The published rule for traits: beyond these scores a pseudo-label is 1 or 0.
PUBLISHED_HIGH, PUBLISHED_LOW = 0.6, 0.4

# Scores, in [0, 1], that differ by less are the same.
ROUNDING = 1e-6


def emotion_pseudo_labels(
    logits: Tensor, multi_label: Tensor, *, positive: float = 0.6, negative: float = 0.1
) -> Tensor:
    """Confident answers as labels.

    Args:
        logits: `[B, 7]`, calibrated (any training weight's shift taken out).
        multi_label: `[B]` bool. Class by class there: 1 above `positive`, 0 below `negative`.
            Elsewhere one-hot at the most likely class where its probability exceeds `positive`.
        positive, negative: probabilities.

    Returns:
        `[B, 7]` of 0 and 1, NaN where the teacher is not sure.
    """
    unknown = logits.new_full((), torch.nan)
    sigmoid = torch.sigmoid(logits)
    by_class = torch.where(sigmoid > positive, 1.0, torch.where(sigmoid < negative, 0.0, unknown))
    softmax = torch.softmax(logits, dim=1)
    top = softmax.amax(dim=1, keepdim=True)
    one_hot = torch.where(top > positive, (softmax == top).to(logits.dtype), unknown)
    return torch.where(multi_label[:, None], by_class, one_hot)


def positive_share(labels: Tensor) -> Tensor:
    """Share `[7]` of positive labels among those that are given, `[B, 7]` with NaN for none.

    Of pseudo-labels it is to be read beside that of real labels: a teacher that names one class
    ever more often goes astray. NaN for a class without any label.
    """
    return labels.nanmean(dim=0)


def published_trait_labels(scores: Tensor) -> Tensor:
    """`[B, 5]` scores to 1 above .6, 0 below .4, NaN between: the published rule.

    Half of the real labels of First Impressions lie beyond these bounds and are no extremes; the
    rule is here to reproduce the published behaviour.
    """
    unknown = scores.new_full((), torch.nan)
    return torch.where(
        scores > PUBLISHED_HIGH, 1.0, torch.where(scores < PUBLISHED_LOW, 0.0, unknown)
    )


@dataclass(frozen=True)
class TraitScale:
    """How a teacher's trait scores become labels, trait by trait (`[5]` each).

    Attributes:
        limit: spread up to which a score is trusted: the median over the validation split.
        teacher_mean, teacher_std: of the teacher's scores on labelled training samples.
        label_mean, label_std: of those samples' labels.
    """

    limit: Tensor
    teacher_mean: Tensor
    teacher_std: Tensor
    label_mean: Tensor
    label_std: Tensor

    def labels(self, scores: Tensor, spread: Tensor) -> Tensor:
        """Scores `[B, 5]` with their spread `[B, 5]` to labels `[B, 5]`, NaN where not trusted.

        A teacher's scores are drawn to the mean, and learning from them would draw them on
        (which lowers CCC): they are given the mean and spread of the labels.
        """
        stretch = self.label_std / self.teacher_std.clamp_min(1e-6)
        rescaled = ((scores - self.teacher_mean) * stretch + self.label_mean).clamp(0, 1)
        # Passes that are alike differ by rounding: that is no spread.
        return torch.where(spread <= self.limit + ROUNDING, rescaled, torch.nan)


def spread_over_modalities(predictions: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """How far the modalities' own trait scores lie apart.

    Args:
        predictions: `[B, M, 5]` scores; a NaN row gives none.
        present: `[B, M]` bool.

    Returns:
        Population standard deviation `[B, 5]` (0 where fewer than two give a score), and `[B]`
        bool, whether at least two do.
    """
    given = present & ~predictions.isnan().any(dim=2)
    weight = given.unsqueeze(2).to(predictions.dtype)
    count = weight.sum(dim=1).clamp_min(1)
    values = torch.where(given.unsqueeze(2), predictions, 0.0)
    mean = values.sum(dim=1) / count
    square = ((values - mean.unsqueeze(1)).square() * weight).sum(dim=1) / count
    return square.sqrt(), given.sum(dim=1) >= 2
