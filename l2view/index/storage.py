"""Where indexes lie in a store, the metadata of each, and how both are written.

They are written with the rows, in one commit, so that no index describes rows that aren't
stored.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from l2view.limits import limits
from l2view.meta.chunks import Chunks, fetch
from l2view.meta.schema import Field
from l2view.meta.zones import chunks_of
from l2view.stores.hierarchy import JSON, OWN, Hierarchy, join, put_values

ZONES = join(OWN, "zones")
"""The group with the zone maps, a uint8 array a field."""

TREES = "indexes"
"""The group with the R-trees, a uint8 array a field of footprints."""

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
"""The number of bytes in the marker."""

MAX_UNINDEXED = 10_000
"""The most rows that an index may leave out."""

type Progress = Callable[[int], None]
"""Called with the number of rows of a field that were processed."""

GROUP: JSON = {"zarr_format": 3, "node_type": "group", "attributes": {}}


def ignore_progress(rows: int) -> None:
    """Ignore progress."""


def segments(metadata: JSON) -> list[range]:
    """Row ranges of the later segments of an index, from its metadata."""
    return [range(*rows) for rows in metadata.get("later", ())]


def unindexed_rows(metadata: JSON) -> NDArray[np.int64]:
    """Rows that an index leaves out, from its metadata."""
    return np.array(metadata.get("always", ()), dtype=np.int64)


def segment_path(field: Field, begin: int) -> str:
    """Path of the segment of a field's rows from `begin`."""
    return join(SEGMENTS, field.name, str(begin))


def bytes_document(length: int, chunk_length: int, attributes: JSON | None = None) -> JSON:
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
        "attributes": attributes or {},
        "dimension_names": None,
    }


def to_json_bytes(document: JSON) -> bytes:
    """Encode a Zarr document, without what is None."""
    document = {name: value for name, value in document.items() if value is not None}
    return json.dumps(document).encode()


def chunk_values(chunks: Chunks, field: Field, begin: int = 0) -> Iterator[tuple[int, pa.Array]]:
    """Yield the first row and the values of each chunk of a field, of the rows from `begin`."""
    for number in chunks_of(field, range(begin, field.length)):
        first_row = number * field.chunk_length
        values = chunks.read([(field, number)])[0]
        skip = max(begin - first_row, 0)
        yield first_row + skip, values[skip : min(field.length - first_row, field.chunk_length)]


def put_bytes(hierarchy: Hierarchy, path: str, data: NDArray[np.uint8], attributes: JSON) -> None:
    """Write an array of bytes in chunks, the first of them last: without it there is none."""
    put_groups(hierarchy, path)
    key = hierarchy.key(path)
    chunk_bytes = limits().index_chunk_bytes
    document = bytes_document(len(data), chunk_bytes, attributes)
    put_values(hierarchy.store, {f"{key}/zarr.json": to_json_bytes(document)})
    for start in reversed(range(0, len(data), chunk_bytes)):
        chunk = data[start : start + chunk_bytes]
        if len(chunk) < chunk_bytes:
            chunk = np.pad(chunk, (0, chunk_bytes - len(chunk)))
        put_values(hierarchy.store, {f"{key}/c/{start // chunk_bytes}": chunk.tobytes()})


def put_groups(hierarchy: Hierarchy, path: str) -> None:
    """Write the missing groups above `path`."""
    names = path.split("/")[:-1]
    for end in range(1, len(names) + 1):
        key = f"{hierarchy.key('/'.join(names[:end]))}/zarr.json"
        if sync(hierarchy.store.get(key, default_buffer_prototype())) is None:
            put_values(hierarchy.store, {key: to_json_bytes(GROUP)})


def remove(hierarchy: Hierarchy, path: str) -> None:
    """Delete the node at `path`, if there is one."""
    above, _, name = hierarchy.key(path).rpartition("/")
    if sync(hierarchy.read(path)) is not None:
        del zarr.open_group(hierarchy.store, path=above, mode="r+")[name]


