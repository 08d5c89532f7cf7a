"""What was decoded, kept in memory until there is too much of it.

A key tells what the bytes were: the Icechunk snapshot that they were read from, which never
changes, or what the store says of the chunk (its ETag; size and time of a local file). Where a
store says nothing, nothing is kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Any

from numpy.typing import NDArray

from l2view.config import most_bytes

ENTRY = 256  # bytes that an entry takes beside its value


class Cache[Key: Hashable, Value]:
    """Values by key; those that were not asked for the longest are given up first.

    `budget` tells the most bytes that are kept, and is asked whenever something is added.
    """

    def __init__(self, budget: Callable[[], int]) -> None:
        self._budget = budget
        self._values: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self._pending: dict[Key, Future[Value]] = {}
        self._lock = threading.Lock()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._values)

    @property
    def budget(self) -> int:
        """The most bytes that are kept."""
        return self._budget()

    def __contains__(self, key: Key) -> bool:
        return key in self._values

    def get(self, key: Key) -> Value | None:
        """Return the value of `key`, None where it isn't kept."""
        with self._lock:
            entry = self._values.get(key)
            if entry is None:
                return None
            self._values.move_to_end(key)
            return entry[0]

    def put(self, key: Key, value: Value, nbytes: int = 0) -> None:
        """Keep a value of `nbytes` bytes, if there is room for it at all."""
        nbytes += ENTRY
        budget = self.budget
        with self._lock:
            if key in self._values:
                self.nbytes -= self._values.pop(key)[1]
            if nbytes <= budget:
                self._values[key] = (value, nbytes)
                self.nbytes += nbytes
            while self.nbytes > budget:
                self.nbytes -= self._values.popitem(last=False)[1][1]

    def fetch(
        self,
        keys: Sequence[Key],
        make: Callable[[Sequence[int]], Sequence[Value]],
        sizeof: Callable[[Value], int],
    ) -> list[Value]:
        """Return the values of different keys, making those that neither are kept nor being made.

        `make` returns the values of some of the keys, by their positions, `sizeof` the bytes of
        one. Each is made by one thread, for which others wait.
        """
        values: dict[int, Value] = {}
        waiting: dict[int, Future[Value]] = {}
        missing: dict[int, Future[Value]] = {}
        with self._lock:
            for at, key in enumerate(keys):
                if key in self._values:
                    self._values.move_to_end(key)
                    values[at] = self._values[key][0]
                elif key in self._pending:
                    waiting[at] = self._pending[key]
                else:
                    missing[at] = self._pending[key] = Future()
        try:
            new_values = make(list(missing)) if missing else []
            for (at, future), value in zip(missing.items(), new_values, strict=True):
                self.put(keys[at], value, sizeof(value))
                future.set_result(value)
                values[at] = value
        except BaseException as error:
            for future in missing.values():
                if not future.done():
                    future.set_exception(error)
            raise
        finally:
            with self._lock:
                for at in missing:
                    del self._pending[keys[at]]
        values |= {at: future.result() for at, future in waiting.items()}
        return [values[at] for at in range(len(keys))]

    def clear(self) -> None:
        """Give up everything."""
        with self._lock:
            self._values.clear()
            self.nbytes = 0


class RecentCache[Key: Hashable, Value](Cache[Key, Value]):
    """The `size` values that were used last, by key."""

    def __init__(self, size: int) -> None:
        super().__init__(lambda: size * ENTRY)


# Decoded chunks and indexes of collections, of this process.
CACHE: Cache[Hashable, Any] = Cache(lambda: most_bytes("cache.bytes"))
CHUNKS: Cache[Hashable, NDArray[Any]] = Cache(lambda: most_bytes("mosaic.bytes"))  # of images
CELLS: Cache[Hashable, Any] = Cache(lambda: most_bytes("mosaic.cells_bytes"))  # of swaths
