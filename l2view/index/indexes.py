"""Indexes that are stored beside the fields.

Each says how many rows it covers; what was appended since is scanned.
"""

from __future__ import annotations

import json
import struct
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
from numpy.typing import NDArray
from zarr.storage import LocalStore

from l2view.errors import L2ViewWarning, warn
from l2view.index import rtree
from l2view.index.candidates import Candidates
from l2view.index.rtree import HEADER
from l2view.index.sorted import SortedIndex, SortedIndexes, Span
from l2view.index.trees import Tree, Trees
from l2view.meta.chunks import Chunks, Tally, fetch, tag_of_file
from l2view.meta.decode import decode
from l2view.meta.schema import Field
from l2view.meta.zones import Zones, from_bytes
from l2view.stores.hierarchy import JSON, OWN, Hierarchy, join

ZONES = join(OWN, "zones")
"""The group with the zone maps, a uint8 array a field."""

TREES = "indexes"
"""The group with the R-trees, a uint8 array a field of footprints."""

FOOTPRINTS = join(OWN, "footprints")
"""The group with copies of footprints in the order of the R-tree's leaves."""

LATER = join(OWN, "later")
"""The group with the R-trees and sorted indexes of rows that came later: of each field those of
consecutive rows, named by the first."""

SORTED = join(OWN, "sorted")
"""The group with the sorted indexes: of each field its values in order, rows and fences."""

FENCES = ("fences/c/0", "values/zarr.json", "rows/zarr.json")
"""What a sorted index is known by, below its group."""

COVERINGS = (("xmin", "ymin", "xmax", "ymax"), ("minx", "miny", "maxx", "maxy"))
"""Names of fields that hold west, south, east and north: GeoParquet's, and GeoPandas'."""


def later(known: JSON) -> list[range]:
    """Return the rows of each index that covers rows that came later, by what is said of one."""
    return [range(*rows) for rows in known.get("later", ())]


def _always(known: JSON) -> NDArray[np.int64]:
    """Return the rows of which indexes know nothing."""
    return np.array(known.get("always", ()), dtype=np.int64)


def is_ours(document: JSON) -> bool:
    """Return whether the document of an R-tree is that of one that l2view made."""
    return _is_outward((document.get("attributes") or {}).get(OWN) or {})


def _is_outward(known: JSON) -> bool:
    return known.get("outward") is True


