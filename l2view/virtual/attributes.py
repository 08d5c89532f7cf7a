"""A granule's fields as flat JSON attributes, and how they meet those of its source."""

from __future__ import annotations

import math
from datetime import date, time
from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from l2view.arrays.cf import BOUNDS, MEANING, PACKING, RANGES, TIMES
from l2view.stores.hierarchy import JSON

CF_NAMES = """
_ARRAY_DIMENSIONS ancillary_variables axis cell_measures cell_methods compress coordinates
formula_terms geometry grid_mapping instance_dimension interior_ring leap_month leap_year
month_lengths node_coordinates node_count part_node_count sample_dimension standard_name
"""

DECODING = PACKING.union(RANGES, TIMES, BOUNDS, MEANING, CF_NAMES.split())
"""Attributes of an array by which CF, netCDF4 or xarray decode its values.

From the CF conventions 1.12, appendix A, and `xarray.conventions`. No field ever takes
their place, or the array would be read as something else.
"""


def group_attributes(source: JSON, fields: JSON) -> JSON:
    """Return a granule group's attributes: on a clash the field wins."""
    # xarray takes the names in ``coordinates`` for coordinates.
    return source | {name: value for name, value in fields.items() if name != "coordinates"}


def array_attributes(source: JSON, fields: JSON) -> JSON:
    """Return an array's attributes: on a clash the array keeps its own."""
    others = {n: v for n, v in fields.items() if n not in source and n not in DECODING}
    return source | others


def json_columns(table: pa.Table) -> dict[str, list[Any]]:
    """Return the columns of `table` as values that JSON has.

    Timestamps are ISO 8601 in UTC, durations ISO 8601, geometries WKT, other bytes
    hexadecimal, infinities ``"Infinity"`` and ``"-Infinity"``, NaN and NULL are None. What
    only a query makes (dates, decimals, lists) is text, or made of these.
    """
    return {
        field.name: json_values(table.column(field.name).combine_chunks(), is_geometry(field))
        for field in table.schema
    }


def is_geometry(field: pa.Field) -> bool:
    """Return whether an Arrow field says that it holds geometries."""
    name = (field.metadata or {}).get(b"ARROW:extension:name", b"")
    return bool(name.startswith(b"geoarrow."))


def json_values(column: pa.Array, geometry: bool = False) -> list[Any]:
    """Return one column as values that JSON has."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        texts = np.datetime_as_string(column.to_numpy(zero_copy_only=False)).tolist()
        return [None if text == "NaT" else _trim_zeros(text) + "Z" for text in texts]
    if pa.types.is_duration(kind):
        ticks = column.cast(pa.int64()).to_pylist()
        return [None if value is None else _duration(value, kind.unit) for value in ticks]
    if pa.types.is_binary(kind) and geometry:
        return _wkt(column)
    return [_plain(value) for value in column.to_pylist()]


def _trim_zeros(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _duration(ticks: int, unit: str) -> str:
    digits = {"s": 0, "ms": 3, "us": 6, "ns": 9}[unit]
    sign, seconds = ("-" if ticks < 0 else ""), str(abs(ticks)).zfill(digits + 1)
    if digits:
        seconds = f"{seconds[:-digits]}.{seconds[-digits:]}"
    return f"{sign}PT{_trim_zeros(seconds)}S"


def _wkt(column: pa.Array) -> list[str | None]:
    """Return WKB as WKT with every digit; what isn't WKB stays, in hexadecimal."""
    raw = column.to_pylist()
    with np.errstate(invalid="ignore"):  # NaN is nothing that NumPy need warn of
        shapes = shapely.from_wkb(np.array(raw, dtype=object), on_invalid="ignore")
    texts = shapely.to_wkt(shapes, rounding_precision=-1)
    return [
        value.hex() if value and not text else text for value, text in zip(raw, texts, strict=True)
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, str | int) else str(value)
