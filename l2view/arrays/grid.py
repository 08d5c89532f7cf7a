"""Chunk grids: which chunks are read together, and how a window is gone through.

A chunk grid is described by its edges: along each axis where the chunks begin, and where the last
one ends. Chunks may be of any lengths.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

FEW_CELLS = 1 << 14  # the cells of a window for a consumer that may want no more than a few rows
ALL_CELLS = 1 << 62  # more cells than there are

type Edges = NDArray[np.int64]
"""Where the chunks along one axis begin, and where the last one ends, of shape (chunks + 1,)."""

type Window = tuple[range, ...]  # the positions along each axis


def regular_edges(begin: int, end: int, chunk: int) -> Edges:
    """Return the edges of a regular grid's chunks within ``begin`` and ``end``, from 0.

    Examples
    --------
    >>> regular_edges(5, 10, 4).tolist()
    [0, 3, 5]
    """
    if end <= begin:
        return np.zeros(1, dtype=np.int64)
    start = begin // max(chunk, 1) * max(chunk, 1)
    starts = np.arange(start, end, max(chunk, 1), dtype=np.int64)
    return np.append(np.maximum(starts, begin), end) - begin


def size(window: Window) -> int:
    """Return the number of cells of a window."""
    return math.prod(map(len, window))


def overlap(window: Window, outer: Window) -> tuple[slice, ...]:
    """Return where in `outer` the cells lie that a window shares with it."""
    pairs = zip(window, outer, strict=True)
    return tuple(
        slice(max(axis.start - at.start, 0), min(axis.stop, at.stop) - at.start)
        for axis, at in pairs
    )


def runs(mask: NDArray[np.bool_]) -> Iterator[range]:
    """Yield the runs of consecutive chunks that are wanted."""
    steps = np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8))
    starts, stops = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    yield from itertools.starmap(range, zip(starts.tolist(), stops.tolist(), strict=True))


def tiles(
    edges: Sequence[Edges], masks: Sequence[NDArray[np.bool_]], shards: Sequence[int], most: int
) -> Iterator[Window]:
    """Yield chunks to read together: windows of chunk indices, in C order.

    `masks` select chunks along each axis. A window has at most `most` cells, but for one chunk
    that has more, and holds whole objects where it can: `shards` chunks along each axis.
    """
    counts = [len(axis) - 1 for axis in edges]
    room = most // max(math.prod(int(np.diff(axis).max(initial=1)) for axis in edges), 1)
    lengths = _tile_lengths(counts, shards, room)
    yield from itertools.product(
        *(
            [span for run in runs(mask) for span in _split_run(run, length)]
            for mask, length in zip(masks, lengths, strict=True)
        )
    )


def read_steps(masks: Sequence[NDArray[np.bool_]]) -> Iterator[tuple[int, list[NDArray[np.bool_]]]]:
    """Yield the most cells of a window, and the chunks along each axis that are wanted.

    The first are those at the start of the first axis, for windows of few cells; then all others.
    """
    if not masks or masks[0].sum() < 2:
        yield FEW_CELLS, list(masks)
        return
    leading = np.zeros_like(masks[0])
    leading[np.flatnonzero(masks[0])[0]] = True
    yield FEW_CELLS, [leading, *masks[1:]]
    yield ALL_CELLS, [masks[0] & ~leading, *masks[1:]]


def _tile_lengths(counts: Sequence[int], shards: Sequence[int], room: int) -> list[int]:
    """Return the chunks of a tile along each axis, at most `room` in all."""
    fits_shard = math.prod(shards) <= room
    lengths = list(shards) if fits_shard else [1] * len(counts)
    unit = tuple(lengths)
    for axis, limit in reversed(list(enumerate(counts if fits_shard else shards))):
        others = math.prod(lengths) // lengths[axis]
        fits = max(room // others // unit[axis], 1) * unit[axis]
        lengths[axis] = min(max(limit, unit[axis]), fits)
    return lengths


def _split_run(run: range, length: int) -> Iterator[range]:
    """Yield a run of chunks in parts that end where multiples of `length` do."""
    start = run.start
    while start < run.stop:
        stop = min((start // length + 1) * length, run.stop)
        yield range(start, stop)
        start = stop


def slabs(shape: Sequence[int], most: int) -> Iterator[Window]:
    """Yield windows of at most `most` cells that fill `shape`, each consecutive in C order."""
    if math.prod(shape) <= most:
        yield tuple(map(range, shape))
        return
    axis, below = len(shape) - 1, 1
    while below * shape[axis] <= most:
        below *= shape[axis]
        axis -= 1
    step = max(most // below, 1)
    suffix = tuple(map(range, shape[axis + 1 :]))
    for outer in np.ndindex(*shape[:axis]):
        prefix = tuple(range(at, at + 1) for at in outer)
        for start in range(0, shape[axis], step):
            yield (*prefix, range(start, min(start + step, shape[axis])), *suffix)
