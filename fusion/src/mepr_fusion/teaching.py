"""What the teacher says about samples without a label, and how far it is to be trusted."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from mepr_fusion.data import FusionBatch, prepared
from mepr_fusion.model import FusionModel
from mepr_fusion.objective import PseudoLabels
from mepr_fusion.settings import FusionSemiSettings
from mepr_shared.labels import EMOTIONS
from mepr_shared.objectives.pseudo_labels import (
    TraitScale,
    emotion_pseudo_labels,
    positive_share,
    published_trait_labels,
    spread_over_modalities,
)

BATCH = 4096

# Samples that the teacher's usual scores and spreads are measured on, once per epoch. More would
# cost as much as the training itself and change a mean by less than 2 % of its deviation.
MEASURED = 4096


class Teaching:
    """Pseudo-labels for the rows of a table, by one teacher.

    Args:
        model: the teacher, in eval mode.
        data: all samples, standardised; labels that are hidden from training are NaN in it.
        settings: thresholds.
        train_rows, val_rows: `[n]` indices.
        hidden_emotion, hidden_traits: `[N, 7]`, `[N, 5]`: labels set aside, NaN elsewhere; the
            pseudo-labels are compared with them in the log, and with nothing else.
        published: the published rule for traits.
    """

    def __init__(
        self,
        model: nn.Module,
        data: FusionBatch,
        settings: FusionSemiSettings,
        *,
        train_rows: Tensor,
        val_rows: Tensor,
        hidden_emotion: Tensor,
        hidden_traits: Tensor,
        published: bool,
    ) -> None:
        self.model = cast(FusionModel, model)
        self.data = data
        self.settings = settings
        self.hidden_emotion, self.hidden_traits = hidden_emotion, hidden_traits
        self.published = published
        self.labelled_share = positive_share(data.emotion[train_rows])
        labelled = ~data.traits[train_rows].isnan().all(dim=1)
        self.trait_rows = train_rows[labelled]
        self.spread, self.several = spread_over_modalities(data.trait_predictions, data.present)
        self.val_rows = val_rows
        self.scales: tuple[TraitScale, TraitScale] | None = None

    @torch.no_grad()
    def begin_epoch(self) -> None:
        """Measure how the teacher's trait scores compare with labels, and its usual spread.

        The spread is one of the modalities' own scores where several give one, else one over
        passes with dropout; each has a median of its own over the validation split.
        """
        if self.published or "traits" not in self.model.tasks or not len(self.trait_rows):
            return
        rows = _some(self.trait_rows)
        scores, labels = self._scores(rows), self.data.traits[rows]
        single = self.val_rows[~self.several[self.val_rows]]
        several = self.val_rows[self.several[self.val_rows]]
        medians = [
            _median(self.dropout_spread(_some(single if len(single) else self.val_rows))),
            _median(self.spread[several]),
        ]
        moments = (
            scores.mean(0),
            scores.std(0, correction=0),
            labels.nanmean(0),
            _nanstd(labels),
        )
        self.scales = (TraitScale(medians[0], *moments), TraitScale(medians[1], *moments))

    @torch.no_grad()
    def labels(self, rows: Tensor) -> PseudoLabels:
        """Pseudo-labels of `rows` `[n]`, NaN where a row has its label."""
        data = self.data[rows]
        free = data.emotion.isnan().any(dim=1)
        without = data.traits.isnan().all(dim=1)
        logits = torch.full_like(data.emotion, torch.nan)
        scores = torch.full_like(data.traits, torch.nan)
        for part in (free | without).nonzero()[:, 0].split(BATCH):  # the others have both labels
            logits[part], scores[part] = self._answer(data[part])
        emotion = emotion_pseudo_labels(
            logits,
            data.multi_label,
            positive=self.settings.positive,
            negative=self.settings.negative,
        )
        emotion = torch.where(free[:, None], emotion, torch.nan)
        traits = self._trait_labels(rows, scores)
        traits = torch.where(without[:, None], traits, torch.nan)
        return PseudoLabels(emotion, traits, self._log(rows, free, without, emotion, traits))

    @torch.no_grad()
    def dropout_spread(self, rows: Tensor) -> Tensor:
        """Standard deviation `[n, 5]` of the teacher's scores over passes with dropout."""
        self.model.train()
        try:
            # One by one: without dropout their spread is exactly 0.
            passes = [self._scores(rows) for _ in range(self.settings.dropout_passes)]
        finally:
            self.model.eval()
        return torch.stack(passes).std(dim=0, correction=0)

    def _trait_labels(self, rows: Tensor, scores: Tensor) -> Tensor:
        if self.published:
            return published_trait_labels(scores)
        if self.scales is None:
            return torch.full_like(scores, torch.nan)
        of_dropout, of_modalities = self.scales
        labels = of_modalities.labels(scores, self.spread[rows])
        single = (~self.several[rows] & self.data.traits[rows].isnan().all(dim=1)).nonzero()[:, 0]
        if len(single):
            spread = self.dropout_spread(rows[single])
            labels[single] = of_dropout.labels(scores[single], spread)
        return labels

    def _scores(self, rows: Tensor) -> Tensor:
        parts = [self._answer(self.data[part])[1] for part in rows.split(BATCH)]
        return torch.cat(parts) if parts else self.data.traits[:0]

    def _answer(self, batch: FusionBatch) -> tuple[Tensor, Tensor]:
        """Logits `[B, 7]` and scores `[B, 5]` from all modalities that a sample has."""
        batch = prepared(self.model, batch)
        trunk = self.model.trunk(batch.features, batch.present)
        output = self.model.branches(trunk, trunk.shared, trunk.shared, *batch.inputs[1:])
        return output.emotion_logits, output.trait_scores

    def _log(
        self, rows: Tensor, free: Tensor, without: Tensor, emotion: Tensor, traits: Tensor
    ) -> dict[str, Tensor]:
        """Rates over what has no label, by class beside the share among labels, and agreement with
        labels that were set aside."""
        given, asked = ~emotion.isnan(), free.sum() * emotion.shape[1]
        found = {
            "pseudo/emotion_rate": given.sum() / asked,
            "pseudo/trait_rate": (~traits.isnan()).sum() / (without.sum() * traits.shape[1]),
        }
        shares = {"positive": positive_share(emotion), "labelled": self.labelled_share}
        found |= {
            f"pseudo/{kind}_{name}": share[i]
            for kind, share in shares.items()
            for i, name in enumerate(EMOTIONS)
        }
        truth = self.hidden_emotion[rows]
        known = given & ~truth.isnan()
        found["pseudo/emotion_agreement"] = ((emotion == truth) & known).sum() / known.sum()
        error = (traits - self.hidden_traits[rows]).abs()
        found["pseudo/trait_error"] = error.nanmean()
        return found


def _median(values: Tensor) -> Tensor:
    """Median over rows `[n, C] -> [C]`; infinite where there is no row: nothing is distrusted."""
    if not len(values):
        return values.new_full((values.shape[1],), torch.inf)
    return values.median(dim=0).values


def _nanstd(values: Tensor) -> Tensor:
    """Standard deviation over rows `[n, C] -> [C]` without NaN."""
    centred = values - values.nanmean(dim=0)
    return centred.square().nanmean(dim=0).sqrt()


def _some(rows: Tensor) -> Tensor:
    """At most `MEASURED` of the rows `[n]`, evenly spaced."""
    return rows[:: max(1, -(-len(rows) // MEASURED))]
