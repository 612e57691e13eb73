"""Everything that can be configured about stages 1 and 2. No torch here.

A field whose metadata has `when=(other_field, values)` is read only there; setting it by hand
elsewhere is refused by `mepr_shared.config.refuse_unused`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


def only(default: Any, other: str, *values: str | bool) -> Any:
    """A field that is read only where the sibling field `other` has one of `values`."""
    return field(default=default, metadata={"when": (other, values)})


def only_group(group: type, other: str, *values: str | bool) -> Any:
    """A table of settings that is read only where the sibling field `other` has one of `values`."""
    return field(default_factory=group, metadata={"when": (other, values)})


@dataclass(frozen=True)
class ModelSettings:
    """A sequence encoder with pooling and a head.

    `kind = "pretrained"` fine-tunes the encoder's own upper `layers`, starting from the hidden
    states that the frame store holds (extract with `encoder.layers` set to the layer below).

    Attributes:
        standardise: bring each dimension of the features to mean 0 and spread 1, measured on the
            training split. Matters where a few dimensions are far larger than the rest, as in
            the middle layers of many encoders.
        time_mask, feature_mask: SpecAugment: longest span of frames, and of dimensions, that is
            blanked in training.
    """

    kind: Literal["transformer", "mamba", "pretrained"] = "transformer"
    width: int = 128
    layers: int = 1
    dropout: float = 0.1
    input_dropout: float = 0.0
    standardise: bool = only(False, "kind", "transformer", "mamba")
    time_mask: int = only(0, "kind", "transformer", "mamba")
    feature_mask: int = only(0, "kind", "transformer", "mamba")
    pooling: Literal["mean", "attention"] = "mean"
    heads: int = only(4, "kind", "transformer")
    feedforward: int = only(256, "kind", "transformer")
    positions: Literal["sinusoidal", "learned", "none"] = only("sinusoidal", "kind", "transformer")
    state_size: int = only(16, "kind", "mamba")
    expand: int = only(2, "kind", "mamba")
    conv_width: int = only(4, "kind", "mamba")
    bidirectional: bool = only(False, "kind", "mamba")


@dataclass(frozen=True)
class EmotionLossSettings:
    """How emotion labels are learned.

    Attributes:
        loss: `auto` follows each corpus's `emotion_kind`; a name applies to every row.
        class_balance: class weights are (1 / frequency) ** class_balance, 0 = plain.
        logit_adjustment: tau of Menon et al. 2021 (adds tau * log prior to logits in the loss).
        label_smoothing: share of the target spread over all classes.
        pos_weight: weight positives of multi-label rows by negatives / positives.
        pos_weight_cap: largest positive weight.
    """

    loss: Literal["auto", "bce", "ce", "soft_ce", "kl"] = "auto"
    class_balance: float = 0.0
    logit_adjustment: float = 0.0
    label_smoothing: float = 0.0
    pos_weight: bool = True
    pos_weight_cap: float = 10.0


@dataclass(frozen=True)
class TraitLossSettings:
    """How trait labels are learned.

    Attributes:
        loss: a name or a sum of names, weights allowed: `"mae"`, `"rmse+bell"`, `"mae+0.5*ccc"`.
        scale: `"unit"`, or `"published"` for the constants of the published code.
    """

    loss: str = "mae"
    scale: Literal["unit", "published"] = "unit"


@dataclass(frozen=True)
class FitSettings:
    """The training loop.

    Attributes:
        warmup: share of all steps over which the rate rises from 0 (schedulers with warm-up).
        keep: which epoch's weights are saved: the one with the best validation score, or the last
            one, for validation splits too small to choose on.
        patience: epochs without a better validation score before stopping; 0 = never.
        clip_norm: largest gradient norm; 0 = no clipping.
        precision: `auto` is bf16 where the hardware multiplies it faster, else float32.
        average: decay per step of an exponential moving average of the weights that is validated
            and saved instead of the raw weights; 0 = off.
    """

    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 3e-4
    weight_decay: float = 0.01
    optimiser: Literal["adam", "adamw", "lion", "sgd", "rmsprop"] = "adamw"
    scheduler: Literal[
        "none", "plateau", "cosine", "onecycle", "linear_warmup", "cosine_warmup"
    ] = "cosine_warmup"
    warmup: float = only(0.1, "scheduler", "linear_warmup", "cosine_warmup", "onecycle")
    keep: Literal["best", "last"] = "best"
    patience: int = only(5, "keep", "best")
    clip_norm: float = 1.0
    precision: Literal["auto", "float32", "bf16"] = "auto"
    average: float = 0.0
    seed: int = 0


Weighting = Literal["equal", "fixed", "gradnorm"]
Pseudo = Literal["teacher", "published", "off"]


@dataclass(frozen=True)
class SemiSettings:
    """Learning from clips whose label for a task is missing (SYSTEM, section 7).

    Attributes:
        weight: lambda, the share of a semi-supervised term beside a supervised one.
        half_life: epochs after which a weight counts half in the teacher, an exponential moving
            average of the model; 0 makes the model its own teacher.
        warmup: epochs without pseudo-labels.
        positive, negative: probabilities above and below which the teacher's answer becomes a
            label: of each class in multi-label corpora, of the most likely one (`positive`) in
            the others.
        unlabelled: samples without any label for each one with a label, at most, in an epoch.
        dropout_passes: passes with dropout whose spread says how sure a trait score is, where
            only one modality gives one.
    """

    weight: float = 0.4
    half_life: float = 1.0
    warmup: int = 1
    positive: float = 0.6
    negative: float = 0.1
    unlabelled: float = 1.0
    dropout_passes: int = 4


@dataclass(frozen=True)
class GradNormSettings:
    """Modified GradNorm: a wallet for supervised and one for semi-supervised terms.

    Attributes:
        alpha, semi_alpha: how strongly terms that learn slowly are favoured.
        learning_rate, semi_learning_rate: of the weights.
        floor: least weight.
        first_steps: steps over which a term's initial loss is averaged.
    """

    alpha: float = 1.0
    semi_alpha: float = 1.5
    learning_rate: float = 0.005
    semi_learning_rate: float = 0.01
    floor: float = 1e-3
    first_steps: int = 20


@dataclass(frozen=True)
class Stage1Settings:
    """One unimodal, single-task model.

    `configurations_tried` says how many configurations were compared on the validation split to
    arrive at this one; it is reported with the result and changes nothing (`search` sets it).
    """

    model: ModelSettings = field(default_factory=ModelSettings)
    emotion_loss: EmotionLossSettings = field(default_factory=EmotionLossSettings)
    trait_loss: TraitLossSettings = field(default_factory=TraitLossSettings)
    fit: FitSettings = field(default_factory=FitSettings)
    configurations_tried: int = 1


@dataclass(frozen=True)
class CrossTaskSettings:
    """The block that lets the two tasks see each other."""

    width: int = 128
    heads: int = 4
    dropout: float = 0.1


@dataclass(frozen=True)
class Stage2Settings:
    """One unimodal, multi-task model over two frozen stage-1 models.

    Attributes:
        emotion_weight, trait_weight: of the two tasks' losses.
        weighting: of the terms: 1 each (`equal`), as given (`fixed`), or learned (`gradnorm`).
        ssl: learn from clips without a task's label as well, by an averaged teacher.
        pseudo: the teacher's confident answers as labels (`teacher`), the published rule, or
            none (`off`: only the averaged weights remain of it).
        hidden_labels: share of the training labels that is set aside: it shows what `ssl` gains,
            and how often its pseudo-labels are right.
    """

    model: CrossTaskSettings = field(default_factory=CrossTaskSettings)
    emotion_loss: EmotionLossSettings = field(default_factory=EmotionLossSettings)
    trait_loss: TraitLossSettings = field(default_factory=TraitLossSettings)
    weighting: Weighting = "equal"
    emotion_weight: float = only(1.0, "weighting", "fixed")
    trait_weight: float = only(1.0, "weighting", "fixed")
    gradnorm: GradNormSettings = only_group(GradNormSettings, "weighting", "gradnorm")
    ssl: bool = False
    pseudo: Pseudo = only("teacher", "ssl", True)
    semi: SemiSettings = only_group(SemiSettings, "ssl", True)
    hidden_labels: float = 0.0
    fit: FitSettings = field(default_factory=FitSettings)
    configurations_tried: int = 1
