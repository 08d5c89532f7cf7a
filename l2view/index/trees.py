"""The R-trees of a field of footprints: one of the first rows, others of rows that came later.

Beside each lie copies of its footprints in the order of its leaves, so that those that it finds
are read together.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import NDArray
from zarr.core.sync import sync

from l2view.errors import IngestError
from l2view.index import rtree
from l2view.index.candidates import Candidates, most_of, rows_of
from l2view.index.files import IndexFiles
from l2view.index.rtree import Box
from l2view.index.storage import (
    FOOTPRINTS,
    MAX_UNINDEXED,
    SEGMENTS,
    TREES,
    Progress,
    chunk_values,
    ignore_progress,
    put_bytes,
    put_groups,
    remove,
    segment_path,
    segments,
    unindexed_rows,
)
from l2view.limits import limits
from l2view.meta.chunks import Chunks, side_by_side
from l2view.meta.decode import decode
from l2view.meta.footprints import are_rectangles, bounds
from l2view.meta.reader import RowReader, row_runs
from l2view.meta.schema import Field, read_fields
from l2view.stores.hierarchy import JSON, META, OWN, Hierarchy, join

COVERINGS = (("xmin", "ymin", "xmax", "ymax"), ("minx", "miny", "maxx", "maxy"))
"""Names of fields that hold west, south, east and north: GeoParquet's, and GeoPandas'."""


@dataclass(frozen=True)
class Tree:
    """The R-tree of some consecutive rows of a field of footprints.

    Attributes
    ----------
    field
        The footprints.
    bytes
        Its bytes as an array.
    layout
        Where its parts lie.
    rows
        The rows that it covers.
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
    rows: range
    copies: Field | None
    ours: bool
    covering: tuple[str, ...]

    def leaves(self, chunks: Chunks, boxes: Sequence[Box], most: int) -> rtree.Leaves | None:
        """Return what meets one of `boxes`, in the order of the rows; None for more than `most`."""

        def read(spans: Sequence[tuple[int, int]]) -> list[NDArray[np.uint8]]:
            return read_bytes(chunks, self.bytes, spans)

        wanted = boxes if self.ours else rtree.widen_boxes(boxes, self.layout.dtype)
        found = rtree.search_tree(self.layout, read, wanted, most)
        if found is None:
            return None
        found = found[np.argsort(found.rows)]
        return found[found.rows < len(self.rows)]


@dataclass(frozen=True)
class Trees:
    """The R-trees of a field of footprints.

    Attributes
    ----------
    parts
        The trees, each of the rows after those of the one before.
    unindexed
        Rows of which they know nothing, ascending, int64.
    """

    parts: tuple[Tree, ...]
    unindexed: NDArray[np.int64]

    @property
    def covered(self) -> int:
        """The rows that they cover, from the first."""
        return self.parts[-1].rows.stop

    @cached_property
    def covering(self) -> tuple[str, ...]:
        """The fields that hold west, south, east and north of each footprint, if any do."""
        first, *others = {part.covering for part in self.parts}
        return () if others else first

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
        most = most_of(self.covered)
        found = side_by_side(lambda part: part.leaves(chunks, boxes, most), self.parts)
        pairs = list(zip(self.parts, found, strict=True))
        told = [None if leaves is None else part.rows.start + leaves.rows for part, leaves in pairs]
        rows = rows_of([part.rows for part in self.parts], told, most)
        if rows is None:
            return None
        sure = [
            np.zeros(len(part.rows), dtype=bool)
            if leaves is None
            else rtree.within(leaves.corners, boxes) & (filled and part.ours)
            for part, leaves in pairs
        ]
        columns: dict[str, pa.Array] = {}
        copied = [
            (part.copies, leaves.places)
            for part, leaves in pairs
            if part.copies is not None and leaves is not None
        ]
        if len(copied) == len(self.parts) and not len(self.unindexed):
            copies = pa.concat_arrays(side_by_side(lambda one: _values_at(chunks, *one), copied))
            field = self.parts[0].field
            columns[field.name] = copies
            if with_covering:
                corners = bounds(copies, field) + 0.0  # which makes 0.0 of -0.0
                columns |= zip(self.covering, map(pa.array, corners.T), strict=True)
        said = (f"R-tree of {self.parts[0].field.name}",)
        every, known = np.concatenate(rows), np.concatenate(sure)
        if filled and columns:
            _meet(known, columns[self.parts[0].field.name], self.parts[0].field, boxes)
        certain = np.setdiff1d(every[known], self.unindexed, assume_unique=True)
        every = np.union1d(every, self.unindexed)
        return Candidates(every, self.covered, columns, pruned_by=said, certain=certain)


