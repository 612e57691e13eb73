"""Everything that can be configured about stage 3. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mepr_shared.labels import TASKS
from mepr_shared.train.settings import (
    FitSettings,
    GradNormSettings,
    Pseudo,
    SemiSettings,
    TraitLossSettings,
    Weighting,
    only,
    only_group,
)

CONFIGS = Path(__file__).parent / "configs"
DEFAULTS = CONFIGS / "default.toml"

Mode = Literal["multitask", "both->emotion", "emotion->emotion", "both->traits", "traits->traits"]
# Mode -> which halves of the embeddings go in, and which tasks come out.
MODES: dict[str, tuple[str, tuple[str, ...]]] = {
    "multitask": ("both", TASKS),
    "both->emotion": ("both", ("emotion",)),
    "emotion->emotion": ("emotion", ("emotion",)),
    "both->traits": ("both", ("traits",)),
    "traits->traits": ("traits", ("traits",)),
}


@dataclass(frozen=True)
class ComponentSettings:
    """Which blocks the model has; a block that is off has no parameters."""

    graph_attention: bool = True
    cross_attention: bool = True
    emotion_predict_projector: bool = True
    trait_predict_projector: bool = True
    emotion_guide_bank: bool = True
    trait_guide_bank: bool = True


@dataclass(frozen=True)
class FusionModelSettings:
    """The model of `mepr_fusion.model.FusionModel`; what the fields mean is told there.

    `kind = "published"` builds `mepr_fusion.published.model.PublishedModel` instead.
    """

    kind: Literal["mepr", "published"] = "mepr"
    width: int = 256
    heads: int = 8
    dropout: float = 0.2
    modality_dropout: float = 0.2
    queries: int = only(1, "kind", "mepr")
    graph_scoring: Literal["v2", "v1"] = only("v2", "kind", "mepr")
    learned_prediction_weights: bool = only(True, "kind", "mepr")
    guide_blend: float = only(0.5, "kind", "mepr")


@dataclass(frozen=True)
class FusionEmotionLossSettings:
    """How emotion labels are learned.

    Attributes:
        loss: `auto` follows each corpus's `emotion_kind`; `ce` takes the argmax of every label.
        class_weights: `exports` weights a corpus's classes as its exports' models did (their
            prior shift), so that decisions are taken as theirs; `balanced` by inverse frequency;
            `none`.
        label_smoothing: share of the target spread over all classes.
    """

    loss: Literal["auto", "ce"] = "auto"
    class_weights: Literal["exports", "balanced", "none"] = "exports"
    label_smoothing: float = 0.0


@dataclass(frozen=True)
class FusionSemiSettings(SemiSettings):
    """Semi-supervised learning of stage 3.

    Attributes:
        refresh: steps for which the teacher answers at once. Many samples in one pass cost a
            fraction of one pass per step, and the teacher hardly moves meanwhile; 1 asks it in
            every step.
    """

    refresh: int = 16


@dataclass(frozen=True)
class FusionSettings:
    """Stage 3 (SYSTEM, sections 6 and 7).

    Attributes:
        mode: both tasks, or one of the single-task modes: which halves of the embeddings go in,
            and which task comes out.
        weighting: of the loss terms: 1 each (`equal`), as given (`fixed`), or learned
            (`gradnorm`).
        emotion_weight, trait_weight: of the two tasks' losses.
        ssl: learn from samples without a task's label as well, by an averaged teacher.
        pseudo: the teacher's confident answers as labels (`teacher`), the published rule, or
            none (`off`: only the averaged weights remain of it).
        hidden_labels: share of the training labels that is set aside: it shows what `ssl` gains,
            and how often its pseudo-labels are right.
        guard: an epoch is not chosen that loses on some corpus what the exports' own predictions
            had, whatever it gains elsewhere (`validation.TOLERANCE`).
        balanced_corpora: every corpus is drawn equally often, whatever its size.
        configurations_tried: how many were compared on validation to arrive at this one; it is
            reported and changes nothing (`search` sets it).
    """

    mode: Mode = "multitask"
    model: FusionModelSettings = field(default_factory=FusionModelSettings)
    components: ComponentSettings = field(default_factory=ComponentSettings)
    emotion_loss: FusionEmotionLossSettings = field(default_factory=FusionEmotionLossSettings)
    trait_loss: TraitLossSettings = field(default_factory=TraitLossSettings)
    weighting: Weighting = "equal"
    emotion_weight: float = only(1.0, "weighting", "fixed")
    trait_weight: float = only(1.0, "weighting", "fixed")
    gradnorm: GradNormSettings = only_group(GradNormSettings, "weighting", "gradnorm")
    ssl: bool = False
    pseudo: Pseudo = only("teacher", "ssl", True)
    semi: FusionSemiSettings = only_group(FusionSemiSettings, "ssl", True)
    hidden_labels: float = 0.0
    guard: bool = True
    balanced_corpora: bool = False
    fit: FitSettings = field(default_factory=FitSettings)
    configurations_tried: int = 1
