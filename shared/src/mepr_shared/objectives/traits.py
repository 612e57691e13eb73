"""Losses for trait scores, and weighted sums of them by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from mepr_shared.errors import ConfigError, did_you_mean

Scale = Literal["unit", "published"]
Term = Callable[[Tensor, Tensor, Tensor], Tensor]

MINIMUM_CCC_ROWS = 8

# Below this the moments of float32 scores are rounding noise, not spread.
_NO_SPREAD = 1e-12

# (factor, width) of the two bounded losses. The published constants were chosen for targets on a
# 0-100 scale; applied to [0, 1] they make a wide parabola, which "published" keeps on purpose.
_BELL = {"unit": (1.0, 0.09), "published": (300.0, 9.0)}
_GL = {"unit": (1.0, 0.08), "published": (600.0, 8.0)}

# The names of the released SSL-MEPR code (utils/losses.py), "_" standing for a sum.
PUBLISHED_COMBINATIONS: tuple[str, ...] = (
    "ccc",
    "mae",
    "mse",
    "bell",
    "logcosh",
    "gl",
    "rmse",
    "rmse_bell",
    "rmse_logcosh",
    "rmse_gl",
    "rmse_bell_logcosh",
    "rmse_bell_gl",
    "bell_logcosh",
    "bell_gl",
    "bell_logcosh_gl",
    "logcosh_gl",
)


class TraitObjective(nn.Module):
    """A trait loss, or a weighted sum of several, over the labelled entries of a batch.

    Args:
        loss: names joined by `+`, each with an optional factor: `"mae"`, `"rmse+bell"`,
            `"mae+0.5*ccc"`; or one of `PUBLISHED_COMBINATIONS` (`"rmse_bell"`).
            `mae, mse, rmse, logcosh` are means over labelled entries; `bell` is
            1 - exp(-d^2 / (2 * 0.09^2)) and `gl` 1 - exp(-d^2 / 0.08^2), which stop growing
            for outliers; `ccc` is 1 - the mean over traits of Lin's concordance correlation.
        scale: `"unit"`, or `"published"` for the constants of the released code (`bell`
            300 (1 - exp(-d^2 / 162)), `gl` 600 (1 - exp(-d^2 / 64))).

    Raises:
        ConfigError: unknown loss, a bad factor, or a loss named twice.
    """

    def __init__(self, loss: str = "mae", *, scale: Scale = "unit") -> None:
        super().__init__()
        if scale not in _BELL:
            raise ConfigError(f"unknown scale {scale!r}", hint=did_you_mean(scale, _BELL))
        self.terms = parse_trait_loss(loss)
        self._functions: dict[str, Term] = _trait_losses(scale)

    @property
    def minimum_rows(self) -> int:
        """Labelled rows below which a trait adds nothing to some term (8 for `ccc`, else 1)."""
        return MINIMUM_CCC_ROWS if any(name == "ccc" for _, name in self.terms) else 1

    def forward(self, scores: Tensor, targets: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            scores: `[B, 5]`, predictions in [0, 1].
            targets: `[B, 5]`, labels in [0, 1]; NaN where there is none.

        Returns:
            A scalar; exactly 0, with zero gradients, where nothing is labelled. A trait with
            fewer than 8 labels in the batch is left out of `ccc` (and of `ccc` only).
        """
        mask = ~torch.isnan(targets)
        if not mask.any():
            return scores[:0].sum()
        # An unlabelled entry is replaced on both sides before any arithmetic: NaN * 0 is NaN.
        scores = torch.where(mask, _at_least_float32(scores), 0.0)
        targets = torch.where(mask, targets.to(scores.dtype), 0.0)
        total = scores.new_zeros(())
        for weight, name in self.terms:
            total = total + weight * self._functions[name](scores, targets, mask)
        return total


