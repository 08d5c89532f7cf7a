"""What is stored of indexes beside the fields: their bytes, each fetched once.

Each index says how many rows it covers; what was appended since is scanned.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
from zarr.storage import LocalStore

from l2view.errors import L2ViewWarning, warn
from l2view.index.storage import FOOTPRINTS, SORTED, TREES, ZONES
from l2view.meta.chunks import Tally, fetch, tag_of_file
from l2view.meta.schema import Field
from l2view.meta.zones import Zones, from_bytes
from l2view.stores.hierarchy import Hierarchy, join

FENCES = ("fences/c/0", "values/zarr.json", "rows/zarr.json")
"""The files that a search in a sorted index begins with, below its group."""


class Indexes:
    """The indexes of a collection, read when they are asked for; in a `fixed` one they stay."""

    def __init__(self, hierarchy: Hierarchy, *, fixed: bool = False) -> None:
        self.hierarchy = hierarchy
        self.fixed = fixed
        self._lock = threading.RLock()
        self._forget()

    def _forget(self) -> None:
        self._fetched: dict[str, Any] = {}
        self._tags: dict[str, Any] = {}
        self._loaded: dict[tuple[str, str], Any] = {}
        self.runs: dict[tuple[Any, ...], pads.Dataset] = {}
        """What zone maps tell of runs of rows, by the runs and the fields."""

    def __reduce__(self) -> tuple[Callable[[], Indexes], tuple[()]]:
        return partial(Indexes, self.hierarchy, fixed=self.fixed), ()

    def refresh(self) -> None:
        """Forget what may be others in the store by now."""
        with self._lock:
            is_local = isinstance(self.hierarchy.store, LocalStore)
            if not self.fixed and not (is_local and self._tags == self._current_tags(self._tags)):
                self._forget()

    def _current_tags(self, paths: Iterable[str]) -> dict[str, Any]:
        """Tags of local files by path, which differ once a file changes."""
        store = self.hierarchy.store
        if self.fixed or not isinstance(store, LocalStore):
            return {}
        return {path: tag_of_file(store, self.hierarchy.key(path)) for path in paths}

    def fetch(self, paths: Sequence[str], tally: Tally | None = None) -> None:
        """Fetch the files at some paths, all at once."""
        with self._lock:
            new = [path for path in paths if path not in self._fetched]
            if not new:
                return
            start = time.perf_counter()
            self._tags |= self._current_tags(new)
            buffers = fetch(self.hierarchy.store, [self.hierarchy.key(path) for path in new])
            if tally is not None:
                tally.count_fetched(start, buffers)
            self._fetched.update(zip(new, buffers, strict=True))

    def prefetch(self, fields: Sequence[Field], tally: Tally) -> None:
        """Fetch the files that tell the indexes of some fields, and count them."""
        paths = []
        for field in fields:
            paths.append(join(ZONES, field.name, "c/0"))
            if field.geometry is None:
                paths += [join(SORTED, field.name, name) for name in FENCES]
            else:
                paths += [join(TREES, field.name, name) for name in ("zarr.json", "c/0")]
                paths.append(join(FOOTPRINTS, field.name, "zarr.json"))
        self.fetch(paths, tally)

    def read(self, path: str) -> Any:
        """Read the bytes at `path` in the store, None where there are none."""
        with self._lock:
            self.fetch([path])
            return self._fetched[path]

    def array(self, path: str, kind: pa.DataType, like: Field | None = None) -> Field | None:
        """Return an array as if it were a field, None where there is none of this type."""
        buffer = self.read(join(path, "zarr.json"))
        document = None if buffer is None else json.loads(bytes(buffer))
        if document is None or document["node_type"] != "array" or len(document["shape"]) != 1:
            return None
        if kind == pa.uint8() and document["data_type"] != "uint8":
            return None
        array = Field(path, self.hierarchy.key(path), document, kind)
        return array if like is None else replace(array, nulls=like.nulls, geometry=like.geometry)

    def load[T](self, kind: str, field: Field, read: Callable[[], T | None]) -> T | None:
        """Return the index of a field, which is read once; None where it can't be."""
        with self._lock:
            if (kind, field.name) not in self._loaded:
                self._loaded[kind, field.name] = None
                try:
                    self._loaded[kind, field.name] = read()
                except (pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:  # do without
                    warn(
                        f"the {kind} of {field.name} can't be read and is left aside "
                        f"({error!r}); make it again: l2view index",
                        L2ViewWarning,
                    )
            index: T | None = self._loaded[kind, field.name]
            return index

    def zones(self, field: Field) -> Zones | None:
        """Return the zone map of a field, None where none is stored."""

        def read() -> Zones | None:
            buffer = self.read(join(ZONES, field.name, "c/0"))
            return None if buffer is None else from_bytes(field, bytes(buffer))

        return self.load("zone map", field, read)
