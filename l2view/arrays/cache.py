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

from l2view.config import most_bytes

ENTRY = 256  # bytes that an entry takes beside its value


class ChunkCache:
    """Values by key; those that were not asked for the longest are given up first.

    `setting` of `l2view.config` is the budget, looked at whenever something is added.
    """

    def __init__(self, setting: str) -> None:
        self._setting = setting
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._pending: dict[Hashable, Future[Any]] = {}
        self._lock = threading.Lock()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._values)

    @property
    def budget(self) -> int:
        """The most bytes that are kept (see `most_bytes`)."""
        return most_bytes(self._setting)

    def get(self, key: Hashable) -> Any:
        """Return the value of `key`, None where it isn't kept."""
        with self._lock:
            entry = self._values.get(key)
            if entry is None:
                return None
            self._values.move_to_end(key)
            return entry[0]

    def put(self, key: Hashable, value: Any, nbytes: int) -> None:
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

    def fetch[Value](
        self,
        keys: Sequence[Hashable],
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


CACHE = ChunkCache("cache.bytes")  # decoded chunks and indexes of collections, of this process
CHUNKS = ChunkCache("mosaic.bytes")  # decoded chunks of images
CELLS = ChunkCache("mosaic.cells_bytes")  # where the cells of swaths lie
