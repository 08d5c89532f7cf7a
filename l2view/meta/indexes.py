"""Indexes that are stored beside the fields.

Each says how many rows it covers; what was appended since is scanned.
"""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
from numpy.typing import NDArray
from zarr.storage import LocalStore

from l2view.errors import L2ViewWarning, warn
from l2view.hierarchy import JSON, OWN, Hierarchy, join
from l2view.meta import rtree
from l2view.meta.candidates import Candidates
from l2view.meta.chunks import Chunks, fetch, tag_of_file
from l2view.meta.decode import decode
from l2view.meta.footprints import bounds
from l2view.meta.rtree import HEADER, Box
from l2view.meta.schema import Field
from l2view.meta.sorted import SortedIndex, Span
from l2view.meta.zones import Zones, from_bytes

ZONES = join(OWN, "zones")
"""The group with the zone maps, a uint8 array a field."""

TREES = "indexes"
"""The group with the R-trees, a uint8 array a field of footprints."""

FOOTPRINTS = join(OWN, "footprints")
"""The group with copies of footprints in the order of the R-tree's leaves."""

SORTED = join(OWN, "sorted")
"""The group with the sorted indexes: of each field its values in order, rows and fences."""

FENCES = ("fences/c/0", "values/zarr.json", "rows/zarr.json")
"""What a sorted index is known by, below its group."""

COVERINGS = (("xmin", "ymin", "xmax", "ymax"), ("minx", "miny", "maxx", "maxy"))
"""Names of fields that hold west, south, east and north: GeoParquet's, and GeoPandas'."""

FRACTION = 8
"""Where an index leaves more than one in so many rows, a scan is as good."""


