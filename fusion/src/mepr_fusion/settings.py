"""Everything that can be configured about stage 3. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mepr_shared.train.settings import FitSettings, TraitLossSettings


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
    """The model of `mepr_fusion.model.FusionModel`; what the fields mean is told there."""

    width: int = 256
    heads: int = 8
    dropout: float = 0.2
    queries: int = 1
    graph_scoring: Literal["v2", "v1"] = "v2"
    modality_dropout: float = 0.2
    learned_prediction_weights: bool = True
    guide_blend: float = 0.5


@dataclass(frozen=True)
class FusionEmotionLossSettings:
    """How emotion labels are learned; the loss follows each corpus's `emotion_kind`.

    Attributes:
        class_weights: `exports` weights classes as the exports' models did (their prior shift),
            so that the starting point, their mean prediction, is already a minimum of the loss
            in this respect; `balanced` by inverse frequency; `none`.
        label_smoothing: share of the target spread over all classes.
    """

    class_weights: Literal["exports", "balanced", "none"] = "exports"
    label_smoothing: float = 0.0


@dataclass(frozen=True)
class FusionSettings:
    """Stage 3 (SYSTEM, sections 6 and 7).

    Attributes:
        emotion_weight, trait_weight: fixed weights of the two tasks' losses.
        balanced_corpora: every corpus is drawn equally often, whatever its size.
    """

    model: FusionModelSettings = field(default_factory=FusionModelSettings)
    components: ComponentSettings = field(default_factory=ComponentSettings)
    emotion_loss: FusionEmotionLossSettings = field(default_factory=FusionEmotionLossSettings)
    trait_loss: TraitLossSettings = field(default_factory=TraitLossSettings)
    emotion_weight: float = 1.0
    trait_weight: float = 1.0
    balanced_corpora: bool = False
    fit: FitSettings = field(default_factory=FitSettings)
