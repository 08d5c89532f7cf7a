"""Where indexes lie in a store, the metadata of each, and how both are written.

They are written with the rows, in one commit, so that no index describes rows that aren't
stored.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from l2view.arrays.quiet import QUIET
from l2view.limits import limits
from l2view.meta.chunks import Chunks, fetch
from l2view.meta.schema import Field
from l2view.meta.zones import chunks_of, to_ipc
from l2view.stores.hierarchy import (
    JSON,
    OWN,
    Hierarchy,
    group_document,
    join,
    put_documents,
    put_values,
)

ZONES = join(OWN, "zones")  # the group with the zone maps, a uint8 array a field
TREES = "indexes"  # the group with the R-trees, a uint8 array a field of footprints

FOOTPRINTS = join(OWN, "footprints")
"""The group with copies of footprints in the order of the R-tree's leaves."""

SEGMENTS = join(OWN, "later")
"""The group with the later segments of R-trees and sorted indexes: of each field those of
consecutive rows, named by their first row."""

SORTED = join(OWN, "sorted")
"""The group with the sorted indexes: of each field its values in order, rows and fences."""

REWRITE_MARKER = join(OWN, "rewritten")
"""An array of bytes that change whenever rows are rewritten or an index is built."""

MARKER_BYTES = 8

MAX_UNINDEXED = 10_000  # the most rows that an index may leave out

type Progress = Callable[[int], None]
"""Called with the number of rows of a field that were processed."""


def segment_path(field: Field, begin: int) -> str:
    """Path of the segment of a field's rows from `begin`."""
    return join(SEGMENTS, field.name, str(begin))


def segment_ranges(metadata: JSON) -> list[range]:
    """Row ranges of the later segments of an index, from its metadata."""
    return [range(*rows) for rows in metadata.get("later", ())]


def chunk_values(chunks: Chunks, field: Field, begin: int) -> Iterator[tuple[int, pa.Array]]:
    """Yield the first row and the values of each chunk of a field, of the rows from `begin`."""
    for number in chunks_of(field, range(begin, field.length)):
        first_row = number * field.chunk_length
        values = chunks.read([(field, number)])[0]
        skip = max(begin - first_row, 0)
        yield first_row + skip, values[skip : field.rows_in_chunk(number)]


def bytes_document(length: int, chunk_length: int, attributes: JSON) -> JSON:
    """Make the document of an uncompressed uint8 array."""
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [length],
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [max(chunk_length, 1)]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "bytes"}],
        "attributes": attributes,
    }


def put_buffers(hierarchy: Hierarchy, buffers: Mapping[str, bytes]) -> None:
    """Write byte arrays of one chunk each, by path, their chunks last: without it there is none."""
    documents = {
        hierarchy.key(path): bytes_document(len(buffer), len(buffer), {})
        for path, buffer in buffers.items()
    }
    put_documents(hierarchy.store, documents)
    chunks = {hierarchy.key(join(path, "c/0")): buffer for path, buffer in buffers.items()}
    put_values(hierarchy.store, chunks)


def put_bytes(hierarchy: Hierarchy, path: str, data: NDArray[np.uint8], attributes: JSON) -> None:
    """Write an array of bytes in chunks, the first of them last: without it there is none."""
    put_groups(hierarchy, path)
    key, size = hierarchy.key(path), limits().index_chunk_bytes
    put_documents(hierarchy.store, {key: bytes_document(len(data), size, attributes)})
    for start in reversed(range(0, len(data), size)):
        chunk = data[start : start + size].tobytes().ljust(size, b"\0")
        put_values(hierarchy.store, {f"{key}/c/{start // size}": chunk})


def put_column(
    hierarchy: Hierarchy,
    path: str,
    kind: pa.DataType,
    columns: Iterable[pa.Array],
    *,
    shape: tuple[int, int],
    attributes: JSON | None = None,
) -> None:
    """Write an array of `shape`: its number of values, and those in a chunk.

    All of `columns` but the last are whole chunks.
    """
    is_text = pa.types.is_string(kind)
    dtype: Any = pa.array([], kind).to_numpy(zero_copy_only=False).dtype
    if dtype.kind == "O":
        dtype = "string" if is_text else "variable_length_bytes"
    length, chunk_length = shape
    put_groups(hierarchy, path)
    with QUIET:  # of dtypes without a v3 specification
        array = zarr.create_array(
            hierarchy.store,
            name=hierarchy.key(path),
            shape=(length,),
            chunks=(chunk_length,),
            dtype=dtype,
            attributes=attributes or {},
        )
        start = 0
        for column in columns:
            for offset in range(0, len(column), chunk_length):
                chunk = column[offset : offset + chunk_length].to_numpy(zero_copy_only=False)
                stop = start + len(chunk)
                array[start:stop] = chunk.astype(np.dtypes.StringDType()) if is_text else chunk
                start = stop


def put_groups(hierarchy: Hierarchy, path: str) -> None:
    """Write the missing groups above `path`."""
    names = path.split("/")[:-1]
    for end in range(1, len(names) + 1):
        key = hierarchy.key("/".join(names[:end]))
        if sync(hierarchy.store.get(f"{key}/zarr.json", default_buffer_prototype())) is None:
            put_documents(hierarchy.store, {key: group_document({})})


