"""Labels set aside: a share of each task's, by the seed alone."""

from __future__ import annotations

import numpy as np
import pytest

from mepr_shared.errors import ConfigError
from mepr_shared.train.hidden import hidden_rows


def test_each_task_loses_its_own_share_by_the_seed_alone():
    found, again = hidden_rows(10_000, 0.9, 3), hidden_rows(10_000, 0.9, 3)
    for task in ("emotion", "traits"):
        np.testing.assert_array_equal(found[task], again[task])
        assert found[task].mean() == pytest.approx(0.9, abs=0.01)
        assert (found[task] != hidden_rows(10_000, 0.9, 4)[task]).any()
    both = (found["emotion"] & found["traits"]).mean()
    assert both == pytest.approx(0.81, abs=0.02)  # apart from one another
    assert not hidden_rows(100, 0.0, 0)["emotion"].any()


def test_more_hidden_labels_include_those_that_fewer_hide():
    few, many = hidden_rows(1000, 0.3, 0), hidden_rows(1000, 0.6, 0)
    assert all((many[task] | ~few[task]).all() for task in few)


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5])
def test_a_share_that_leaves_nothing_or_is_none_is_refused(share):
    with pytest.raises(ConfigError, match="not in \\[0, 1\\)"):
        hidden_rows(10, share, 0)
