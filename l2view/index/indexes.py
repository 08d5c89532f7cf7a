"""Indexes that are stored beside the fields.

Each says how many rows it covers; what was appended since is scanned.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads

from l2view.errors import L2ViewWarning, warn
from l2view.index.files import IndexFiles
from l2view.index.sorted import SortedIndexes, read_sorted
from l2view.index.storage import ZONES
from l2view.index.trees import Trees, read_trees
from l2view.meta.chunks import Tally
from l2view.meta.schema import Field
from l2view.meta.zones import Zones, from_bytes
from l2view.stores.hierarchy import Hierarchy, join


class Indexes:
    """The indexes of a collection, read when they are asked for; in a `fixed` one they stay."""

    def __init__(self, hierarchy: Hierarchy, *, fixed: bool = False) -> None:
        self._lock = threading.RLock()
        self._forget(hierarchy, fixed)

    def _forget(self, hierarchy: Hierarchy, fixed: bool) -> None:
        self._files = IndexFiles(hierarchy, fixed=fixed)
        self._loaded: dict[tuple[str, str], Any] = {}
        self.runs: dict[tuple[Any, ...], pads.Dataset] = {}
        """What zone maps tell of runs of rows, by the runs and the fields."""

    def __reduce__(self) -> tuple[Callable[[], Indexes], tuple[()]]:
        return partial(Indexes, self._files.hierarchy, fixed=self._files.fixed), ()

    def refresh(self) -> None:
        """Forget what may be others in the store by now."""
        with self._lock:
            if self._files.is_stale():
                self._forget(self._files.hierarchy, self._files.fixed)

    def prefetch(self, fields: Sequence[Field], tally: Tally) -> None:
        """Fetch what says which indexes some fields have, all at once, and count that."""
        with self._lock:
            self._files.prefetch(fields, tally)

    def zones(self, field: Field) -> Zones | None:
        """Return the zone map of a field, None where none is stored."""
        return self._load("zone map", field, _read_zones)

    def tree(self, field: Field) -> Trees | None:
        """Return the R-trees of a field of footprints, None where none is stored."""
        return self._load("R-tree", field, read_trees)

    def sorted_index(self, field: Field) -> SortedIndexes | None:
        """Return the sorted indexes of a field, None where none is stored."""
        return self._load("sorted index", field, read_sorted)

    def _load[T](
        self, kind: str, field: Field, read: Callable[[IndexFiles, Field], T | None]
    ) -> T | None:
        with self._lock:
            if (kind, field.name) not in self._loaded:
                self._loaded[kind, field.name] = None
                try:
                    self._loaded[kind, field.name] = read(self._files, field)
                except (pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:  # do without
                    warn(
                        f"the {kind} of {field.name} can't be read and is left aside "
                        f"({error!r}); make it again: l2view index",
                        L2ViewWarning,
                    )
            index: T | None = self._loaded[kind, field.name]
            return index


def _read_zones(files: IndexFiles, field: Field) -> Zones | None:
    buffer = files.read(join(ZONES, field.name, "c/0"))
    return None if buffer is None else from_bytes(field, bytes(buffer))
