"""Windows of granules' arrays, put together of chunks that are kept for their neighbours."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2view.arrays.cache import Cache
from l2view.arrays.grid import Window
from l2view.arrays.stored import StoredArray

CHUNKS = Cache("mosaic.bytes")
"""Decoded chunks of this process."""

CELLS = Cache("mosaic.cells_bytes")
"""Where the cells of swaths lie, of this process."""

type Index = tuple[int, ...]
"""The numbers of a chunk along each axis."""


class Pending:
    """Chunks that some thread is reading, so that no other reads them too."""

    def __init__(self) -> None:
        self._futures: dict[Hashable, Future[Any]] = {}
        self._lock = threading.Lock()

    def claim(self, keys: Sequence[Hashable]) -> tuple[list[int], list[Future[Any]]]:
        """Return which of some chunks are for the caller to read, and all of them as futures."""
        with self._lock:
            mine = [at for at, key in enumerate(keys) if key not in self._futures]
            for at in mine:
                self._futures[keys[at]] = Future()
            return mine, [self._futures[key] for key in keys]

    def release(self, keys: Sequence[Hashable]) -> None:
        """Forget chunks that have been read, or failed."""
        with self._lock:
            for key in keys:
                self._futures.pop(key, None)


PENDING = Pending()


def once[Value](key: Hashable, make: Callable[[], Value], sizeof: Callable[[Value], int]) -> Value:
    """Return what is kept by a key; else it is made, by one thread while others wait for it."""
    if (kept := CELLS.get(key)) is not None:
        return kept[0]  # type: ignore[no-any-return]
    mine, (future,) = PENDING.claim([key])
    if not mine:
        return future.result()  # type: ignore[no-any-return]
    try:
        made = make()
        CELLS.put(key, (made,), sizeof(made))
        future.set_result(made)
    except BaseException as error:
        future.set_exception(error)
        raise
    finally:
        PENDING.release([key])
    return made


def read(array: StoredArray, key: Hashable, window: Window) -> NDArray[Any]:
    """Return a window of an array as it is stored.

    Parameters
    ----------
    array
        The array.
    key
        What tells it from any other of this process.
    window
        The positions along each axis.

    Raises
    ------
    ChunkError
        Where a chunk can't be read.
    """
    indices = list(itertools.product(*array.chunks(window)))
    chunks = _chunks(array, key, indices)
    if len(indices) == 1:
        return chunks[0][_inside(array, indices[0], window)[1]]
    found = np.empty(tuple(map(len, window)), array.decoder.dtype)
    for index, chunk in zip(indices, chunks, strict=True):
        here, there = _inside(array, index, window)
        found[here] = chunk[there]
    return found


def _inside(
    array: StoredArray, index: Index, window: Window
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return where a chunk is in a window, and what of it."""
    here, there = [], []
    for axis, at, edges in zip(window, index, array.edges, strict=True):
        begin, end = int(edges[at]), int(edges[at + 1])
        first, last = max(axis.start, begin), min(axis.stop, end)
        here.append(slice(first - axis.start, last - axis.start))
        there.append(slice(first - begin, last - begin))
    return tuple(here), tuple(there)


def _chunks(array: StoredArray, key: Hashable, indices: Sequence[Index]) -> list[NDArray[Any]]:
    """Return chunks of an array: kept ones, those that another thread reads, and the others."""
    keys = [(key, index) for index in indices]
    found: dict[int, NDArray[Any]] = {}
    for at, one in enumerate(keys):
        if (kept := CHUNKS.get(one)) is not None:
            found[at] = kept
    wanted = [at for at in range(len(keys)) if at not in found]
    if not wanted:
        return [found[at] for at in range(len(keys))]
    mine, futures = PENDING.claim([keys[at] for at in wanted])
    own = [wanted[at] for at in mine]
    try:
        # Another thread may have read some since they were looked for.
        left = [at for at in mine if not _is_kept(keys[wanted[at]], futures[at])]
        chunks = array.whole_chunks([indices[wanted[at]] for at in left]) if left else []
        for at, chunk in zip(left, chunks, strict=True):
            CHUNKS.put(keys[wanted[at]], chunk, chunk.nbytes)
            futures[at].set_result(chunk)
    except BaseException as error:
        for at in mine:
            if not futures[at].done():
                futures[at].set_exception(error)
        raise
    finally:
        PENDING.release([keys[at] for at in own])
    for at, future in zip(wanted, futures, strict=True):
        found[at] = future.result()
    return [found[at] for at in range(len(keys))]


def _is_kept(key: Hashable, future: Future[Any]) -> bool:
    """Return whether a chunk is kept, which then is what waits for it gets."""
    kept = CHUNKS.get(key)
    if kept is not None:
        future.set_result(kept)
    return kept is not None
