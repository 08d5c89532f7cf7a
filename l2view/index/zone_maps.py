"""Build zone maps of all chunks of the fields, or update them with a batch of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.core.sync import sync

from l2view.index.indexes import Indexes
from l2view.index.storage import ZONES, Progress, put_buffers, put_groups
from l2view.meta.chunks import Chunks
from l2view.meta.decode import as_field_array
from l2view.meta.schema import Field, read_fields
from l2view.meta.zones import Zone, Zones, chunks_of, is_orderable, merge_zones, zone_of, zones_of
from l2view.stores.hierarchy import META, Hierarchy, join


def has_zones(field: Field) -> bool:
    """Tell whether a field has a zone map."""
    return field.geometry is not None or is_orderable(field.type)


def _put_zones(hierarchy: Hierarchy, zone_maps: Sequence[Zones]) -> None:
    if zone_maps:
        put_groups(hierarchy, join(ZONES, "field"))
    buffers = {join(ZONES, zones.field.name): zones.to_bytes() for zones in zone_maps}
    put_buffers(hierarchy, buffers)


def build_zones(
    hierarchy: Hierarchy, first: int = 0, progress: Progress = lambda rows: None
) -> None:
    """Write the zone maps of the chunks that hold the row `first` and all after it.

    The zones of chunks before it are kept.
    """
    fields, _ = sync(read_fields(hierarchy, META))
    indexes, chunks = Indexes(hierarchy), Chunks(hierarchy.store)
    zone_maps = []
    for field in filter(has_zones, fields):
        zones = []
        numbers = chunks_of(field, range(first, field.length))
        for number in numbers:
            rows = field.rows_in_chunk(number)
            zones.append(zone_of(field, chunks.read([(field, number)])[0][:rows]))
            progress(rows)
        zone_maps.append(_replace_from(indexes.zones(field), field, numbers.start, zones))
    _put_zones(hierarchy, zone_maps)


def extend_zones(
    store: Store,
    start: int,
    added: Mapping[str, NDArray[Any]],
    replaced: Mapping[str, tuple[NDArray[np.int64], NDArray[Any]]],
) -> None:
    """Update the zone maps with a batch that is written, at a cost in proportion to it.

    By field, `added` are the values of the rows from `start`, as they are stored, and `replaced`
    the rows that were written again, with their values.
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
        length, column = field.chunk_length, as_field_array(values, field)
        numbers = chunks_of(field, range(start, field.length))
        zones: list[Zone | None] = []
        for number in numbers:
            chunk_rows = slice(max(number * length - start, 0), (number + 1) * length - start)
            zones.append(zone_of(field, column[chunk_rows]))
        if start % length:  # of the rows before, in the first of the chunks
            before = None if stored is None else stored.chunk_zone(numbers.start * length, start)
            zones[0] = None if before is None else merge_zones(field, [before, zones[0]])
        zone_maps.append(_replace_from(stored, field, numbers.start, zones))
    _put_zones(hierarchy, zone_maps)


def _replace_from(
    stored: Zones | None, field: Field, begin: int, zones: Sequence[Zone | None]
) -> Zones:
    """Join the stored zones before the chunk `begin` and `zones` from there on."""
    # A chunk that isn't covered to its end is one of which nothing is known.
    complete = 0 if stored is None else min(begin, stored.rows // field.chunk_length)
    new = zones_of(field, [*([None] * (begin - complete)), *zones], field.length)
    if stored is None:
        return new
    return Zones(field, new.rows, pa.concat_tables([stored.table[:complete], new.table]))


def _widen(stored: Zones, rows: NDArray[np.int64], values: NDArray[Any]) -> Zones:
    """Widen stored zones by rows that were rewritten."""
    field = stored.field
    column = as_field_array(values, field)
    numbers = rows // field.chunk_length
    zones: dict[int, Zone] = {}
    for number in np.unique(numbers).tolist():
        start = number * field.chunk_length
        old = stored.chunk_zone(start, min(start + field.chunk_length, stored.rows))
        if old is not None:
            new = zone_of(field, column.filter(pa.array(numbers == number)))
            zones[number] = merge_zones(field, [old, new])
    order = np.arange(len(stored.table))
    order[list(zones)] = len(order) + np.arange(len(zones))
    combined = pa.concat_tables([stored.table, zones_of(field, [*zones.values()], 0).table])
    return Zones(field, stored.rows, combined.take(pa.array(order)))
