"""Zone maps: the least and the greatest value of each chunk of a field.

A scan leaves out the chunks in which a condition can't hold, which Arrow decides: each run of
rows is a fragment of a `pyarrow.dataset` with what is known of it as its guarantee.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.fs
from numpy.typing import NDArray

from l2view.meta.footprints import bounds
from l2view.meta.schema import Field

LONGEST = 64  # the most characters of a text that a zone map keeps

BOUNDS = ("west", "south", "east", "north")


def is_orderable(kind: pa.DataType) -> bool:
    """Whether a zone map can bound values of this type."""
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or (pa.types.is_temporal(kind) and not pa.types.is_duration(kind))
        or pa.types.is_string(kind)
        or pa.types.is_boolean(kind)
    )


@dataclass(frozen=True)
class Zone:
    """What is known of the values of some rows."""

    # Bounds of the values, Arrow scalars, NULL where all of them are, or where there is no upper
    # bound; of footprints, `low` is west, south, east and north in degrees, NaN where all are NULL,
    # and `high` is None.
    low: Any
    high: Any
    nulls: int  # how many are NULL


def zone_of(field: Field, values: pa.Array) -> Zone:
    """Zone of values of a field that has an order, or of footprints."""
    if field.geometry is not None:
        return zone_of_bounds(bounds(values, field))
    extremes = pc.min_max(values)
    low, high = extremes["min"], extremes["max"]
    if pa.types.is_string(field.type):
        low, high = _shorten(low.as_py(), high.as_py(), field.type)
    return Zone(low, high, values.null_count)


def zone_of_bounds(corners: NDArray[np.float64], nulls: int | None = None) -> Zone:
    """Zone of footprints with these bounds, of shape (n, 4); by default NaN counts as NULL."""
    with np.errstate(invalid="ignore"):
        least = np.fmin.reduce(corners[:, :2], axis=0, initial=np.nan)
        most = np.fmax.reduce(corners[:, 2:], axis=0, initial=np.nan)
    if nulls is None:
        nulls = int(np.isnan(corners[:, 0]).sum())
    return Zone((*least.tolist(), *most.tolist()), None, nulls)


def _shorten(low: str | None, high: str | None, kind: pa.DataType) -> tuple[Any, Any]:
    """Shorten the bounds of texts to `LONGEST` characters."""
    low = low and low[:LONGEST]
    if high is not None and len(high) > LONGEST:
        # The next text that doesn't begin like it; by code points, as UTF-8 is ordered.
        cut = high[:LONGEST].rstrip("\U0010ffff")
        high = cut[:-1] + _next(cut[-1]) if cut else None
    return pa.scalar(low, kind), pa.scalar(high, kind)


def _next(char: str) -> str:
    code = ord(char) + 1
    return chr(0xE000 if 0xD800 <= code <= 0xDFFF else code)


@dataclass(frozen=True)
class Zones:
    """The zones of a field, one a chunk."""

    field: Field
    rows: int  # the rows that they cover, from the first
    # One row a chunk: ``low``, ``high`` and ``nulls``; of footprints `BOUNDS` and ``nulls``. Where
    # ``nulls`` is NULL, nothing is known of the chunk.
    table: pa.Table

    @cached_property
    def nulls(self) -> NDArray[np.int64]:
        """How many values of each chunk are NULL, -1 where nothing is known; int64."""
        return np.asarray(pc.fill_null(self.table.column("nulls"), -1))

    @cached_property
    def corners(self) -> NDArray[np.float64]:
        """Bounds of footprints in degrees, float64, of shape (chunks, 4); NaN for none."""
        columns = [self.table.column(name).to_numpy() for name in BOUNDS]
        return np.stack(columns, axis=1)

    @cached_property
    def lows(self) -> pa.Array:
        """The least value of each chunk."""
        return self.table.column("low").combine_chunks()

    @cached_property
    def highs(self) -> pa.Array:
        """The greatest value of each chunk."""
        return self.table.column("high").combine_chunks()

    def zone(self, rows: range) -> Zone | None:
        """Zone of `rows`, None where they aren't covered."""
        chunks = chunks_of(self.field, rows)
        # Of a chunk that has grown since, what is known holds for its first rows alone.
        needed = min(chunks.stop * self.field.chunk_length, self.field.length)
        is_known = self.nulls[chunks.start : chunks.stop] >= 0
        if needed > self.rows or len(is_known) < len(chunks) or not is_known.all():
            return None
        return self.merge(chunks)

    def merge(self, chunks: range) -> Zone:
        """Zone of covered chunks."""
        window = slice(chunks.start, chunks.stop)
        total = int(self.nulls[window].sum())
        if self.field.geometry is not None:
            return zone_of_bounds(self.corners[window], total)
        lows, highs = self.lows[window], self.highs[window]
        if len(chunks) == 1:
            return Zone(lows[0], highs[0], total)
        # A chunk without an upper bound, but with values, leaves all of them without one.
        open_ended = (highs.is_null().to_numpy(False) & lows.is_valid().to_numpy(False)).any()
        high = pa.scalar(None, highs.type) if open_ended else pc.max(highs)
        return Zone(pc.min(lows), high, total)

    def to_bytes(self) -> bytes:
        """Encode them as an Arrow IPC stream whose metadata has the number of rows."""
        metadata = {"rows": str(self.rows), "chunk_length": str(self.field.chunk_length)}
        return to_ipc(self.table, metadata)