def put_fences(hierarchy: Hierarchy, path: str, fences: pa.ChunkedArray, metadata: JSON) -> None:
    """Write the fences of a sorted index, with its metadata."""
    table = pa.table({"fences": fences}).replace_schema_metadata({OWN: json.dumps(metadata)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    buffer = bytes(sink.getvalue())
    key = hierarchy.key(join(path, "fences"))
    put_values(
        hierarchy.store,
        {f"{key}/zarr.json": to_json_bytes(bytes_document(len(buffer), len(buffer)))},
    )
    put_values(hierarchy.store, {f"{key}/c/0": buffer})


def read_fences(buffer: Any) -> pa.Table:
    """Read the fences of a sorted index, with its metadata."""
    return pa.ipc.open_stream(buffer).read_all()


def limit_indexes(store: Store, *, rows: int | None = None, rewritten: Sequence[int] = ()) -> None:
    """Note in the indexes which rows changed, so that none gives a stale answer.

    Parameters
    ----------
    store
        A writable session's store.
    rows
        The number of first rows that are unchanged; None for all.
    rewritten
        Rows that were written again.
    """
    hierarchy = Hierarchy(store)
    bump_rewrite_marker(hierarchy)
    for path in (TREES, SORTED):
        for name in sync(hierarchy.children(path)):
            metadata = index_metadata(hierarchy, join(path, name))
            if metadata is None:
                continue
            clipped = _clip_metadata(metadata, rows, rewritten)
            if clipped is None:
                remove(hierarchy, join(path, name))
                remove(hierarchy, join(SEGMENTS, name))
                continue
            put_metadata(hierarchy, join(path, name), clipped)
            if segments(metadata):
                _prune_segments(hierarchy, name, segments(clipped))


def index_metadata(hierarchy: Hierarchy, path: str) -> JSON | None:
    """Read the metadata of all segments of a field from the index of its first rows at `path`."""
    if path.startswith(f"{TREES}/"):
        document = sync(hierarchy.read(path)) or {}
        if document.get("data_type") != "uint8":
            return None
        metadata: JSON | None = (document.get("attributes") or {}).get(OWN)
        return metadata or {"rows": 2**32, "always": []}
    buffer = fetch(hierarchy.store, [hierarchy.key(join(path, "fences/c/0"))])[0]
    return (
        None
        if buffer is None
        else dict(json.loads(read_fences(buffer).schema.metadata[OWN.encode()]))
    )


def put_metadata(hierarchy: Hierarchy, path: str, metadata: JSON) -> None:
    """Replace the metadata in the index of the first rows at `path`."""
    key = hierarchy.key(path)
    if path.startswith(f"{TREES}/"):
        document = sync(hierarchy.read(path)) or {}
        put_values(
            hierarchy.store,
            {f"{key}/zarr.json": to_json_bytes({**document, "attributes": {OWN: metadata}})},
        )
        return
    buffer = fetch(hierarchy.store, [f"{key}/fences/c/0"])[0]
    put_fences(hierarchy, path, read_fences(buffer).column("fences"), metadata)


def add_segment(hierarchy: Hierarchy, path: str, rows: range, unindexed: Sequence[int]) -> None:
    """Register a later segment of an index, in place of those from its first row on.

    Parameters
    ----------
    hierarchy
        A store that can be written to.
    path
        The index of the first rows.
    rows
        The rows that the segment covers.
    unindexed
        Those of them that it leaves out.
    """
    metadata = index_metadata(hierarchy, path)
    assert metadata is not None
    segment_rows = [
        *(segment for segment in segments(metadata) if segment.start < rows.start),
        rows,
    ]
    put_metadata(
        hierarchy,
        path,
        {
            **metadata,
            "always": [*(row for row in metadata["always"] if row < rows.start), *unindexed],
            "later": [[segment.start, segment.stop] for segment in segment_rows],
        },
    )
    _prune_segments(hierarchy, path.rpartition("/")[2], segment_rows)


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
    key = hierarchy.key(REWRITE_MARKER)
    put_groups(hierarchy, REWRITE_MARKER)
    if sync(hierarchy.read(REWRITE_MARKER)) is None:
        put_values(
            hierarchy.store,
            {f"{key}/zarr.json": to_json_bytes(bytes_document(MARKER_BYTES, MARKER_BYTES))},
        )
    put_values(hierarchy.store, {f"{key}/c/0": os.urandom(MARKER_BYTES)})


def _clip_metadata(metadata: JSON, rows: int | None, rewritten: Sequence[int]) -> JSON | None:
    """Metadata of an index after a change, None where it isn't worth keeping."""
    row_limit = 2**63 if rows is None else rows
    base_rows = min(int(metadata["rows"]), row_limit)
    clipped_segments = [
        range(segment.start, min(segment.stop, row_limit))
        for segment in segments(metadata)
        if segment.start < row_limit
    ]
    stop = clipped_segments[-1].stop if clipped_segments else base_rows
    unindexed = sorted({row for row in [*metadata["always"], *rewritten] if row < stop})
    if base_rows == 0 or len(unindexed) > MAX_UNINDEXED:
        return None
    clipped = {**metadata, "rows": base_rows, "always": unindexed}
    return (
        {**clipped, "later": [[segment.start, segment.stop] for segment in clipped_segments]}
        if segments(metadata)
        else clipped
    )
