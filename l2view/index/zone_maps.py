"""Build zone maps of the chunks of the fields, or of those that have changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
from zarr.core.sync import sync

from l2view.index.indexes import Indexes
from l2view.index.storage import ZONES, Progress, put_buffers, put_groups
from l2view.meta.chunks import Chunks
from l2view.meta.schema import Field, read_fields
from l2view.meta.zones import Zone, Zones, chunks_of, is_orderable, zone_of, zones_of
from l2view.stores.hierarchy import META, Hierarchy, join


def has_zones(field: Field) -> bool:
    """Tell whether a field has a zone map."""
    return field.geometry is not None or is_orderable(field.type)


def build_zones(
    hierarchy: Hierarchy,
    first: int = 0,
    rows: Iterable[int] = (),
    progress: Progress = lambda rows: None,
) -> None:
    """Write the zone maps of the chunks that hold the row `first` and all after it, or of `rows`.

    The zones of other chunks are kept.
    """
    fields, _ = sync(read_fields(hierarchy, META))
    indexes, chunks = Indexes(hierarchy), Chunks(hierarchy.store)
    zone_maps = []
    for field in filter(has_zones, fields):
        changed = {row // field.chunk_length for row in rows}
        numbers = sorted(changed.union(chunks_of(field, range(first, field.length))))
        zones = []
        for number in numbers:
            inside = field.rows_in_chunk(number)
            zones.append(zone_of(field, chunks.read([(field, number)])[0][:inside]))
            progress(inside)
        zone_maps.append(_replace_zones(indexes.zones(field), field, numbers, zones))
    if zone_maps:
        put_groups(hierarchy, join(ZONES, "field"))
    put_buffers(hierarchy, {join(ZONES, z.field.name): z.to_bytes() for z in zone_maps})


def _replace_zones(
    stored: Zones | None, field: Field, numbers: Sequence[int], zones: Sequence[Zone]
) -> Zones:
    """Put the `zones` of some chunks in the place of stored ones."""
    count = -(-field.length // field.chunk_length)
    table = zones_of(field, [*zones, None], field.length).table
    order = np.full(count, len(zones))  # of other chunks nothing is known
    if stored is not None:
        # Nor of one that isn't covered to its end.
        complete = min(stored.rows // field.chunk_length, count)
        order[:complete] = len(table) + np.arange(complete)
        table = pa.concat_tables([table, stored.table])
    order[numbers] = np.arange(len(zones))
    return Zones(field, field.length, table.take(pa.array(order)))
