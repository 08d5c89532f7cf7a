"""Values of one data type as those of another."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def cast(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return values in a data type: rounded where it is of integers, and no more than it holds."""
    if values.dtype == dtype:
        return values
    if dtype.kind in "iu" and values.dtype.kind in "iuf":
        bounds = np.iinfo(dtype)
        if values.dtype.kind == "f":
            whole = np.nan_to_num(np.rint(values).astype(np.float64))
            with np.errstate(invalid="ignore"):  # the largest integers of 64 bits are no floats
                made = whole.clip(bounds.min, bounds.max).astype(dtype)
            return np.where(whole >= float(bounds.max), dtype.type(bounds.max), made)
        own = np.iinfo(values.dtype)
        least, most = max(bounds.min, own.min), min(bounds.max, own.max)
        return values.clip(least, most).astype(dtype)
    with np.errstate(over="ignore"):  # what is too large for singles is infinite
        return values.astype(dtype)