def _meet(
    known: NDArray[np.bool_], footprints: pa.Array, field: Field, boxes: Sequence[Box]
) -> None:
    """Add to those known to meet one of `boxes` the footprints that are rectangles and do."""
    others = np.flatnonzero(~known)
    left = footprints.take(pa.array(others))
    known[others] = are_rectangles(left, field) & rtree.boxes_meet(bounds(left, field), boxes)


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


def read_trees(files: IndexFiles, field: Field) -> Trees | None:
    """Read the R-trees of a field of footprints, None where none is stored."""
    first = _read_tree(files, field, join(TREES, field.name), join(FOOTPRINTS, field.name), 0)
    if first is None:
        return None
    tree, metadata = first
    places = {rows: segment_path(field, rows.start) for rows in segments(metadata)}
    names = ("tree/zarr.json", "tree/c/0", "footprints/zarr.json")
    files.fetch([join(path, name) for path in places.values() for name in names])
    trees = [tree]
    for rows, path in places.items():
        segment = _read_tree(files, field, join(path, "tree"), join(path, "footprints"), rows.start)
        is_complete = segment is not None and len(segment[0].rows) >= len(rows)
        if segment is None or not is_complete or rows.start != trees[-1].rows.stop:
            break  # what isn't covered is scanned
        trees.append(replace(segment[0], rows=rows))
    return Trees(tuple(trees), unindexed_rows(metadata))


def _read_tree(
    files: IndexFiles, field: Field, path: str, copies_path: str, first: int
) -> tuple[Tree, JSON] | None:
    """Read the R-tree of the rows from `first`, and what it says of itself."""
    array = files.array(path, pa.uint8())
    if array is None or array.length < rtree.HEADER.size:
        return None
    try:
        start = files.read(join(path, "c/0"))
        if start is None:  # what is written last
            return None
        layout = rtree.layout(np.asarray(decode(array, start)[: rtree.HEADER.size]).tobytes())
    except (ValueError, struct.error):  # somebody else's index of another kind
        return None
    if layout.dtype.kind != "f":  # of which nobody knows how they were rounded
        return None
    metadata: JSON = array.attributes.get(OWN) or {}
    rows = min(int(metadata.get("rows", layout.items)), layout.items)
    # More leaves than rows: rows were deleted by someone who left the tree as it was.
    is_stale = layout.items > field.length and "rows" not in metadata
    if layout.nbytes != array.length or is_stale:
        return None
    copies = files.array(copies_path, field.type, field)
    if copies is not None and copies.length != layout.items:
        copies = None
    covering = tuple(metadata.get("covering", ()))
    rows_covered = range(first, first + rows)
    ours = metadata.get("outward") is True
    return Tree(field, array, layout, rows_covered, copies, ours, covering), metadata


def is_ours(document: JSON) -> bool:
    """Return whether the document of an R-tree is that of one that l2view made."""
    metadata = (document.get("attributes") or {}).get(OWN) or {}
    return metadata.get("outward") is True


