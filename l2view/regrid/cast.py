"""Values of one data type as those of another."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def cast(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return values in a data type; in one of integers they are rounded, and clipped to it."""
    if values.dtype == dtype:
        return values
    if dtype.kind in "iu" and values.dtype.kind in "iuf":
        bounds = np.iinfo(dtype)
        if values.dtype.kind == "f":
            rounded = np.nan_to_num(np.rint(values).astype(np.float64))
            with np.errstate(invalid="ignore"):  # the largest integers of 64 bits are no floats
                integers = rounded.clip(bounds.min, bounds.max).astype(dtype)
            return np.where(rounded >= float(bounds.max), dtype.type(bounds.max), integers)
        limits = np.iinfo(values.dtype)
        low, high = max(bounds.min, limits.min), min(bounds.max, limits.max)
        return values.clip(low, high).astype(dtype)
    with np.errstate(over="ignore"):  # what is too large for singles is infinite
        return values.astype(dtype)
