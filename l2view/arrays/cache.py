"""What was decoded, kept in memory until there is too much of it.

A key tells what the bytes were: the Icechunk snapshot that they were read from, which never
changes, or what the store says of the chunk (its ETag; size and time of a local file). Where a
store says nothing, nothing is kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from l2view.config import most_bytes

ENTRY = 256
"""Bytes that an entry takes beside its value."""


class Cache:
    """Values by key; those that were not asked for the longest are given up first.

    Parameters
    ----------
    setting
        The setting of `l2view.config` with the budget, looked at whenever something is added.
    """

    def __init__(self, setting: str = "cache.bytes") -> None:
        self._setting = setting
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
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
            found = self._values.get(key)
            if found is None:
                return None
            self._values.move_to_end(key)
            return found[0]

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

    def clear(self) -> None:
        """Give up everything."""
        with self._lock:
            self._values.clear()
            self.nbytes = 0


CACHE = Cache()
"""The cache of this process."""
