"""The stored bytes of indexes, each fetched once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
from zarr.storage import LocalStore

from l2view.index.storage import FOOTPRINTS, SORTED, TREES, ZONES
from l2view.meta.chunks import Tally, fetch, tag_of_file
from l2view.meta.schema import Field
from l2view.stores.hierarchy import Hierarchy, join

FENCES = ("fences/c/0", "values/zarr.json", "rows/zarr.json")
"""The files that a search in a sorted index begins with, below its group."""


class IndexFiles:
    """What is stored of indexes in a hierarchy; in a `fixed` one nothing ever changes."""

    def __init__(self, hierarchy: Hierarchy, *, fixed: bool) -> None:
        self.hierarchy = hierarchy
        self.fixed = fixed
        self._fetched: dict[str, Any] = {}
        self._tags: dict[str, Any] = {}

    def is_stale(self) -> bool:
        """Tell whether the store may have changed since files were fetched."""
        if self.fixed or not self._fetched:
            return False
        is_local = isinstance(self.hierarchy.store, LocalStore)
        return not is_local or self._tags != self._current_tags(self._tags)

    def _current_tags(self, paths: Iterable[str]) -> dict[str, Any]:
        """Tags of local files by path, which differ once a file changes."""
        store = self.hierarchy.store
        if self.fixed or not isinstance(store, LocalStore):
            return {}
        return {path: tag_of_file(store, self.hierarchy.key(path)) for path in paths}

    def fetch(self, paths: Sequence[str], tally: Tally | None = None) -> None:
        """Fetch the files at some paths, all at once."""
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
