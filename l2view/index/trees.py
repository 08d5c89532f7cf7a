"""The R-trees of a field of footprints: one of its first rows, others of later segments.

Beside each lie copies of its footprints in the order of its leaves, so that the results of a
search are read together.
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
from l2view.index.candidates import Candidates, candidate_rows, max_candidates
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
        The offsets of its levels and rows.
    rows
        The rows that it covers.
    copies
        The footprints in the order of its leaves, None where there is no copy.
    outward
        Whether its boxes are never smaller than the footprints, as l2view makes them.
    covering
        The fields that hold west, south, east and north of each footprint, if any do.
    """

    field: Field
    bytes: Field
    layout: rtree.Layout
    rows: range
    copies: Field | None
    outward: bool
    covering: tuple[str, ...]

    def leaves(self, chunks: Chunks, boxes: Sequence[Box], max_rows: int) -> rtree.Leaves | None:
        """Find the leaves that meet one of `boxes`, by row; None for more than `max_rows`."""

        def read(spans: Sequence[tuple[int, int]]) -> list[NDArray[np.uint8]]:
            return read_bytes(chunks, self.bytes, spans)

        query_boxes = boxes if self.outward else rtree.widen_boxes(boxes, self.layout.dtype)
        leaves = rtree.search_tree(self.layout, read, query_boxes, max_rows)
        if leaves is None:
            return None
        leaves = leaves[np.argsort(leaves.rows)]
        return leaves[leaves.rows < len(self.rows)]


@dataclass(frozen=True)
class Trees:
    """The R-trees of a field of footprints.

    Attributes
    ----------
    segments
        The trees, each of the rows after those of its predecessor.
    unindexed
        Rows that they don't index, ascending, int64.
    """

    segments: tuple[Tree, ...]
    unindexed: NDArray[np.int64]

    @property
    def tail(self) -> int:
        """The first row that no tree covers."""
        return self.segments[-1].rows.stop

    @cached_property
    def covering(self) -> tuple[str, ...]:
        """The fields that hold west, south, east and north of each footprint, if any do."""
        coverings = {tree.covering for tree in self.segments}
        return coverings.pop() if len(coverings) == 1 else ()

    def candidates(
        self,
        chunks: Chunks,
        boxes: Sequence[Box],
        *,
        filled: bool = False,
        with_covering: bool = False,
    ) -> Candidates | None:
        """Find the rows whose footprints may meet one of `boxes`.

        None where they are too many for the index to be of use. Where the boxes are `filled`,
        those in them certainly do.
        """
        max_rows = max_candidates(self.tail)
        leaves_by_tree = side_by_side(
            lambda tree: tree.leaves(chunks, boxes, max_rows), self.segments
        )
        pairs = list(zip(self.segments, leaves_by_tree, strict=True))
        row_sets = candidate_rows(
            [tree.rows for tree in self.segments],
            [None if leaves is None else tree.rows.start + leaves.rows for tree, leaves in pairs],
            max_rows,
        )
        if row_sets is None:
            return None
        is_inside = [
            np.zeros(len(tree.rows), dtype=bool)
            if leaves is None
            else rtree.within(leaves.corners, boxes) & (filled and tree.outward)
            for tree, leaves in pairs
        ]
        columns: dict[str, pa.Array] = {}
        stored_copies = [
            (tree.copies, leaves.positions)
            for tree, leaves in pairs
            if tree.copies is not None and leaves is not None
        ]
        if len(stored_copies) == len(self.segments) and not len(self.unindexed):
            copies = pa.concat_arrays(
                side_by_side(lambda copy: _values_at(chunks, *copy), stored_copies)
            )
            field = self.segments[0].field
            columns[field.name] = copies
            if with_covering:
                corners = bounds(copies, field) + 0.0  # which makes 0.0 of -0.0
                columns |= zip(self.covering, map(pa.array, corners.T), strict=True)
        pruned_by = (f"R-tree of {self.segments[0].field.name}",)
        rows, is_certain = np.concatenate(row_sets), np.concatenate(is_inside)
        if filled and columns:
            _mark_rectangles_that_meet(
                is_certain, columns[self.segments[0].field.name], self.segments[0].field, boxes
            )
        certain = np.setdiff1d(rows[is_certain], self.unindexed, assume_unique=True)
        rows = np.union1d(rows, self.unindexed)
        return Candidates(rows, self.tail, columns, pruned_by=pruned_by, certain=certain)