def to_ipc(table: pa.Table, metadata: Mapping[str, str]) -> bytes:
    """Encode a table, with its metadata, as an Arrow IPC stream."""
    table = table.combine_chunks().replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def chunks_of(field: Field, rows: range) -> range:
    """Numbers of a field's chunks that hold `rows`."""
    return range(rows.start // field.chunk_length, -(-rows.stop // field.chunk_length))


def _schema(field: Field) -> pa.Schema:
    """Columns of a field's zones."""
    kind = field.type if field.geometry is None else pa.float64()
    ends = ("low", "high") if field.geometry is None else BOUNDS
    return pa.schema({**dict.fromkeys(ends, kind), "nulls": pa.int64()}.items())


def zones_of(field: Field, zones: Sequence[Zone | None], rows: int) -> Zones:
    """Collect the zones of a field's first chunks, None for a chunk that is unknown."""
    columns: list[Any]
    if field.geometry is None:
        columns = [
            [None if zone is None else getattr(zone, end) for zone in zones]
            for end in ("low", "high")
        ]
    else:
        corners = [(np.nan,) * 4 if zone is None else zone.low for zone in zones]
        columns = [*np.array(corners, dtype=np.float64).reshape(-1, 4).T]
    columns.append([None if zone is None else zone.nulls for zone in zones])
    return Zones(field, rows, pa.table(columns, schema=_schema(field)))


def from_bytes(field: Field, buffer: bytes) -> Zones | None:
    """Decode stored zones, None where the field has changed its type or chunks since."""
    table = pa.ipc.open_stream(buffer).read_all()
    metadata = table.schema.metadata
    if int(metadata[b"chunk_length"]) != field.chunk_length:
        return None
    schema = _schema(field)
    try:  # of integers that became floats since
        table = table.select(schema.names).cast(schema)
    except (KeyError, pa.ArrowException):
        return None
    return Zones(field, int(metadata[b"rows"]), table)


def guarantee(field: Field, zone: Zone) -> pc.Expression | None:
    """Expression that holds for every row of a zone, None where nothing is known."""
    column = pc.field(field.name)
    if field.geometry is not None:
        return None  # not even that none is NULL: one that isn't finite is shown as such
    low, high = zone.low, zone.high
    if not low.is_valid:
        return column.is_null() if zone.nulls else None
    condition = column >= low
    if zone.nulls:
        condition |= column.is_null()
    if high.is_valid:
        upper = column <= high
        condition &= upper | column.is_null() if zone.nulls else upper
    return condition


def runs_of(schema: pa.Schema, guarantees: Mapping[int, pc.Expression | None]) -> pads.Dataset:
    """Make runs of rows the fragments of a dataset, so that Arrow can prune them.

    `guarantees` are what holds for every row of a run, by its number; None where nothing is known.
    """
    files, ipc = pyarrow.fs.LocalFileSystem(), pads.IpcFileFormat()
    fragments = [
        ipc.make_fragment(str(number), files, partition_expression=expression)
        for number, expression in guarantees.items()
    ]
    return pads.FileSystemDataset(fragments, schema, ipc, files)


def prune(condition: pc.Expression, runs: pads.Dataset) -> set[int]:
    """Numbers of the runs of rows in which a condition may hold."""
    # Arrow takes NaN for a bound, which it is not.
    if not re.search(r"\bnan\b", str(condition)):
        with contextlib.suppress(pa.ArrowInvalid):  # of integers beyond 63 bits in a list
            return {int(fragment.path) for fragment in runs.get_fragments(condition)}
    return {int(fragment.path) for fragment in runs.get_fragments()}