@dataclass(frozen=True)
class Tree:
    """The R-tree of a field of footprints.

    Attributes
    ----------
    field
        The footprints.
    bytes
        Its bytes as an array.
    layout
        Where its parts lie.
    covered
        The rows that it covers, from the first.
    always
        Rows below that of which it knows nothing, ascending, int64.
    copies
        The footprints in the order of its leaves, None where there is no copy.
    ours
        Whether l2view made it, whose boxes are never smaller than the footprints.
    covering
        The fields that hold west, south, east and north of each footprint, if any do.
    """

    field: Field
    bytes: Field
    layout: rtree.Layout
    covered: int
    always: NDArray[np.int64]
    copies: Field | None
    ours: bool
    covering: tuple[str, ...]

    def candidates(
        self,
        chunks: Chunks,
        boxes: Sequence[Box],
        *,
        filled: bool = False,
        with_covering: bool = False,
    ) -> Candidates | None:
        """Return the rows whose footprints may meet one of `boxes`.

        None where they are too many for the index to be of use. Where the boxes are `filled`,
        those in them certainly do.
        """

        def read(spans: Sequence[tuple[int, int]]) -> list[NDArray[np.uint8]]:
            return read_bytes(chunks, self.bytes, spans)

        wanted = boxes if self.ours else rtree.widened(boxes, self.layout.dtype)
        leaves = rtree.search(self.layout, read, wanted, self.covered // FRACTION)
        if leaves is None:
            return None
        leaves = leaves[np.argsort(leaves.rows)]
        leaves = leaves[leaves.rows < self.covered]
        columns: dict[str, pa.Array] = {}
        if self.copies is not None and not len(self.always):
            copies = _values_at(chunks, self.copies, leaves.places)
            columns[self.field.name] = copies
            if with_covering:
                corners = bounds(copies, self.field) + 0.0  # which makes 0.0 of -0.0
                columns |= zip(self.covering, map(pa.array, corners.T), strict=True)
        said = (f"R-tree of {self.field.name}",)
        every = np.union1d(leaves.rows, self.always)
        sure = rtree.within(leaves.corners, boxes) & (filled and self.ours)
        certain = leaves.rows[sure]
        certain = np.setdiff1d(certain, self.always, assume_unique=True)
        return Candidates(every, self.covered, columns, said=said, certain=certain)


def read_bytes(
    chunks: Chunks, array: Field, spans: Sequence[tuple[int, int]]
) -> list[NDArray[np.uint8]]:
    """Return the bytes between starts and stops of a uint8 array, its chunks read together."""
    size = array.chunk_length
    numbers = sorted({n for a, b in spans for n in range(a // size, -(-b // size))})
    read = chunks.read([(array, number) for number in numbers], scanned=False)
    parts = {n: np.asarray(part) for n, part in zip(numbers, read, strict=True)}
    found = []
    for start, stop in spans:
        inside = range(start // size, -(-stop // size))
        whole = parts[inside[0]]
        if len(inside) > 1:
            whole = np.concatenate([parts[number] for number in inside])
        first = inside[0] * size
        found.append(whole[start - first : stop - first])
    return found


def _values_at(chunks: Chunks, field: Field, places: NDArray[np.int64]) -> pa.Array:
    """Return a field's values at places in any order."""
    if not len(places):
        return pa.array([], field.type)
    order = np.argsort(places)
    ascending = places[order]
    numbers, firsts = np.unique(ascending // field.chunk_length, return_index=True)
    read = chunks.read([(field, number) for number in numbers.tolist()], scanned=False)
    inside = np.split(ascending % field.chunk_length, firsts[1:])
    parts = [chunk.take(pa.array(some)) for chunk, some in zip(read, inside, strict=True)]
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return pa.concat_arrays(parts).take(pa.array(back))


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
        self._trees: dict[str, Tree | None] = {}
        self._sorted: dict[str, SortedIndex | None] = {}
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

    def _fetch(self, paths: Sequence[str]) -> None:
        new = [path for path in paths if path not in self._fetched]
        self._tags |= self._now(new)
        found = fetch(self.hierarchy.store, [self.hierarchy.key(path) for path in new])
        self._fetched.update(zip(new, found, strict=True))

    def prefetch(self, fields: Sequence[Field]) -> None:
        """Ask for what says which indexes some fields have, all at once."""
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
            self._fetch(paths)

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

    def tree(self, field: Field) -> Tree | None:
        """Return the R-tree of a field of footprints, None where none is stored."""
        with self._lock:
            if field.name not in self._trees:
                self._trees[field.name] = self._tree(field)
            return self._trees[field.name]

    def _tree(self, field: Field) -> Tree | None:
        array = self._array(join(TREES, field.name), pa.uint8())
        if array is None or array.length < HEADER.size:
            return None
        try:
            start = self._bytes(join(TREES, field.name, "c/0"))
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
        always = np.array(known.get("always", ()), dtype=np.int64)
        copies = self._array(join(FOOTPRINTS, field.name), field.type, field)
        if copies is not None and copies.length != said.items:
            copies = None
        covering = tuple(known.get("covering", ()))
        return Tree(field, array, said, rows, always, copies, _is_outward(known), covering)

    def sorted(self, field: Field) -> SortedIndex | None:
        """Return the sorted index of a field, None where none is stored."""
        with self._lock:
            if field.name not in self._sorted:
                with _aside(f"the sorted index of {field.name}"):
                    self._sorted[field.name] = None
                    self._sorted[field.name] = self._in_order(field)
            return self._sorted[field.name]

    def _in_order(self, field: Field) -> SortedIndex | None:
        path = join(SORTED, field.name)
        said = self._bytes(join(path, "fences/c/0"))
        if said is None:
            return None
        table = pa.ipc.open_stream(said).read_all()
        known = json.loads(table.schema.metadata[OWN.encode()])
        values = self._array(join(path, "values"), field.type)
        rows = self._array(join(path, "rows"), pa.int64())
        fences = table.column("fences").combine_chunks()
        if values is None or rows is None or fences.type != field.type:
            return None
        always = np.array(known["always"], dtype=np.int64)
        covered = min(int(known["rows"]), field.length)
        return SortedIndex(field, values, rows, fences, covered, always)

    def among(self, field: Field, spans: Sequence[Span], chunks: Chunks) -> Candidates | None:
        """Return the rows whose value of a field may lie in one of `spans`.

        None where no index tells, or they are too many for it to be of use.
        """
        index = self.sorted(field)
        found = None if index is None else index.find(chunks, spans, index.covered // FRACTION)
        if index is None or found is None:
            return None
        rows, values = found
        inside = rows < index.covered
        rows, values = rows[inside], values.filter(pa.array(inside))
        columns = {} if len(index.always) else {field.name: values}
        said = (f"sorted index of {field.name}",)
        return Candidates(np.union1d(rows, index.always), index.covered, columns, said=said)

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
