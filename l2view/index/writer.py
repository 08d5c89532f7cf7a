"""Indexes of ``/meta``, written: all of them, or what a batch adds to them.

They are written with the rows, in one commit, so that none ever tells of other rows than there
are.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from l2view.errors import IngestError
from l2view.index.indexes import COVERINGS, FOOTPRINTS, LATER, SORTED, TREES, ZONES, Indexes, later
from l2view.index.rtree import HEADER, build, layout, outward
from l2view.meta.chunks import Chunks, fetch
from l2view.meta.decode import normalised
from l2view.meta.footprints import bounds
from l2view.meta.reader import RowReader, row_runs
from l2view.meta.schema import Field, read_fields
from l2view.meta.zones import Zone, Zones, chunks_of, is_orderable, together, zone_of, zones_of
from l2view.stores.hierarchy import JSON, META, OWN, Hierarchy, join, put_values

INDEX_CHUNK = 2**18
"""The bytes of a chunk of an index, which a search reads a few of."""

COPIES = 8_192
"""The footprints in a chunk of their copies."""

SORTED_CHUNK = 65_536
"""The values in a chunk of a sorted index."""

HELD = 2**29
"""The most bytes of footprints that are put in order at once."""

REWRITTEN = join(OWN, "rewritten")
"""An array of bytes that are others whenever rows were rewritten, or an index was made."""

MARK = 8
"""The bytes in it."""

ALWAYS = 10_000
"""The most rows that an index may know nothing of."""

type Progress = Callable[[int], None]
"""Called with the number of rows of a field that were gone through."""

GROUP: JSON = {"zarr_format": 3, "node_type": "group", "attributes": {}}


def quietly(rows: int) -> None:
    """Tell nobody of progress."""


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


def put_zones(hierarchy: Hierarchy, found: Iterable[Zones]) -> None:
    """Write zone maps."""
    documents: dict[str, bytes] = {}
    chunks: dict[str, bytes] = {}
    for zones in found:
        said = zones.to_bytes()
        path = hierarchy.key(join(ZONES, zones.field.name))
        documents[f"{path}/zarr.json"] = _json(bytes_document(len(said), len(said)))
        chunks[f"{path}/c/0"] = said
    if documents:
        _put_groups(hierarchy, join(ZONES, "field"))
    put_values(hierarchy.store, documents)
    put_values(hierarchy.store, chunks)


def _json(document: JSON) -> bytes:
    document = {name: value for name, value in document.items() if value is not None}
    return json.dumps(document).encode()


def has_zones(field: Field) -> bool:
    """Return whether a field has a zone map."""
    return field.geometry is not None or is_orderable(field.type)


def can_be_sorted(field: Field) -> bool:
    """Return whether a field can have a sorted index."""
    return is_orderable(field.type) and not pa.types.is_boolean(field.type)


def zones_from(hierarchy: Hierarchy, first: int = 0, progress: Progress = quietly) -> None:
    """Write the zone maps of the chunks that hold the row `first` and all after it.

    Parameters
    ----------
    hierarchy
        A store that can be written to.
    first
        A row; what is known of those before it is kept.
    progress
        See `Progress`.
    """
    fields, _ = sync(read_fields(hierarchy, META))
    indexes, chunks = Indexes(hierarchy), Chunks(hierarchy.store)
    written = []
    for field in fields:
        if not has_zones(field):
            continue
        begin = first // field.chunk_length
        zones = []
        for number in range(begin, -(-field.length // field.chunk_length)):
            rows = min(field.length - number * field.chunk_length, field.chunk_length)
            zones.append(zone_of(field, chunks.read([(field, number)])[0][:rows]))
            progress(rows)
        written.append(_joined(indexes.zones(field), field, begin, zones, field.length))
    put_zones(hierarchy, written)


def keep_zones(
    store: Store,
    start: int,
    added: Mapping[str, NDArray[Any]],
    replaced: Mapping[str, tuple[NDArray[np.int64], NDArray[Any]]],
) -> None:
    """Bring the zone maps up to date with a batch, at a cost that only the batch tells.

    Parameters
    ----------
    store
        A writable session's store; the rows are there.
    start
        The first row that was added.
    added
        The values of the rows that were added, as they are stored, by field.
    replaced
        Rows that were written again and their values, by field.
    """
    hierarchy = Hierarchy(store)
    fields, _ = sync(read_fields(hierarchy, META))
    indexes = Indexes(hierarchy)
    found = []
    for field in filter(has_zones, fields):
        stored = indexes.zones(field)
        if field.name in replaced and stored is not None:
            stored = _widened(stored, *replaced[field.name])
        values = added.get(field.name)
        if values is None or not len(values):
            found.extend([stored] if stored is not None else [])
            continue
        begin, length = start // field.chunk_length, field.chunk_length
        column = normalised(values, field)
        zones: list[Zone | None] = []
        for number in range(begin, -(-field.length // length)):
            part = slice(max(number * length - start, 0), (number + 1) * length - start)
            zones.append(zone_of(field, column[part]))
        if start % length:  # of the rows before, in the first of the chunks
            before = None if stored is None else stored.first(begin * length, start)
            zones[0] = None if before is None or zones[0] is None else together(before, zones[0])
        found.append(_joined(stored, field, begin, zones, field.length))
    put_zones(hierarchy, found)


def _joined(
    stored: Zones | None, field: Field, begin: int, zones: Sequence[Zone | None], rows: int
) -> Zones:
    """Return stored zones up to the chunk number `begin`, and `zones` from there on."""
    nothing: list[Zone | None] = [None] * begin
    new = zones_of(field, zones, rows).table
    if stored is None:
        before = zones_of(field, nothing, 0).table
    else:
        # A chunk that isn't covered to its end is one of which nothing is known.
        whole = min(begin, stored.rows // field.chunk_length)
        rest = zones_of(field, nothing[whole:], 0).table
        before = pa.concat_tables([stored.table.slice(0, whole), rest])
    return Zones(field, rows, pa.concat_tables([before, new]))


def _widened(stored: Zones, rows: NDArray[np.int64], values: NDArray[Any]) -> Zones:
    """Return zones that hold for some rows that were written again, too."""
    field = stored.field
    column = normalised(values, field)
    numbers = rows // field.chunk_length
    places: list[int] = []
    zones: list[Zone | None] = []
    for number in np.unique(numbers).tolist():
        start = number * field.chunk_length
        old = stored.first(start, min(start + field.chunk_length, stored.rows))
        if old is not None:
            new = zone_of(field, column.filter(pa.array(numbers == number)))
            places.append(number)
            zones.append(together(old, new))
    order = np.arange(len(stored.table))
    order[places] = len(order) + np.arange(len(places))
    both = pa.concat_tables([stored.table, zones_of(field, zones, 0).table])
    return Zones(field, stored.rows, both.take(pa.array(order)))


def tree_of(
    hierarchy: Hierarchy, field: Field, progress: Progress = quietly, begin: int = 0
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
        for first, values in _chunks(chunks, field, begin):
            corners = bounds(values, field)
            odd = np.flatnonzero(np.isinf(corners).any(axis=1))
            unknown.append(first + odd)
            # What could be anywhere would spoil the order of all others.
            corners[odd] = np.nan
            sizes += values.nbytes
            progress(len(values))
            yield outward(corners)

    tree = build(blocks(), field.length - begin)
    always = np.concatenate(unknown) if unknown else np.empty(0, dtype=np.int64)
    if len(always) > ALWAYS:
        raise IngestError(
            f'too many values of the field "{field.name}" aren\'t footprints for an index, '
            f"{len(always):,}; the first is that of idx {always[0]}"
        )
    said = layout(tree[: HEADER.size].tobytes())
    start = HEADER.size + said.boxes * said.width
    stop = start + said.items * said.row_dtype.itemsize
    rows = begin + tree[start:stop].view(said.row_dtype).astype(np.int64)
    path, copied = join(TREES, field.name), join(FOOTPRINTS, field.name)
    if begin:
        path, copied = (join(later_of(field, begin), name) for name in ("tree", "footprints"))
    # Where no commit holds them together, an old tree must not be read with new copies.
    remove(hierarchy, path)
    _put_copies(hierarchy, chunks, field, copied, rows, sizes)
    known = {
        "rows": len(rows),
        "always": always.tolist(),
        "outward": True,
        "covering": list(covering_of(hierarchy, field, begin)),
    }
    _put_bytes(hierarchy, path, tree, {OWN: known})
    if not begin:
        remove(hierarchy, join(LATER, field.name))
    return list(always.tolist())


def later_of(field: Field, begin: int) -> str:
    """Return where the index of rows of a field from `begin` lies."""
    return join(LATER, field.name, str(begin))


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


def _chunks(chunks: Chunks, field: Field, begin: int = 0) -> Iterator[tuple[int, pa.Array]]:
    """Yield the first row and the values of each chunk of a field, of the rows from `begin`."""
    for number in chunks_of(field, range(begin, field.length)):
        first = number * field.chunk_length
        values = chunks.read([(field, number)])[0]
        skipped = max(begin - first, 0)
        yield first + skipped, values[skipped : min(field.length - first, field.chunk_length)]


def _put_bytes(hierarchy: Hierarchy, path: str, data: NDArray[np.uint8], attributes: JSON) -> None:
    """Write an array of bytes in chunks, the first of them last: without it there is none."""
    _put_groups(hierarchy, path)
    key = hierarchy.key(path)
    document = bytes_document(len(data), INDEX_CHUNK, attributes)
    put_values(hierarchy.store, {f"{key}/zarr.json": _json(document)})
    for start in reversed(range(0, len(data), INDEX_CHUNK)):
        chunk = data[start : start + INDEX_CHUNK]
        if len(chunk) < INDEX_CHUNK:
            chunk = np.pad(chunk, (0, INDEX_CHUNK - len(chunk)))
        put_values(hierarchy.store, {f"{key}/c/{start // INDEX_CHUNK}": chunk.tobytes()})


def _put_groups(hierarchy: Hierarchy, path: str) -> None:
    """Write the groups above `path` that aren't there."""
    parts = path.split("/")[:-1]
    for end in range(1, len(parts) + 1):
        key = f"{hierarchy.key('/'.join(parts[:end]))}/zarr.json"
        if sync(hierarchy.store.get(key, default_buffer_prototype())) is None:
            put_values(hierarchy.store, {key: _json(GROUP)})