def remove(hierarchy: Hierarchy, path: str) -> None:
    """Delete the node at `path`, if there is one."""
    above, _, name = hierarchy.key(path).rpartition("/")
    if sync(hierarchy.read(path)) is not None:
        del zarr.open_group(hierarchy.store, path=above, mode="r+")[name]


def put_fences(hierarchy: Hierarchy, path: str, fences: pa.Table, metadata: JSON) -> None:
    """Write the fences of a sorted index, with its metadata."""
    buffer = to_ipc(fences, {OWN: json.dumps(metadata)})
    put_buffers(hierarchy, {join(path, "fences"): buffer})


def read_fences(buffer: Any) -> tuple[pa.Table, JSON]:
    """Read the fences of a sorted index, and its metadata."""
    table = pa.ipc.open_stream(buffer).read_all()
    return table, json.loads(table.schema.metadata[OWN.encode()])


def _stored_fences(hierarchy: Hierarchy, path: str) -> tuple[pa.Table, JSON] | None:
    (buffer,) = fetch(hierarchy.store, [hierarchy.key(join(path, "fences/c/0"))])
    return None if buffer is None else read_fences(buffer)


def _index_metadata(hierarchy: Hierarchy, path: str) -> JSON | None:
    """Read the metadata of all segments of a field from the index of its first rows at `path`."""
    if not path.startswith(f"{TREES}/"):
        stored = _stored_fences(hierarchy, path)
        return None if stored is None else stored[1]
    document = sync(hierarchy.read(path)) or {}
    if document.get("data_type") != "uint8":
        return None
    metadata: JSON | None = (document.get("attributes") or {}).get(OWN)
    return metadata or {"rows": 2**32, "always": []}


def _put_metadata(hierarchy: Hierarchy, path: str, metadata: JSON) -> None:
    """Replace the metadata in the index of the first rows at `path`."""
    if path.startswith(f"{TREES}/"):
        document = sync(hierarchy.read(path)) or {}
        changed = {**document, "attributes": {OWN: metadata}}
        put_documents(hierarchy.store, {hierarchy.key(path): changed})
    elif (stored := _stored_fences(hierarchy, path)) is not None:
        put_fences(hierarchy, path, stored[0], metadata)


def register_segment(
    hierarchy: Hierarchy, path: str, rows: range, unindexed: Sequence[int] = ()
) -> None:
    """Make `rows`, but those left out, part of the index at `path`.

    They take the place of its segments from their first row on.
    """
    name = path.rpartition("/")[2]
    if not rows.start:
        remove(hierarchy, join(SEGMENTS, name))
        return
    metadata = _index_metadata(hierarchy, path)
    assert metadata is not None
    segments = [*(old for old in segment_ranges(metadata) if old.start < rows.start), rows]
    metadata = {
        **metadata,
        "always": [*(row for row in metadata["always"] if row < rows.start), *unindexed],
        "later": [[segment.start, segment.stop] for segment in segments],
    }
    _put_metadata(hierarchy, path, metadata)
    _prune_segments(hierarchy, name, segments)


def limit_indexes(store: Store, *, rows: int | None = None, rewritten: Sequence[int] = ()) -> None:
    """Note in the indexes which rows changed, so that none gives a stale answer.

    The first `rows` are unchanged, None for all, but those that were `rewritten`.
    """
    hierarchy = Hierarchy(store)
    bump_rewrite_marker(hierarchy)
    paths = [join(group, n) for group in (TREES, SORTED) for n in sync(hierarchy.children(group))]
    for path in paths:
        metadata = _index_metadata(hierarchy, path)
        if metadata is None:
            continue
        name = path.rpartition("/")[2]
        clipped = _clip_metadata(metadata, 2**63 if rows is None else rows, rewritten)
        if clipped is None:
            remove(hierarchy, path)
            remove(hierarchy, join(SEGMENTS, name))
            continue
        _put_metadata(hierarchy, path, clipped)
        if segment_ranges(metadata):
            _prune_segments(hierarchy, name, segment_ranges(clipped))


def _clip_metadata(metadata: JSON, rows: int, rewritten: Sequence[int]) -> JSON | None:
    """Metadata of an index after a change, None where it isn't worth keeping."""
    base_rows = min(int(metadata["rows"]), rows)
    later = [[r.start, min(r.stop, rows)] for r in segment_ranges(metadata) if r.start < rows]
    stop = later[-1][1] if later else base_rows
    unindexed = sorted({row for row in [*metadata["always"], *rewritten] if row < stop})
    if base_rows == 0 or len(unindexed) > MAX_UNINDEXED:
        return None
    clipped = {**metadata, "rows": base_rows, "always": unindexed}
    return {**clipped, "later": later} if segment_ranges(metadata) else clipped


def _prune_segments(hierarchy: Hierarchy, name: str, retained: Sequence[range]) -> None:
    """Delete the later segments of a field but `retained`."""
    retained_names = {str(segment.start) for segment in retained}
    for begin in sync(hierarchy.children(join(SEGMENTS, name))):
        if begin not in retained_names:
            remove(hierarchy, join(SEGMENTS, name, begin))


def bump_rewrite_marker(hierarchy: Hierarchy) -> None:
    """Change the marker, so that rewriting rows and building an index conflict.

    An index that was made of rows as they were must not be committed beside others; one that
    lacks rows appended meanwhile may.
    """
    put_groups(hierarchy, REWRITE_MARKER)
    put_buffers(hierarchy, {REWRITE_MARKER: os.urandom(MARKER_BYTES)})