def _mark_rectangles_that_meet(
    is_certain: NDArray[np.bool_], footprints: pa.Array, field: Field, boxes: Sequence[Box]
) -> None:
    """Mark as certain the footprints that are rectangles and meet one of `boxes`."""
    uncertain = np.flatnonzero(~is_certain)
    remaining = footprints.take(pa.array(uncertain))
    is_certain[uncertain] = are_rectangles(remaining, field) & rtree.boxes_meet(
        bounds(remaining, field), boxes
    )


def read_bytes(
    chunks: Chunks, array: Field, spans: Sequence[tuple[int, int]]
) -> list[NDArray[np.uint8]]:
    """Read the bytes between starts and stops of a uint8 array, its chunks together."""
    size = array.chunk_length
    numbers = sorted(
        {number for begin, end in spans for number in range(begin // size, -(-end // size))}
    )
    values = chunks.read([(array, number) for number in numbers], scanned=False)
    chunk_bytes = {number: np.asarray(chunk) for number, chunk in zip(numbers, values, strict=True)}
    slices = []
    for start, stop in spans:
        inside = range(start // size, -(-stop // size))
        buffer = chunk_bytes[inside[0]]
        if len(inside) > 1:
            buffer = np.concatenate([chunk_bytes[number] for number in inside])
        offset = inside[0] * size
        slices.append(buffer[start - offset : stop - offset])
    return slices


def _values_at(chunks: Chunks, field: Field, positions: NDArray[np.int64]) -> pa.Array:
    """Read a field's values at positions in any order."""
    if not len(positions):
        return pa.array([], field.type)
    order = np.argsort(positions)
    ascending = positions[order]
    numbers, starts = np.unique(ascending // field.chunk_length, return_index=True)
    values = chunks.read([(field, number) for number in numbers.tolist()], scanned=False)
    inside = np.split(ascending % field.chunk_length, starts[1:])
    pieces = [chunk.take(pa.array(offsets)) for chunk, offsets in zip(values, inside, strict=True)]
    inverse = np.empty_like(order)
    inverse[order] = np.arange(len(order))
    return pa.concat_arrays(pieces).take(pa.array(inverse))


def read_trees(files: IndexFiles, field: Field) -> Trees | None:
    """Read the R-trees of a field of footprints, None where none is stored."""
    base = _read_tree(files, field, 0)
    if base is None:
        return None
    tree, metadata = base
    paths = {rows: segment_path(field, rows.start) for rows in segments(metadata)}
    names = ("tree/zarr.json", "tree/c/0", "footprints/zarr.json")
    files.fetch([join(path, name) for path in paths.values() for name in names])
    trees = [tree]
    for rows in paths:
        segment = _read_tree(files, field, rows.start)
        is_complete = segment is not None and len(segment[0].rows) >= len(rows)
        if segment is None or not is_complete or rows.start != trees[-1].rows.stop:
            break  # what isn't covered is scanned
        trees.append(replace(segment[0], rows=rows))
    return Trees(tuple(trees), unindexed_rows(metadata))


def _paths(field: Field, first_row: int) -> tuple[str, str]:
    """Paths of the R-tree of the rows from `first_row`, and of its copies."""
    if not first_row:
        return join(TREES, field.name), join(FOOTPRINTS, field.name)
    segment = segment_path(field, first_row)
    return join(segment, "tree"), join(segment, "footprints")


def _read_tree(files: IndexFiles, field: Field, first_row: int) -> tuple[Tree, JSON] | None:
    """Read the R-tree of the rows from `first_row`, and its metadata."""
    path, copies_path = _paths(field, first_row)
    array = files.array(path, pa.uint8())
    if array is None or array.length < rtree.HEADER.size:
        return None
    try:
        head = files.read(join(path, "c/0"))
        if head is None:  # what is written last
            return None
        layout = rtree.layout(np.asarray(decode(array, head)[: rtree.HEADER.size]).tobytes())
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
    rows_covered = range(first_row, first_row + rows)
    outward = metadata.get("outward") is True
    return Tree(field, array, layout, rows_covered, copies, outward, covering), metadata


def is_ours(document: JSON) -> bool:
    """Tell by its document whether l2view made an R-tree."""
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
        The first row that it covers; it covers all from there on.

    Returns
    -------
    list of int
        The rows that it doesn't index.

    Raises
    ------
    IngestError
        Where too many values aren't footprints for an index.
    """
    chunks = Chunks(hierarchy.store)
    unbounded_rows: list[NDArray[np.int64]] = []
    nbytes = 0

    def blocks() -> Iterator[NDArray[np.float32]]:
        nonlocal nbytes
        for first_row, values in chunk_values(chunks, field, begin):
            corners = bounds(values, field)
            unbounded = np.flatnonzero(np.isinf(corners).any(axis=1))
            unbounded_rows.append(first_row + unbounded)
            # What could be anywhere would spoil the order of all others.
            corners[unbounded] = np.nan
            nbytes += values.nbytes
            progress(len(values))
            yield rtree.round_outward(corners)

    tree = rtree.build(blocks(), field.length - begin)
    unindexed = np.concatenate(unbounded_rows) if unbounded_rows else np.empty(0, dtype=np.int64)
    _check_unindexed(unindexed, field)
    rows = begin + rtree.leaf_rows(tree)
    path, copies_path = _paths(field, begin)
    # Where no commit holds them together, an old tree must not be read with new copies.
    remove(hierarchy, path)
    _put_copies(hierarchy, chunks, field, copies_path, rows, nbytes)
    metadata = {
        "rows": len(rows),
        "always": unindexed.tolist(),
        "outward": True,
        "covering": list(covering_of(hierarchy, field, begin)),
    }
    put_bytes(hierarchy, path, tree, {OWN: metadata})
    if not begin:
        remove(hierarchy, join(SEGMENTS, field.name))
    return list(unindexed.tolist())


def _check_unindexed(unindexed: NDArray[np.int64], field: Field) -> None:
    if len(unindexed) > MAX_UNINDEXED:
        raise IngestError(
            f'too many values of the field "{field.name}" aren\'t footprints for an index, '
            f"{len(unindexed):,}; the first is that of idx {unindexed[0]}"
        )


def covering_of(hierarchy: Hierarchy, field: Field, begin: int = 0) -> tuple[str, ...]:
    """Find the fields that hold west, south, east and north of footprints, if any do.

    As in GeoParquet 1.1 ("covering"), under one of the usual names, of all rows from `begin`.
    """
    fields = {column.name: column for column in sync(read_fields(hierarchy, META))[0]}
    for names in COVERINGS:
        if not all(name in fields and fields[name].type == pa.float64() for name in names):
            continue
        columns = [field, *(fields[name] for name in names)]
        reader = RowReader(Chunks(hierarchy.store), {column.name: column for column in columns})
        if all(
            _is_covering(reader.read([(run, None)], [field.name, *names])[0], field)
            for run in row_runs(reader.fields, begin)
        ):
            return names
    return ()


def _is_covering(batch: pa.RecordBatch, field: Field) -> bool:
    """Tell whether the columns after the first are the bounds of its footprints."""
    footprints, *columns = batch.columns
    corners = np.stack([column.to_numpy(zero_copy_only=False) for column in columns], axis=1)
    return bool(np.array_equal(corners, bounds(footprints, field), equal_nan=True))


def _put_copies(
    hierarchy: Hierarchy,
    chunks: Chunks,
    field: Field,
    path: str,
    rows: NDArray[np.int64],
    nbytes: int,
) -> None:
    """Write footprints in the order `rows`, in blocks that fit in memory."""
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
    block_count = max(1, -(-nbytes // limits().copy_bytes))
    step = -(-len(rows) // block_count // chunk_rows) * chunk_rows or chunk_rows
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        order = np.argsort(block)
        ascending = block[order]
        pieces = []
        for first_row, values in chunk_values(chunks, field, int(ascending[0])):
            low, high = np.searchsorted(ascending, (first_row, first_row + len(values)))
            if low < high:
                pieces.append(values.take(pa.array(ascending[low:high] - first_row)))
        inverse = np.empty_like(order)
        inverse[order] = np.arange(len(order))
        column = pa.chunked_array(pieces).cast(pa.large_binary() if binary else pa.large_string())
        values = column.combine_chunks().take(pa.array(inverse)).fill_null(b"" if binary else "")
        for offset in range(0, len(values), chunk_rows):
            chunk = values[offset : offset + chunk_rows].to_numpy(zero_copy_only=False)
            if not binary:
                chunk = chunk.astype(np.dtypes.StringDType())
            array[start + offset : start + offset + len(chunk)] = chunk
