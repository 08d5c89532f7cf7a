"""Statistics of the values that lie in each pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

STATISTICS = frozenset({"average", "max", "med", "min", "mode", "q1", "q3", "rms", "sum"})
"""The resamplings that are statistics."""


def by_pixel(
    values: NDArray[Any], at: NDArray[np.int64], shape: tuple[int, int], resampling: str
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return statistics of values by the pixels that they lie in, and which pixels have some.

    Parameters
    ----------
    values
        Of shape (n,).
    at
        The number of the pixel of each in C order, of shape (n,).
    shape
        The rows and columns of pixels.
    resampling
        One of `STATISTICS`.
    """
    height, width = shape
    full = np.zeros((height, width), dtype=bool)
    if not len(values):
        return np.zeros((height, width), values.dtype), full
    order = np.lexsort((values, at))
    at, values = at[order], values[order]
    starts = np.flatnonzero(np.diff(at, prepend=-1))
    made = statistic_of(values, starts, resampling)
    found = np.zeros((height, width), made.dtype)
    index = np.unravel_index(at[starts], (height, width))
    found[index] = made
    full[index] = True
    return found, full


def statistic_of(values: NDArray[Any], starts: NDArray[np.int64], resampling: str) -> NDArray[Any]:
    """Return a statistic of groups of values, each in ascending order.

    Parameters
    ----------
    values
        Of shape (n,), group by group.
    starts
        Where each group begins, of shape (groups,).
    resampling
        One of `STATISTICS`.
    """
    counts = np.diff(np.append(starts, len(values)))
    ends = starts + counts
    match resampling:
        case "min":
            return values[starts]
        case "max":
            return values[ends - 1]
        case "sum":
            kept = np.result_type(values, np.int64) if values.dtype.kind in "iub" else np.float64
            return np.add.reduceat(values.astype(kept), starts)
        case "average":
            return np.asarray(np.add.reduceat(values.astype(np.float64), starts) / counts)
        case "rms":
            squares = np.square(values.astype(np.float64))
            return np.sqrt(np.add.reduceat(squares, starts) / counts)
        case "mode":
            return _mode(values, starts, counts)
    part = {"q1": 0.25, "med": 0.5, "q3": 0.75}[resampling]
    at = starts + (counts - 1) * part
    low, high = np.floor(at).astype(np.int64), np.ceil(at).astype(np.int64)
    weight = at - low
    return np.asarray(values[low] * (1 - weight) + values[high] * weight)


def _mode(
    values: NDArray[Any], starts: NDArray[np.int64], counts: NDArray[np.int64]
) -> NDArray[Any]:
    """Return the value that most often comes in each group, the least of several."""
    group = np.repeat(np.arange(len(starts)), counts)
    begins = np.flatnonzero(
        np.append(True, (values[1:] != values[:-1]) | (group[1:] != group[:-1]))
    )
    times = np.diff(np.append(begins, len(values)))
    order = np.lexsort((-times, group[begins]))
    first = np.flatnonzero(np.diff(group[begins][order], prepend=-1))
    return values[begins[order[first]]]
