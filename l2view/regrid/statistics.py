"""Statistics of the values that lie in each pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

STATISTICS = frozenset({"average", "max", "med", "min", "mode", "q1", "q3", "rms", "sum"})
"""The resamplings that are statistics."""

QUANTILES = {"q1": 0.25, "med": 0.5, "q3": 0.75}


def pixel_statistics(
    values: NDArray[Any], pixels: NDArray[np.int64], shape: tuple[int, int], resampling: str
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return one of `STATISTICS` of the values in each pixel, and which pixels have values.

    Both are of `shape`. `pixels` are the number of each value's pixel in C order.
    """
    filled = np.zeros(shape, dtype=bool)
    if not len(values):
        return np.zeros(shape, values.dtype), filled
    order = np.lexsort((values, pixels))
    pixels, values = pixels[order], values[order]
    starts = np.flatnonzero(np.diff(pixels, prepend=-1))
    statistics = grouped_statistic(values, starts, resampling)
    image = np.zeros(shape, statistics.dtype)
    index = np.unravel_index(pixels[starts], shape)
    image[index] = statistics
    filled[index] = True
    return image, filled


def grouped_statistic(
    values: NDArray[Any], starts: NDArray[np.int64], resampling: str
) -> NDArray[Any]:
    """Return one of `STATISTICS` of groups of values.

    Values are of shape (n,), group by group, each in ascending order; a group begins at each of
    `starts`.
    """
    counts = np.diff(np.append(starts, len(values)))
    match resampling:
        case "min":
            return values[starts]
        case "max":
            return values[starts + counts - 1]
        case "sum":
            integers = values.dtype.kind in "iub"
            dtype = np.result_type(values, np.int64) if integers else np.float64
            return np.add.reduceat(values.astype(dtype), starts)
        case "average":
            return np.asarray(np.add.reduceat(values.astype(np.float64), starts) / counts)
        case "rms":
            squares = np.square(values.astype(np.float64))
            return np.sqrt(np.add.reduceat(squares, starts) / counts)
        case "mode":
            return _modes(values, starts, counts)
    positions = starts + (counts - 1) * QUANTILES[resampling]
    low, high = np.floor(positions).astype(np.int64), np.ceil(positions).astype(np.int64)
    weight = positions - low
    return np.asarray(values[low] * (1 - weight) + values[high] * weight)


def _modes(
    values: NDArray[Any], starts: NDArray[np.int64], counts: NDArray[np.int64]
) -> NDArray[Any]:
    """Return the most frequent value of each group, the least of several."""
    group = np.repeat(np.arange(len(starts)), counts)
    changes = (values[1:] != values[:-1]) | (group[1:] != group[:-1])
    runs = np.flatnonzero(np.append(True, changes))
    lengths = np.diff(np.append(runs, len(values)))
    order = np.lexsort((-lengths, group[runs]))
    most_frequent = np.flatnonzero(np.diff(group[runs][order], prepend=-1))
    return values[runs[order[most_frequent]]]
