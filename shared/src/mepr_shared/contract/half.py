"""float32 to float16 and back, faster than NumPy's own casts.

NumPy converts half precision element by element. Storing needs a check for overflow as well, and
reading is the inner loop of training, so both have a vectorised form here.
"""

from __future__ import annotations

import numpy as np

_PIECE = 1 << 16  # elements; source and target of one piece stay in the second-level cache
_MAGNITUDE = np.uint16(0x7FFF)
_INFINITY = 0x7C00
_SIGN_AND_FRACTION = np.array(0x8FFFE000, dtype=np.uint32).view(np.int32)[()]
_EXPONENT_SHIFT = np.float32(2.0**112)


def narrow(values: np.ndarray, out: np.ndarray) -> bool:
    """Cast `values` (1-D, float) into `out` (1-D float16); True if every result is finite."""
    finite = True
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, values.size, _PIECE):
            piece = out[start : start + _PIECE]
            piece[...] = values[start : start + _PIECE]
            finite &= bool((piece.view(np.uint16) & _MAGNITUDE).max() < _INFINITY)
    return finite


def widen(values: np.ndarray, out: np.ndarray) -> None:
    """Cast finite float16 `values` (1-D, contiguous) into `out` (1-D float32, contiguous).

    The bits of a half moved 13 places up are those of a float32 that is 2^112 too small; the
    product is exact, also for subnormal halves.
    """
    if values.size > _PIECE:
        for start in range(0, values.size, _PIECE):
            widen(values[start : start + _PIECE], out[start : start + _PIECE])
        return
    wide = out.view(np.int32)
    wide[...] = values.view(np.int16)
    np.left_shift(wide, 13, out=wide)
    np.bitwise_and(wide, _SIGN_AND_FRACTION, out=wide)
    np.multiply(out, _EXPONENT_SHIFT, out=out)