@contextmanager
def _aside(what: str) -> Iterator[None]:
    """Leave aside an index that can't be read; a search does without."""
    try:
        yield
    except (pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
        text = f"{what} can't be read and is left aside ({error!r}); make it again: l2view index"
        warn(text, L2ViewWarning)


class Indexes:
    """The indexes of a collection.

    Parameters
    ----------
    hierarchy
        Its store.
    fixed
        Whether nothing in the store ever changes.
    """

    def __init__(self, hierarchy: Hierarchy, *, fixed: bool = False) -> None:
        self.hierarchy = hierarchy
        self.fixed = fixed
        self._lock = threading.RLock()
        self._forget()

    def _forget(self) -> None:
        self._zones: dict[str, Zones | None] = {}
        self._trees: dict[str, Trees | None] = {}
        self._sorted: dict[str, SortedIndexes | None] = {}
        self.runs: dict[tuple[Any, ...], pads.Dataset] = {}
        """What zone maps tell of runs of rows, by the runs and the fields."""
        self._fetched: dict[str, Any] = {}
        self._tags: dict[str, Any] = {}

    def __getstate__(self) -> tuple[Hierarchy, bool]:
        return self.hierarchy, self.fixed

    def __setstate__(self, state: tuple[Hierarchy, bool]) -> None:
        self.__init__(state[0], fixed=state[1])  # type: ignore[misc]

    def refresh(self) -> None:
        """Forget what may be others in the store by now."""
        store = self.hierarchy.store
        with self._lock:
            if self.fixed or not self._fetched:
                return
            if not isinstance(store, LocalStore) or self._tags != self._now(self._tags):
                self._forget()

    def _now(self, paths: Iterable[str]) -> dict[str, Any]:
        """Return what tells whether local files are what they were, by path."""
        store = self.hierarchy.store
        if self.fixed or not isinstance(store, LocalStore):
            return {}
        return {path: tag_of_file(store, self.hierarchy.key(path)) for path in paths}

    def _fetch(self, paths: Sequence[str], tally: Tally | None = None) -> None:
        new = [path for path in paths if path not in self._fetched]
        if not new:
            return
        began = time.perf_counter()
        self._tags |= self._now(new)
        found = fetch(self.hierarchy.store, [self.hierarchy.key(path) for path in new])
        if tally is not None:
            tally.count_fetched(began, found)
        self._fetched.update(zip(new, found, strict=True))

    def prefetch(self, fields: Sequence[Field], tally: Tally) -> None:
        """Ask for what says which indexes some fields have, all at once, and count that."""
        paths = []
        for field in fields:
            paths.append(join(ZONES, field.name, "c/0"))
            if field.geometry is None:
                path = join(SORTED, field.name)
                paths += [join(path, name) for name in FENCES]
            else:
                tree = join(TREES, field.name)
                paths += [f"{tree}/zarr.json", f"{tree}/c/0"]
                paths.append(join(FOOTPRINTS, field.name, "zarr.json"))
        with self._lock:
            self._fetch(paths, tally)

    def _bytes(self, path: str) -> Any:
        """Return what is at `path` in the store, None where there is nothing."""
        self._fetch([path])
        return self._fetched[path]

    def zones(self, field: Field) -> Zones | None:
        """Return the zone map of a field, None where none is stored."""
        with self._lock:
            if field.name not in self._zones:
                said = self._bytes(join(ZONES, field.name, "c/0"))
                with _aside(f"the zone map of {field.name}"):
                    self._zones[field.name] = None
                    if said is not None:
                        self._zones[field.name] = from_bytes(field, bytes(said))
            return self._zones[field.name]

    def tree(self, field: Field) -> Trees | None:
        """Return the R-trees of a field of footprints, None where none is stored."""
        with self._lock:
            if field.name not in self._trees:
                self._trees[field.name] = self._all_trees(field)
            return self._trees[field.name]

    def _all_trees(self, field: Field) -> Trees | None:
        first = self._tree(field, join(TREES, field.name), join(FOOTPRINTS, field.name), 0)
        if first is None:
            return None
        tree, known = first
        places = {rows: join(LATER, field.name, str(rows.start)) for rows in later(known)}
        names = ("tree/zarr.json", "tree/c/0", "footprints/zarr.json")
        self._fetch([join(path, name) for path in places.values() for name in names])
        parts = [tree]
        for rows, path in places.items():
            part = self._tree(field, join(path, "tree"), join(path, "footprints"), rows.start)
            whole = part is not None and len(part[0].rows) >= len(rows)
            if part is None or not whole or rows.start != parts[-1].rows.stop:
                break  # what isn't covered is scanned
            parts.append(replace(part[0], rows=rows))
        return Trees(tuple(parts), _always(known))

    def _tree(self, field: Field, path: str, copied: str, first: int) -> tuple[Tree, JSON] | None:
        """Return the R-tree of the rows from `first`, and what is said of it."""
        array = self._array(path, pa.uint8())
        if array is None or array.length < HEADER.size:
            return None
        try:
            start = self._bytes(join(path, "c/0"))
            if start is None:  # what is written last
                return None
            said = rtree.layout(np.asarray(decode(array, start)[: HEADER.size]).tobytes())
        except (ValueError, struct.error):  # somebody else's index of another kind
            return None
        if said.dtype.kind != "f":  # of which nobody knows how they were rounded
            return None
        known: JSON = array.attributes.get(OWN) or {}
        rows = min(int(known.get("rows", said.items)), said.items)
        # More leaves than rows: rows were deleted by someone who left the tree as it was.
        if said.nbytes != array.length or (said.items > field.length and "rows" not in known):
            return None
        copies = self._array(copied, field.type, field)
        if copies is not None and copies.length != said.items:
            copies = None
        covered, covering = range(first, first + rows), tuple(known.get("covering", ()))
        tree = Tree(field, array, said, covered, copies, _is_outward(known), covering)
        return tree, known

    def sorted(self, field: Field) -> SortedIndexes | None:
        """Return the sorted indexes of a field, None where none is stored."""
        with self._lock:
            if field.name not in self._sorted:
                with _aside(f"the sorted index of {field.name}"):
                    self._sorted[field.name] = None
                    self._sorted[field.name] = self._all_sorted(field)
            return self._sorted[field.name]

    def _all_sorted(self, field: Field) -> SortedIndexes | None:
        first = self._in_order(field, join(SORTED, field.name), 0)
        if first is None:
            return None
        index, known = first
        places = {rows: join(LATER, field.name, str(rows.start)) for rows in later(known)}
        self._fetch([join(path, name) for path in places.values() for name in FENCES])
        parts = [index]
        for rows, path in places.items():
            part = self._in_order(field, path, rows.start)
            whole = part is not None and part[0].covered.stop >= rows.stop
            if part is None or not whole or rows.start != parts[-1].covered.stop:
                break  # what isn't covered is scanned
            parts.append(replace(part[0], covered=rows))
        return SortedIndexes(tuple(parts), _always(known))

    def _in_order(self, field: Field, path: str, first: int) -> tuple[SortedIndex, JSON] | None:
        """Return the sorted index of the rows from `first`, and what is said of it."""
        said = self._bytes(join(path, "fences/c/0"))
        if said is None:
            return None
        table = pa.ipc.open_stream(said).read_all()
        known: JSON = json.loads(table.schema.metadata[OWN.encode()])
        values = self._array(join(path, "values"), field.type)
        rows = self._array(join(path, "rows"), pa.int64())
        fences = table.column("fences").combine_chunks()
        if values is None or rows is None or fences.type != field.type:
            return None
        covered = range(first, min(int(known["rows"]), field.length))
        return SortedIndex(field, values, rows, fences, covered), known

    def among(self, field: Field, spans: Sequence[Span], chunks: Chunks) -> Candidates | None:
        """Return the rows whose value of a field may lie in one of `spans`.

        None where no index tells, or they are too many for it to be of use.
        """
        index = self.sorted(field)
        return None if index is None else index.candidates(chunks, spans)

    def _array(self, path: str, kind: pa.DataType, like: Field | None = None) -> Field | None:
        """Return an array as if it were a field, None where there is none of this type."""
        said = self._bytes(join(path, "zarr.json"))
        document = None if said is None else json.loads(bytes(said))
        if document is None or document["node_type"] != "array" or len(document["shape"]) != 1:
            return None
        if kind == pa.uint8() and document["data_type"] != "uint8":
            return None
        return Field(
            name=path,
            path=self.hierarchy.key(path),
            document=document,
            type=kind,
            nulls=() if like is None else like.nulls,
            geometry=None if like is None else like.geometry,
        )
