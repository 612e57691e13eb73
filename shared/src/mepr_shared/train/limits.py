"""Settings of both tasks together that cannot work are refused before anything starts."""

from __future__ import annotations

import math
from collections.abc import Iterable

from mepr_shared.errors import ConfigError
from mepr_shared.train.joint import JointSettings, uses_pseudo_labels

# Name, value, least and greatest value.
Limit = tuple[str, float, float, float]


def check_limits(limits: Iterable[Limit]) -> None:
    """Refuse the first value that is out of its limits.

    Raises:
        ConfigError: names it.
    """
    for name, value, least, greatest in limits:
        if not least <= value <= greatest:
            wanted = f"in [{least:g}, {greatest:g}]"
            if math.isinf(greatest):
                wanted = f"{least:g} or more"
            raise ConfigError(f"{name} = {value:g} is not {wanted}")


def check_joint(settings: JointSettings) -> None:
    """Refuse settings of weighting and semi-supervised learning that cannot work.

    Raises:
        ConfigError: names the first.
    """
    limits: list[Limit] = []
    semi, gradnorm = settings.semi, settings.gradnorm
    if settings.weighting == "gradnorm":
        # A term's share of its wallet's budget: weights at a higher floor exceed the budget.
        share = min(1.0, semi.weight) if uses_pseudo_labels(settings) else 1.0
        limits += [
            ("gradnorm.floor", gradnorm.floor, 1e-9, share),
            ("gradnorm.first_steps", gradnorm.first_steps, 1, math.inf),
            ("gradnorm.learning_rate", gradnorm.learning_rate, 0, math.inf),
            ("gradnorm.semi_learning_rate", gradnorm.semi_learning_rate, 0, math.inf),
        ]
    if settings.ssl:
        limits += [
            ("semi.weight", semi.weight, 0, math.inf),
            ("semi.half_life", semi.half_life, 0, math.inf),
            ("semi.warmup", semi.warmup, 0, math.inf),
            ("semi.positive", semi.positive, 0, 1),
            ("semi.negative", semi.negative, 0, semi.positive),
            ("semi.unlabelled", semi.unlabelled, 0, math.inf),
            # The spread of a single pass is 0, which would trust everything.
            ("semi.dropout_passes", semi.dropout_passes, 2, math.inf),
        ]
    check_limits(limits)
