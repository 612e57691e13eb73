"""Labels set aside from training: what semi-supervised learning gains without them, and whether
its pseudo-labels agree with them."""

from __future__ import annotations

import numpy as np

from mepr_shared.errors import ConfigError
from mepr_shared.labels import TASKS

# Beside the seed, as the number of an epoch stands beside it. Epoch 7 is ordered by the same
# random numbers, which decide nothing about hidden labels there.
_STREAM = 7


def hidden_rows(count: int, share: float, seed: int) -> dict[str, np.ndarray]:
    """Task -> `[count]` bool, the training rows whose label of that task is set aside.

    Raises:
        ConfigError: `share` is not in [0, 1).
    """
    if not 0 <= share < 1:
        raise ConfigError(f"hidden_labels = {share} is not in [0, 1)")
    generator = np.random.default_rng((seed, _STREAM))
    return {task: generator.random(count) < share for task in TASKS}