def remove(hierarchy: Hierarchy, path: str) -> None:
    """Delete the node at `path`, if there is one."""
    above, _, name = hierarchy.key(path).rpartition("/")
    if sync(hierarchy.read(path)) is not None:
        del zarr.open_group(hierarchy.store, path=above, mode="r+")[name]


def _put_copies(
    hierarchy: Hierarchy,
    chunks: Chunks,
    field: Field,
    path: str,
    rows: NDArray[np.int64],
    nbytes: int,
) -> None:
    """Write footprints in the order `rows`, as many at a time as memory allows."""
    _put_groups(hierarchy, path)
    remove(hierarchy, path)
    above, _, name = path.rpartition("/")
    group = zarr.open_group(hierarchy.store, path=hierarchy.key(above), mode="a")
    binary = pa.types.is_binary(field.type)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of dtypes without a v3 specification
        array = group.create_array(
            name,
            shape=(len(rows),),
            chunks=(COPIES,),
            dtype="variable_length_bytes" if binary else "string",
            attributes={"order": "of the leaves of the R-tree"},
        )
    passes = max(1, -(-nbytes // HELD))
    step = -(-len(rows) // passes // COPIES) * COPIES or COPIES
    for start in range(0, len(rows), step):
        wanted = rows[start : start + step]
        order = np.argsort(wanted)
        ascending = wanted[order]
        parts = []
        for first, values in _chunks(chunks, field, int(ascending[0])):
            low, high = np.searchsorted(ascending, (first, first + len(values)))
            if low < high:
                parts.append(values.take(pa.array(ascending[low:high] - first)))
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        there = pa.chunked_array(parts).cast(pa.large_binary() if binary else pa.large_string())
        values = there.combine_chunks().take(pa.array(back)).fill_null(b"" if binary else "")
        for at in range(0, len(values), COPIES):
            part = values[at : at + COPIES].to_numpy(zero_copy_only=False)
            if not binary:
                part = part.astype(np.dtypes.StringDType())
            array[start + at : start + at + len(part)] = part


def sorted_of(
    hierarchy: Hierarchy, field: Field, progress: Progress = quietly, begin: int = 0
) -> list[int]:
    """Write the sorted index of a field, of all rows from `begin`: see `tree_of`."""
    chunks = Chunks(hierarchy.store)
    parts, numbers = [], []
    for first, values in _chunks(chunks, field, begin):
        some = values.is_valid()
        parts.append(values.filter(some))
        numbers.append(first + np.flatnonzero(some.to_numpy(zero_copy_only=False)))
        progress(len(values))
    texts = pa.types.is_string(field.type)
    kind = pa.large_string() if texts else field.type
    whole = pa.chunked_array(parts, field.type).cast(kind).combine_chunks()
    rows = np.concatenate(numbers) if numbers else np.empty(0, dtype=np.int64)
    del parts, numbers
    order = pc.array_sort_indices(whole)
    rows = rows[order.to_numpy()]
    path = later_of(field, begin) if begin else join(SORTED, field.name)
    _put_groups(hierarchy, join(path, "values"))
    remove(hierarchy, path)
    put_values(hierarchy.store, {f"{hierarchy.key(path)}/zarr.json": _json(GROUP)})
    group = zarr.open_group(hierarchy.store, path=hierarchy.key(path), mode="a")
    dtype: Any = "string" if texts else field.type.to_pandas_dtype()
    if pa.types.is_temporal(field.type):
        dtype = np.dtype(f"{'M' if pa.types.is_timestamp(field.type) else 'm'}8[{field.type.unit}]")
    fences = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of dtypes without a v3 specification
        chunk = (SORTED_CHUNK,)
        values = group.create_array("values", shape=(len(rows),), chunks=chunk, dtype=dtype)
        places = group.create_array("rows", shape=(len(rows),), chunks=chunk, dtype="int64")
        for start in range(0, len(rows), SORTED_CHUNK):
            part = whole.take(order[start : start + SORTED_CHUNK])
            fences.append(part[:1].cast(field.type))
            said = part.to_numpy(zero_copy_only=False)
            stop = start + len(part)
            values[start:stop] = said.astype(np.dtypes.StringDType()) if texts else said
            places[start:stop] = rows[start:stop]
    known: JSON = {"rows": field.length, "always": []}
    _put_fences(hierarchy, path, pa.chunked_array(fences, field.type), known)
    if not begin:
        remove(hierarchy, join(LATER, field.name))
    return []


def _put_fences(hierarchy: Hierarchy, path: str, fences: pa.ChunkedArray, known: JSON) -> None:
    """Write the fences of a sorted index, with what is said of it."""
    table = pa.table({"fences": fences}).replace_schema_metadata({OWN: json.dumps(known)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    said = bytes(sink.getvalue())
    key = hierarchy.key(join(path, "fences"))
    put_values(hierarchy.store, {f"{key}/zarr.json": _json(bytes_document(len(said), len(said)))})
    put_values(hierarchy.store, {f"{key}/c/0": said})


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
    touch(hierarchy)
    for path in (TREES, SORTED):
        for name in sync(hierarchy.children(path)):
            known = said_of(hierarchy, join(path, name))
            if known is None:
                continue
            limited = _limited(known, rows, rewritten)
            if limited is None:
                remove(hierarchy, join(path, name))
                remove(hierarchy, join(LATER, name))
                continue
            say(hierarchy, join(path, name), limited)
            if later(known):
                _remove_but(hierarchy, name, later(limited))


def said_of(hierarchy: Hierarchy, path: str) -> JSON | None:
    """Return what the index of the first rows at `path` says of all of its field."""
    if path.startswith(f"{TREES}/"):
        document = sync(hierarchy.read(path)) or {}
        if document.get("data_type") != "uint8":
            return None
        known: JSON | None = (document.get("attributes") or {}).get(OWN)
        return known or {"rows": 2**32, "always": []}
    said = fetch(hierarchy.store, [hierarchy.key(join(path, "fences/c/0"))])[0]
    return None if said is None else dict(json.loads(_fences(said).schema.metadata[OWN.encode()]))


def say(hierarchy: Hierarchy, path: str, known: JSON) -> None:
    """Let the index of the first rows at `path` say something else."""
    key = hierarchy.key(path)
    if path.startswith(f"{TREES}/"):
        document = sync(hierarchy.read(path)) or {}
        put_values(
            hierarchy.store, {f"{key}/zarr.json": _json({**document, "attributes": {OWN: known}})}
        )
        return
    said = fetch(hierarchy.store, [f"{key}/fences/c/0"])[0]
    _put_fences(hierarchy, path, _fences(said).column("fences"), known)


def _fences(said: Any) -> pa.Table:
    return pa.ipc.open_stream(said).read_all()


def add_later(hierarchy: Hierarchy, path: str, rows: range, always: Sequence[int]) -> None:
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
    known = said_of(hierarchy, path)
    assert known is not None
    covered = [*(some for some in later(known) if some.start < rows.start), rows]
    say(
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
    for begin in sync(hierarchy.children(join(LATER, name))):
        if begin not in kept:
            remove(hierarchy, join(LATER, name, begin))


def touch(hierarchy: Hierarchy) -> None:
    """Write what whoever rewrites rows writes, and whoever makes an index: so they conflict.

    An index that was made of rows as they were must not be committed beside others; one that
    lacks rows appended meanwhile may.
    """
    key = hierarchy.key(REWRITTEN)
    _put_groups(hierarchy, REWRITTEN)
    if sync(hierarchy.read(REWRITTEN)) is None:
        put_values(hierarchy.store, {f"{key}/zarr.json": _json(bytes_document(MARK, MARK))})
    put_values(hierarchy.store, {f"{key}/c/0": os.urandom(MARK)})


def _limited(known: JSON, rows: int | None, rewritten: Sequence[int]) -> JSON | None:
    """Return what is said of an index after a change, None where it isn't worth keeping."""
    most = 2**63 if rows is None else rows
    first = min(int(known["rows"]), most)
    kept = [range(some.start, min(some.stop, most)) for some in later(known) if some.start < most]
    covered = kept[-1].stop if kept else first
    always = sorted({row for row in [*known["always"], *rewritten] if row < covered})
    if first == 0 or len(always) > ALWAYS:
        return None
    found = {**known, "rows": first, "always": always}
    return {**found, "later": [[some.start, some.stop] for some in kept]} if later(known) else found
