"""The fast casts give what NumPy's own give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mepr_shared.contract.half import narrow, widen


def test_every_finite_half_widens_exactly() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = np.tile(halves[np.isfinite(halves)], 2)  # more than one piece
    wide = np.empty(halves.size, dtype=np.float32)
    widen(halves, wide)
    assert (wide.view(np.uint32) == halves.astype(np.float32).view(np.uint32)).all()


@given(arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32)))
def test_narrow_is_numpys_cast_and_reports_what_is_not_finite(values: np.ndarray) -> None:
    out = np.empty(values.size, dtype=np.float16)
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16)
    assert narrow(values, out) == bool(np.isfinite(expected).all())
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(("value", "fits"), [(65519.0, True), (65520.0, False), (np.nan, False)])
@pytest.mark.parametrize("place", [0, 70_000, 99_999])
def test_one_value_too_large_is_found_anywhere(value: float, fits: bool, place: int) -> None:
    values = np.zeros(100_000, dtype=np.float32)
    values[place] = -value
    assert narrow(values, np.empty(values.size, dtype=np.float16)) is fits