def parse_trait_loss(loss: str) -> tuple[tuple[float, str], ...]:
    """`"mae+0.5*ccc"` as `((1.0, "mae"), (0.5, "ccc"))`.

    Raises:
        ConfigError: unknown loss, a factor that is no positive number, or a loss named twice.
    """
    known = sorted(
        {name for combination in PUBLISHED_COMBINATIONS for name in combination.split("_")}
    )
    expression = loss.replace("_", "+") if loss in PUBLISHED_COMBINATIONS else loss
    terms: list[tuple[float, str]] = []
    for part in expression.split("+"):
        factor, star, name = part.rpartition("*")
        name = name.strip()
        if name not in known:
            hint = did_you_mean(name, {*known, *PUBLISHED_COMBINATIONS})
            raise ConfigError(f"trait loss {loss!r}: unknown loss {name!r}", hint=hint)
        if name in (other for _, other in terms):
            raise ConfigError(f"trait loss {loss!r} names {name!r} twice")
        terms.append((_factor(factor, loss) if star else 1.0, name))
    return tuple(terms)


def _factor(text: str, loss: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(
            f"trait loss {loss!r}: {text.strip()!r} is not a positive number",
            hint="write it as mae+0.5*ccc",
        )
    return value


def _trait_losses(scale: Scale) -> dict[str, Term]:
    """The losses `(scores [B, 5], targets [B, 5], mask [B, 5]) -> scalar`.

    Masked entries are 0 in both scores and targets.
    """

    def bounded(factor: float, divisor: float) -> Term:
        # expm1 keeps small differences exact where 1 - exp() loses half the digits
        return lambda scores, targets, mask: _masked_mean(
            -factor * torch.expm1(-((scores - targets) ** 2) / divisor), mask
        )

    bell_factor, bell_width = _BELL[scale]
    gl_factor, gl_width = _GL[scale]
    return {
        "mae": lambda scores, targets, mask: _masked_mean((scores - targets).abs(), mask),
        "mse": lambda scores, targets, mask: _masked_mean((scores - targets) ** 2, mask),
        "rmse": lambda scores, targets, mask: _root(_masked_mean((scores - targets) ** 2, mask)),
        "logcosh": lambda scores, targets, mask: _masked_mean(_logcosh(scores - targets), mask),
        "bell": bounded(bell_factor, 2 * bell_width**2),
        "gl": bounded(gl_factor, gl_width**2),
        "ccc": _ccc_loss,
    }


def _ccc_loss(scores: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """1 - mean over traits of 2 cov / (var_x + var_y + (mean_x - mean_y)^2), Lin (1989).

    Population moments; a trait where both sides are constant and equal counts as 0, one with
    fewer than `MINIMUM_CCC_ROWS` labels is left out.
    """
    enough = mask.sum(dim=0) >= MINIMUM_CCC_ROWS
    if not enough.any():
        return scores[:0].sum()
    scores, targets, mask = scores[:, enough], targets[:, enough], mask[:, enough]
    count = mask.sum(dim=0)
    score_mean, target_mean = scores.sum(dim=0) / count, targets.sum(dim=0) / count
    score_rest = torch.where(mask, scores - score_mean, 0.0)
    target_rest = torch.where(mask, targets - target_mean, 0.0)
    covariance = (score_rest * target_rest).sum(dim=0) / count
    spread = (score_rest**2 + target_rest**2).sum(dim=0) / count + (score_mean - target_mean) ** 2
    defined = spread > _NO_SPREAD
    concordance = 2 * torch.where(defined, covariance, 0.0) / torch.where(defined, spread, 1.0)
    return 1 - concordance.mean()


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, 0.0).sum() / mask.sum()


def _logcosh(difference: Tensor) -> Tensor:
    # log cosh d without the overflow of cosh, smooth at 0 unlike the form with |d|
    return difference + nn.functional.softplus(-2 * difference) - math.log(2)


def _root(value: Tensor) -> Tensor:
    # The slope of sqrt at 0 is infinite: a perfect batch would give NaN gradients.
    positive = value > 0
    return torch.where(positive, torch.where(positive, value, 1.0).sqrt(), 0.0)


def _at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype in (torch.float32, torch.float64) else values.float()