def build_tree(
    hierarchy: Hierarchy, field: Field, progress: Progress = ignore_progress, begin: int = 0
) -> list[int]:
    """Write the R-tree of a field of footprints, and their copies in its order.

    Parameters
    ----------
    hierarchy
        A store that can be written to.
    field
        The footprints.
    progress
        See `Progress`.
    begin
        The first row that it covers, to the last that there is. Those before are covered by
        others.

    Returns
    -------
    list of int
        The rows of which it knows nothing.

    Raises
    ------
    IngestError
        Where nothing can be told of too many of them.
    """
    chunks = Chunks(hierarchy.store)
    unknown: list[NDArray[np.int64]] = []
    sizes = 0

    def blocks() -> Iterator[NDArray[np.float32]]:
        nonlocal sizes
        for first, values in chunk_values(chunks, field, begin):
            corners = bounds(values, field)
            odd = np.flatnonzero(np.isinf(corners).any(axis=1))
            unknown.append(first + odd)
            # What could be anywhere would spoil the order of all others.
            corners[odd] = np.nan
            sizes += values.nbytes
            progress(len(values))
            yield rtree.round_outward(corners)

    tree = rtree.build(blocks(), field.length - begin)
    always = np.concatenate(unknown) if unknown else np.empty(0, dtype=np.int64)
    if len(always) > MAX_UNINDEXED:
        raise IngestError(
            f'too many values of the field "{field.name}" aren\'t footprints for an index, '
            f"{len(always):,}; the first is that of idx {always[0]}"
        )
    layout = rtree.layout(tree[: rtree.HEADER.size].tobytes())
    start = rtree.HEADER.size + layout.boxes * layout.width
    stop = start + layout.items * layout.row_dtype.itemsize
    rows = begin + tree[start:stop].view(layout.row_dtype).astype(np.int64)
    path, copied = join(TREES, field.name), join(FOOTPRINTS, field.name)
    if begin:
        path, copied = (join(segment_path(field, begin), name) for name in ("tree", "footprints"))
    # Where no commit holds them together, an old tree must not be read with new copies.
    remove(hierarchy, path)
    _put_copies(hierarchy, chunks, field, copied, rows, sizes)
    known = {
        "rows": len(rows),
        "always": always.tolist(),
        "outward": True,
        "covering": list(covering_of(hierarchy, field, begin)),
    }
    put_bytes(hierarchy, path, tree, {OWN: known})
    if not begin:
        remove(hierarchy, join(SEGMENTS, field.name))
    return list(always.tolist())


def covering_of(hierarchy: Hierarchy, field: Field, begin: int = 0) -> tuple[str, ...]:
    """Return the fields that hold west, south, east and north of footprints; none if none do.

    As in GeoParquet 1.1 ("covering"), under one of the usual names, of all rows from `begin`.
    """
    known = {one.name: one for one in sync(read_fields(hierarchy, META))[0]}
    for names in COVERINGS:
        if not all(name in known and known[name].type == pa.float64() for name in names):
            continue
        columns = [field, *(known[name] for name in names)]
        reader = RowReader(Chunks(hierarchy.store), {one.name: one for one in columns})
        if all(
            _is_covering(reader.read([(run, None)], [field.name, *names])[0], field)
            for run in row_runs(reader.fields, begin)
        ):
            return names
    return ()


def _is_covering(batch: pa.RecordBatch, field: Field) -> bool:
    """Return whether columns are the bounds of footprints, the first of them."""
    footprints, *columns = batch.columns
    said = np.stack([column.to_numpy(zero_copy_only=False) for column in columns], axis=1)
    return bool(np.array_equal(said, bounds(footprints, field), equal_nan=True))


def _put_copies(
    hierarchy: Hierarchy,
    chunks: Chunks,
    field: Field,
    path: str,
    rows: NDArray[np.int64],
    nbytes: int,
) -> None:
    """Write footprints in the order `rows`, as many at a time as memory allows."""
    put_groups(hierarchy, path)
    remove(hierarchy, path)
    above, _, name = path.rpartition("/")
    group = zarr.open_group(hierarchy.store, path=hierarchy.key(above), mode="a")
    binary, chunk_rows = pa.types.is_binary(field.type), limits().copy_chunk_rows
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of dtypes without a v3 specification
        array = group.create_array(
            name,
            shape=(len(rows),),
            chunks=(chunk_rows,),
            dtype="variable_length_bytes" if binary else "string",
            attributes={"order": "of the leaves of the R-tree"},
        )
    passes = max(1, -(-nbytes // limits().copy_bytes))
    step = -(-len(rows) // passes // chunk_rows) * chunk_rows or chunk_rows
    for start in range(0, len(rows), step):
        wanted = rows[start : start + step]
        order = np.argsort(wanted)
        ascending = wanted[order]
        parts = []
        for first, values in chunk_values(chunks, field, int(ascending[0])):
            low, high = np.searchsorted(ascending, (first, first + len(values)))
            if low < high:
                parts.append(values.take(pa.array(ascending[low:high] - first)))
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        there = pa.chunked_array(parts).cast(pa.large_binary() if binary else pa.large_string())
        values = there.combine_chunks().take(pa.array(back)).fill_null(b"" if binary else "")
        for at in range(0, len(values), chunk_rows):
            part = values[at : at + chunk_rows].to_numpy(zero_copy_only=False)
            if not binary:
                part = part.astype(np.dtypes.StringDType())
            array[start + at : start + at + len(part)] = part
