"""Build zone maps of all chunks of the fields, or update them with a batch of rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.core.sync import sync

from l2view.index.indexes import Indexes
from l2view.index.storage import (
    ZONES,
    Progress,
    bytes_document,
    ignore_progress,
    put_groups,
    to_json_bytes,
)
from l2view.meta.chunks import Chunks
from l2view.meta.decode import as_field_array
from l2view.meta.schema import Field, read_fields
from l2view.meta.zones import Zone, Zones, is_orderable, merge_zones, zone_of, zones_of
from l2view.stores.hierarchy import META, Hierarchy, join, put_values


def has_zones(field: Field) -> bool:
    """Tell whether a field has a zone map."""
    return field.geometry is not None or is_orderable(field.type)


def put_zones(hierarchy: Hierarchy, zone_maps: Iterable[Zones]) -> None:
    """Write zone maps."""
    documents: dict[str, bytes] = {}
    chunks: dict[str, bytes] = {}
    for zones in zone_maps:
        buffer = zones.to_bytes()
        path = hierarchy.key(join(ZONES, zones.field.name))
        documents[f"{path}/zarr.json"] = to_json_bytes(bytes_document(len(buffer), len(buffer)))
        chunks[f"{path}/c/0"] = buffer
    if documents:
        put_groups(hierarchy, join(ZONES, "field"))
    put_values(hierarchy.store, documents)
    put_values(hierarchy.store, chunks)


def build_zones(hierarchy: Hierarchy, first: int = 0, progress: Progress = ignore_progress) -> None:
    """Write the zone maps of the chunks that hold the row `first` and all after it.

    Parameters
    ----------
    hierarchy
        A store that can be written to.
    first
        A row; the zones of chunks before it are kept.
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
        written.append(_replace_from(indexes.zones(field), field, begin, zones, field.length))
    put_zones(hierarchy, written)


def extend_zones(
    store: Store,
    start: int,
    added: Mapping[str, NDArray[Any]],
    replaced: Mapping[str, tuple[NDArray[np.int64], NDArray[Any]]],
) -> None:
    """Update the zone maps with a batch, at a cost in proportion to the batch.

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
    zone_maps = []
    for field in filter(has_zones, fields):
        stored = indexes.zones(field)
        if field.name in replaced and stored is not None:
            stored = _widen(stored, *replaced[field.name])
        values = added.get(field.name)
        if values is None or not len(values):
            zone_maps.extend([stored] if stored is not None else [])
            continue
        begin, length = start // field.chunk_length, field.chunk_length
        column = as_field_array(values, field)
        zones: list[Zone | None] = []
        for number in range(begin, -(-field.length // length)):
            chunk_rows = slice(max(number * length - start, 0), (number + 1) * length - start)
            zones.append(zone_of(field, column[chunk_rows]))
        if start % length:  # of the rows before, in the first of the chunks
            before = None if stored is None else stored.chunk_zone(begin * length, start)
            zones[0] = None if before is None or zones[0] is None else merge_zones(before, zones[0])
        zone_maps.append(_replace_from(stored, field, begin, zones, field.length))
    put_zones(hierarchy, zone_maps)


def _replace_from(
    stored: Zones | None, field: Field, begin: int, zones: Sequence[Zone | None], rows: int
) -> Zones:
    """Join the stored zones before the chunk `begin` and `zones` from there on."""
    unknown_zones: list[Zone | None] = [None] * begin
    new = zones_of(field, zones, rows).table
    if stored is None:
        before = zones_of(field, unknown_zones, 0).table
    else:
        # A chunk that isn't covered to its end is one of which nothing is known.
        complete = min(begin, stored.rows // field.chunk_length)
        gap = zones_of(field, unknown_zones[complete:], 0).table
        before = pa.concat_tables([stored.table.slice(0, complete), gap])
    return Zones(field, rows, pa.concat_tables([before, new]))


def _widen(stored: Zones, rows: NDArray[np.int64], values: NDArray[Any]) -> Zones:
    """Widen stored zones by rows that were rewritten."""
    field = stored.field
    column = as_field_array(values, field)
    numbers = rows // field.chunk_length
    replaced: list[int] = []
    zones: list[Zone | None] = []
    for number in np.unique(numbers).tolist():
        start = number * field.chunk_length
        old = stored.chunk_zone(start, min(start + field.chunk_length, stored.rows))
        if old is not None:
            new = zone_of(field, column.filter(pa.array(numbers == number)))
            replaced.append(number)
            zones.append(merge_zones(old, new))
    order = np.arange(len(stored.table))
    order[replaced] = len(order) + np.arange(len(replaced))
    combined = pa.concat_tables([stored.table, zones_of(field, zones, 0).table])
    return Zones(field, stored.rows, combined.take(pa.array(order)))
