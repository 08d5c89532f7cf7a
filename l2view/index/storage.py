"""Where indexes lie in a store, what each says of itself, and how both are written.

They are written with the rows, in one commit, so that none ever tells of other rows than there
are.
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
"""The group with the R-trees and sorted indexes of rows that came later: of each field those of
consecutive rows, named by the first."""

SORTED = join(OWN, "sorted")
"""The group with the sorted indexes: of each field its values in order, rows and fences."""

REWRITE_MARKER = join(OWN, "rewritten")
"""An array of bytes that are others whenever rows were rewritten, or an index was made."""

MARKER_BYTES = 8
"""The bytes in it."""

MAX_UNINDEXED = 10_000
"""The most rows that an index may know nothing of."""

type Progress = Callable[[int], None]
"""Called with the number of rows of a field that were gone through."""

GROUP: JSON = {"zarr_format": 3, "node_type": "group", "attributes": {}}


def ignore_progress(rows: int) -> None:
    """Tell nobody of progress."""


def segments(known: JSON) -> list[range]:
    """Return the rows of each index that covers rows that came later, by what is said of one."""
    return [range(*rows) for rows in known.get("later", ())]


def unindexed_rows(known: JSON) -> NDArray[np.int64]:
    """Return the rows of which indexes know nothing."""
    return np.array(known.get("always", ()), dtype=np.int64)


def segment_path(field: Field, begin: int) -> str:
    """Return where the index of rows of a field from `begin` lies."""
    return join(SEGMENTS, field.name, str(begin))


def bytes_document(length: int, chunk_length: int, attributes: JSON | None = None) -> JSON:
    """Return the document of a uint8 array that isn't compressed."""
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
        first = number * field.chunk_length
        values = chunks.read([(field, number)])[0]
        skipped = max(begin - first, 0)
        yield first + skipped, values[skipped : min(field.length - first, field.chunk_length)]


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
    """Write the groups above `path` that aren't there."""
    parts = path.split("/")[:-1]
    for end in range(1, len(parts) + 1):
        key = f"{hierarchy.key('/'.join(parts[:end]))}/zarr.json"
        if sync(hierarchy.store.get(key, default_buffer_prototype())) is None:
            put_values(hierarchy.store, {key: to_json_bytes(GROUP)})


def remove(hierarchy: Hierarchy, path: str) -> None:
    """Delete the node at `path`, if there is one."""
    above, _, name = hierarchy.key(path).rpartition("/")
    if sync(hierarchy.read(path)) is not None:
        del zarr.open_group(hierarchy.store, path=above, mode="r+")[name]


def put_fences(hierarchy: Hierarchy, path: str, fences: pa.ChunkedArray, known: JSON) -> None:
    """Write the fences of a sorted index, with what is said of it."""
    table = pa.table({"fences": fences}).replace_schema_metadata({OWN: json.dumps(known)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    said = bytes(sink.getvalue())
    key = hierarchy.key(join(path, "fences"))
    put_values(
        hierarchy.store, {f"{key}/zarr.json": to_json_bytes(bytes_document(len(said), len(said)))}
    )
    put_values(hierarchy.store, {f"{key}/c/0": said})


def read_fences(said: Any) -> pa.Table:
    """Read the fences of a sorted index, with what it says of itself."""
    return pa.ipc.open_stream(said).read_all()


def limit_indexes(store: Store, *, rows: int | None = None, rewritten: Sequence[int] = ()) -> None:
    """Say of the indexes what changed below them, so that none gives a stale answer.

    Parameters
    ----------
    store
        A writable session's store.
    rows
        The rows that are what they were, from the first; None for all.
    rewritten
        Rows that were written again.
    """
    hierarchy = Hierarchy(store)
    bump_rewrite_marker(hierarchy)
    for path in (TREES, SORTED):
        for name in sync(hierarchy.children(path)):
            known = index_metadata(hierarchy, join(path, name))
            if known is None:
                continue
            limited = _limited(known, rows, rewritten)
            if limited is None:
                remove(hierarchy, join(path, name))
                remove(hierarchy, join(SEGMENTS, name))
                continue
            put_metadata(hierarchy, join(path, name), limited)
            if segments(known):
                _remove_but(hierarchy, name, segments(limited))


def index_metadata(hierarchy: Hierarchy, path: str) -> JSON | None:
    """Return what the index of the first rows at `path` says of all of its field."""
    if path.startswith(f"{TREES}/"):
        document = sync(hierarchy.read(path)) or {}
        if document.get("data_type") != "uint8":
            return None
        known: JSON | None = (document.get("attributes") or {}).get(OWN)
        return known or {"rows": 2**32, "always": []}
    said = fetch(hierarchy.store, [hierarchy.key(join(path, "fences/c/0"))])[0]
    return (
        None if said is None else dict(json.loads(read_fences(said).schema.metadata[OWN.encode()]))
    )


def put_metadata(hierarchy: Hierarchy, path: str, known: JSON) -> None:
    """Let the index of the first rows at `path` say something else."""
    key = hierarchy.key(path)
    if path.startswith(f"{TREES}/"):
        document = sync(hierarchy.read(path)) or {}
        put_values(
            hierarchy.store,
            {f"{key}/zarr.json": to_json_bytes({**document, "attributes": {OWN: known}})},
        )
        return
    said = fetch(hierarchy.store, [f"{key}/fences/c/0"])[0]
    put_fences(hierarchy, path, read_fences(said).column("fences"), known)


def add_segment(hierarchy: Hierarchy, path: str, rows: range, always: Sequence[int]) -> None:
    """Let an index say that one of rows that came later is there, in the place of others of them.

    Parameters
    ----------
    hierarchy
        A store that can be written to.
    path
        The index of the first rows.
    rows
        The rows that the new one covers.
    always
        Those of them of which it knows nothing.
    """
    known = index_metadata(hierarchy, path)
    assert known is not None
    covered = [*(some for some in segments(known) if some.start < rows.start), rows]
    put_metadata(
        hierarchy,
        path,
        {
            **known,
            "always": [*(row for row in known["always"] if row < rows.start), *always],
            "later": [[some.start, some.stop] for some in covered],
        },
    )
    _remove_but(hierarchy, path.rpartition("/")[2], covered)


def _remove_but(hierarchy: Hierarchy, name: str, covered: Sequence[range]) -> None:
    """Delete the indexes of rows of a field that came later, but for those that are said."""
    kept = {str(some.start) for some in covered}
    for begin in sync(hierarchy.children(join(SEGMENTS, name))):
        if begin not in kept:
            remove(hierarchy, join(SEGMENTS, name, begin))


def bump_rewrite_marker(hierarchy: Hierarchy) -> None:
    """Write what whoever rewrites rows writes, and whoever makes an index: so they conflict.

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


def _limited(known: JSON, rows: int | None, rewritten: Sequence[int]) -> JSON | None:
    """Return what is said of an index after a change, None where it isn't worth keeping."""
    most = 2**63 if rows is None else rows
    first = min(int(known["rows"]), most)
    kept = [
        range(some.start, min(some.stop, most)) for some in segments(known) if some.start < most
    ]
    covered = kept[-1].stop if kept else first
    always = sorted({row for row in [*known["always"], *rewritten] if row < covered})
    if first == 0 or len(always) > MAX_UNINDEXED:
        return None
    found = {**known, "rows": first, "always": always}
    return (
        {**found, "later": [[some.start, some.stop] for some in kept]} if segments(known) else found
    )
