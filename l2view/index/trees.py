"""The R-trees of a field of footprints: one of its first rows, others of later segments.

Beside each lie copies of its footprints in the order of its leaves, so that the results of a
search are read together.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from zarr.core.sync import sync

from l2view.errors import IngestError
from l2view.index import rtree, storage
from l2view.index.candidates import Candidates
from l2view.index.indexes import Indexes
from l2view.index.rtree import Box, Records
from l2view.index.segments import Matches, Segment, Segments, read_segments
from l2view.index.storage import Progress
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
class Tree(Segment):
    """The R-tree of some consecutive rows of a field of footprints."""

    bytes: Field  # its bytes as an array
    layout: rtree.Layout  # the offsets of its levels and rows
    copies: Field | None  # the footprints in the order of its leaves, None where there is no copy
    outward: bool  # whether its boxes are never smaller than the footprints, as l2view makes them
    # The fields that hold west, south, east and north of each footprint, if any do.
    covering: tuple[str, ...]

    def find(
        self, chunks: Chunks, boxes: Sequence[Box], max_rows: int, *, filled: bool
    ) -> Matches | None:
        """Find the rows whose footprints may meet one of `boxes`; None for more than `max_rows`.

        Where the boxes are `filled`, those in them certainly do, and so do rectangles.
        """
        read = partial(_read_records, chunks, self.bytes)
        query_boxes = boxes if self.outward else rtree.widen_boxes(boxes, self.layout.dtype)
        leaves = rtree.search_tree(self.layout, read, query_boxes, max_rows)
        if leaves is None:
            return None
        leaves = leaves[np.argsort(leaves.rows)]
        leaves = leaves[leaves.rows < len(self.rows)]
        is_certain = rtree.within(leaves.corners, boxes) & (filled and self.outward)
        values = None
        if self.copies is not None:
            values = _values_at(chunks, self.copies, leaves.positions)
            if filled:
                uncertain = np.flatnonzero(~is_certain)
                remaining = values.take(pa.array(uncertain))
                meets = rtree.boxes_meet(bounds(remaining, self.field), boxes)
                is_certain[uncertain] = are_rectangles(remaining, self.field) & meets
        return Matches(self.rows.start + leaves.rows, values, is_certain)


class Trees(Segments[Tree]):
    """The R-trees of a field of footprints."""

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
        """Find the rows whose footprints may meet one of `boxes` (see `Tree.find`).

        None where they are too many for the index to be of use.
        """
        most = self.max_candidates
        candidates = self.combine(
            "R-tree",
            side_by_side(lambda tree: tree.find(chunks, boxes, most, filled=filled), self.segments),
        )
        if candidates is None or not with_covering or not candidates.columns:
            return candidates
        footprints = candidates.columns[self.field.name]
        corners = bounds(footprints, self.field) + 0.0  # which makes 0.0 of -0.0
        named = zip(self.covering, map(pa.array, corners.T), strict=True)
        return replace(candidates, columns={**candidates.columns, **dict(named)})


def _read_records(
    chunks: Chunks, array: Field, records: Sequence[Records]
) -> list[NDArray[np.void]]:
    """Read records of a uint8 array, its chunks together; zeros follow its end."""
    length, count = array.chunk_length, -(-array.length // array.chunk_length)
    longest = max(size for _, size, _ in records)
    is_needed = np.zeros(count + longest // length + 2, dtype=bool)
    for offset, size, numbers in records:
        starts = offset + numbers * size
        for step in (*range(0, size, length), size - 1):
            is_needed[(starts + step) // length] = True
    refs = [(array, number) for number in np.flatnonzero(is_needed[:count]).tolist()]
    data = [np.asarray(chunk) for chunk in chunks.read(refs, scanned=False)]
    buffer = np.concatenate([*data, np.zeros(longest, dtype=np.uint8)])
    # Chunks are next to each other in the buffer if they are in the array, so that records may
    # cross them.
    shifts = (np.cumsum(is_needed) - 1 - np.arange(len(is_needed))) * length
    results = []
    for offset, size, numbers in records:
        starts = offset + numbers * size
        # Each byte of the buffer begins a candidate.
        windows = np.ndarray(len(buffer) - size + 1, f"V{size}", buffer, strides=(1,))
        results.append(windows[starts + shifts[starts // length]])
    return results


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
    return pa.concat_arrays(pieces).take(pc.inverse_permutation(pa.array(order)))


def _paths(field: Field, first_row: int) -> tuple[str, str]:
    """Paths of the R-tree of the rows from `first_row`, and of its copies."""
    if not first_row:
        return join(storage.TREES, field.name), join(storage.FOOTPRINTS, field.name)
    segment = storage.segment_path(field, first_row)
    return join(segment, "tree"), join(segment, "footprints")


def _read_tree(indexes: Indexes, field: Field, first_row: int) -> tuple[Tree, JSON] | None:
    """Read the R-tree of the rows from `first_row`, and its metadata."""
    path, copies_path = _paths(field, first_row)
    array = indexes.array(path, pa.uint8())
    if array is None or array.length < rtree.HEADER.size:
        return None
    try:
        head = indexes.read(join(path, "c/0"))
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
    copies = indexes.array(copies_path, field.type, field)
    if copies is not None and copies.length != layout.items:
        copies = None
    covering = tuple(metadata.get("covering", ()))
    rows_covered = range(first_row, first_row + rows)
    outward = metadata.get("outward") is True
    return Tree(field, rows_covered, array, layout, copies, outward, covering), metadata


TREE_FILES = ("tree/zarr.json", "tree/c/0", "footprints/zarr.json")
read_trees = partial(read_segments, "R-tree", Trees, _read_tree, TREE_FILES)
"""Reads the R-trees of a field of footprints, None where none is stored."""


def is_ours(document: JSON) -> bool:
    """Tell by its document whether l2view made an R-tree."""
    metadata = (document.get("attributes") or {}).get(OWN) or {}
    return metadata.get("outward") is True


def build_tree(hierarchy: Hierarchy, field: Field, progress: Progress, begin: int = 0) -> None:
    """Write the R-tree of footprints, of all rows from `begin`, and copies of them in its order.

    An `IngestError` is raised where too many values aren't footprints for an index.
    """
    chunks = Chunks(hierarchy.store)
    unbounded_rows = [np.empty(0, dtype=np.int64)]
    nbytes = 0

    def blocks() -> Iterator[NDArray[np.float32]]:
        nonlocal nbytes
        for first_row, values in storage.chunk_values(chunks, field, begin):
            corners = bounds(values, field)
            unbounded = np.flatnonzero(np.isinf(corners).any(axis=1))
            unbounded_rows.append(first_row + unbounded)
            # What could be anywhere would spoil the order of all others.
            corners[unbounded] = np.nan
            nbytes += values.nbytes
            progress(len(values))
            yield rtree.round_outward(corners)

    tree = rtree.build(blocks(), field.length - begin)
    unindexed = np.concatenate(unbounded_rows)
    if len(unindexed) > storage.MAX_UNINDEXED:
        raise IngestError(
            f'too many values of the field "{field.name}" aren\'t footprints for an index, '
            f"{len(unindexed):,}; the first is that of idx {unindexed[0]}"
        )
    rows = begin + rtree.leaf_rows(tree)
    path, copies_path = _paths(field, begin)
    # Where no commit holds them together, an old tree must not be read with new copies.
    storage.remove(hierarchy, path)
    _put_copies(hierarchy, chunks, field, copies_path, rows, nbytes)
    metadata = {
        "rows": len(rows),
        "always": unindexed.tolist(),
        "outward": True,
        "covering": list(_covering_of(hierarchy, field, begin)),
    }
    storage.put_bytes(hierarchy, path, tree, {OWN: metadata})
    indexed = range(begin, field.length)
    storage.register_segment(
        hierarchy, join(storage.TREES, field.name), indexed, unindexed.tolist()
    )


def _covering_of(hierarchy: Hierarchy, field: Field, begin: int) -> tuple[str, ...]:
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
    storage.remove(hierarchy, path)
    is_binary, chunk_rows = pa.types.is_binary(field.type), limits().copy_chunk_rows
    block_count = max(1, -(-nbytes // limits().copy_bytes))
    step = -(-len(rows) // block_count // chunk_rows) * chunk_rows or chunk_rows

    # Without a geometry, as they are stored.
    reader = RowReader(chunks, {field.name: replace(field, geometry=None)})

    def blocks() -> Iterator[pa.Array]:
        for start in range(0, len(rows), step):
            block, runs = rows[start : start + step], row_runs(reader.fields)
            column = reader.take(block, runs, [field.name]).column(0)
            yield column.combine_chunks().fill_null(b"" if is_binary else "")

    attributes = {"order": "of the leaves of the R-tree"}
    shape = (len(rows), chunk_rows)
    storage.put_column(hierarchy, path, field.type, blocks(), shape=shape, attributes=attributes)
