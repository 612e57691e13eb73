"""The loss terms of a stage-3 batch: each task's, over labels and over pseudo-labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mepr_fusion.data import FusionBatch
from mepr_fusion.model import FusionOutput
from mepr_shared.objectives.emotion import EmotionObjective
from mepr_shared.objectives.traits import TraitObjective
from mepr_shared.train.joint import SEMI, Term


@dataclass(frozen=True)
class PseudoLabels:
    """The teacher's labels for `B` samples, NaN where there is a label or the teacher is unsure.

    `emotion [B, 7]`, `traits [B, 5]`; `log` holds scalars about them.
    """

    emotion: Tensor
    traits: Tensor
    log: dict[str, Tensor]

    def __getitem__(self, rows: slice) -> PseudoLabels:
        return PseudoLabels(self.emotion[rows], self.traits[rows], self.log)


class FusionObjective(nn.Module):
    """Emotion and trait losses of stage 3.

    The model answers with calibrated logits; a corpus whose models weighted rare classes is
    learned on `logits + shift` with class weights exp(shift), whose optimum are calibrated logits
    again (SYSTEM, section 4).

    Args:
        emotion: the emotion loss; its own weights are not used.
        traits: the trait loss.
        shift: `[C, 7]` prior shift by corpus.
        class_weight: `[C, 7]` weights of the classes by corpus.
    """

    shift: Tensor
    class_weight: Tensor

    def __init__(
        self, emotion: EmotionObjective, traits: TraitObjective, shift: Tensor, class_weight: Tensor
    ) -> None:
        super().__init__()
        self.emotion = emotion
        self.traits = traits
        self.register_buffer("shift", shift, persistent=False)
        self.register_buffer("class_weight", class_weight, persistent=False)

    def terms(
        self, output: FusionOutput, batch: FusionBatch, pseudo: PseudoLabels | None
    ) -> dict[str, Term]:
        """`emotion`, `traits` and, with pseudo-labels, `emotion_semi` and `traits_semi`."""
        labelled = ~batch.emotion.isnan().any(dim=1)
        targets = torch.where(labelled[:, None], batch.emotion, torch.nan)
        if pseudo is not None:
            targets = torch.where(labelled[:, None], targets, pseudo.emotion)
        losses = self.emotion.row_losses(
            output.emotion_logits + self.shift[batch.corpus],
            targets,
            batch.multi_label,
            self.class_weight[batch.corpus],
        )
        count = labelled.sum().clamp_min(1)
        terms = {"emotion": Term(torch.where(labelled, losses, 0.0).sum() / count, labelled)}
        with_traits = ~batch.traits.isnan().all(dim=1)
        terms["traits"] = Term(self.traits(output.trait_scores, batch.traits), with_traits)
        if pseudo is not None:
            # Over all unlabelled samples, the unsure ones too: the fewer there are to trust, the
            # less they weigh.
            rows = ~labelled & ~pseudo.emotion.isnan().all(dim=1)
            count = (~labelled).sum().clamp_min(1)
            loss = torch.where(labelled, 0.0, losses).sum() / count
            terms["emotion" + SEMI] = Term(loss, rows)
            rows = ~with_traits & ~pseudo.traits.isnan().all(dim=1)
            targets = torch.where(rows[:, None], pseudo.traits, torch.nan)
            terms["traits" + SEMI] = Term(self.traits(output.trait_scores, targets), rows)
        return terms
