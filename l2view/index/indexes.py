"""Indexes that are stored beside the fields.

Each says how many rows it covers; what was appended since is scanned.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads

from l2view.errors import L2ViewWarning, warn
from l2view.index.candidates import Candidates
from l2view.index.files import IndexFiles
from l2view.index.sorted import SortedIndexes, Span, read_sorted
from l2view.index.storage import ZONES
from l2view.index.trees import Trees, read_trees
from l2view.meta.chunks import Chunks, Tally
from l2view.meta.schema import Field
from l2view.meta.zones import Zones, from_bytes
from l2view.stores.hierarchy import Hierarchy, join


@contextmanager
def _leave_aside(description: str) -> Iterator[None]:
    """Leave aside an index that can't be read; a search does without."""
    try:
        yield
    except (pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
        advice = "make it again: l2view index"
        warn(f"{description} can't be read and is left aside ({error!r}); {advice}", L2ViewWarning)


class Indexes:
    """The indexes of a collection, read when they are asked for.

    Parameters
    ----------
    hierarchy
        Its store.
    fixed
        Whether nothing in the store ever changes.
    """

    def __init__(self, hierarchy: Hierarchy, *, fixed: bool = False) -> None:
        self._lock = threading.RLock()
        self._forget(hierarchy, fixed)

    def _forget(self, hierarchy: Hierarchy, fixed: bool) -> None:
        self._files = IndexFiles(hierarchy, fixed=fixed)
        self._loaded: dict[tuple[str, str], Any] = {}
        self.runs: dict[tuple[Any, ...], pads.Dataset] = {}
        """What zone maps tell of runs of rows, by the runs and the fields."""

    def __reduce__(self) -> tuple[Callable[..., Indexes], tuple[Hierarchy, bool]]:
        return _unpickle, (self._files.hierarchy, self._files.fixed)

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
        zones: Zones | None = self._load("zone map", field, _read_zones)
        return zones

    def tree(self, field: Field) -> Trees | None:
        """Return the R-trees of a field of footprints, None where none is stored."""
        trees: Trees | None = self._load("R-tree", field, read_trees)
        return trees

    def sorted_index(self, field: Field) -> SortedIndexes | None:
        """Return the sorted indexes of a field, None where none is stored."""
        indexes: SortedIndexes | None = self._load("sorted index", field, read_sorted)
        return indexes

    def _load(self, kind: str, field: Field, read: Callable[[IndexFiles, Field], Any]) -> Any:
        with self._lock:
            if (kind, field.name) not in self._loaded:
                self._loaded[kind, field.name] = None
                with _leave_aside(f"the {kind} of {field.name}"):
                    self._loaded[kind, field.name] = read(self._files, field)
            return self._loaded[kind, field.name]

    def rows_with_values(
        self, field: Field, spans: Sequence[Span], chunks: Chunks
    ) -> Candidates | None:
        """Return the rows whose value of a field may lie in one of `spans`.

        None where no index tells, or they are too many for it to be of use.
        """
        index = self.sorted_index(field)
        return None if index is None else index.candidates(chunks, spans)


def _unpickle(hierarchy: Hierarchy, fixed: bool) -> Indexes:
    return Indexes(hierarchy, fixed=fixed)


def _read_zones(files: IndexFiles, field: Field) -> Zones | None:
    buffer = files.read(join(ZONES, field.name, "c/0"))
    return None if buffer is None else from_bytes(field, bytes(buffer))
