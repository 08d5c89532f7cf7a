"""Rows that are searched, as granules and as stores."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
import zarr
from hypothesis import strategies as st
from zarr.storage import LocalStore

import l2view
from l2view.granules.references import GranuleReferences
from l2view.ingest.granule import Granule

CHUNK = 7
EPOCH = datetime(2025, 1, 1)
Row = dict[str, Any]


def box(west: float, south: float, width: float, height: float) -> shapely.Geometry:
    """Return a footprint, in two parts where it reaches across the antimeridian."""
    if west + width <= 180:
        return shapely.box(west, south, west + width, south + height)
    parts = [
        shapely.box(west, south, 180, south + height),
        shapely.box(-180, south, west + width - 360, south + height),
    ]
    return shapely.MultiPolygon(parts)


OUTLINES = st.one_of(
    st.none(),
    st.builds(
        box,
        st.integers(-180, 179),
        st.integers(-90, 80),
        st.integers(1, 9) | st.just(0.1),
        st.integers(1, 9),
    ),
    st.builds(shapely.Point, st.integers(-180, 180), st.integers(-90, 90)),
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "n": st.integers(-5, 5),
            "f": st.sampled_from([None, np.nan, np.inf, -np.inf, -0.0, 0.0, 0.5, 1e300, -2.5]),
            "s": st.sampled_from(
                ["", "a", "ab", "abc", "b", "é", "z" * 70, "z" * 71, "\U0010ffff"]
            ),
            "t": st.none() | st.integers(-400, 400),
            "bbox": OUTLINES,
        }
    ),
    min_size=1,
    max_size=40,
)


def write(path: Path, rows: Sequence[Row]) -> LocalStore:
    """Write rows as a plain Zarr store, of which chunks of fields differ in length."""
    shutil.rmtree(path, ignore_errors=True)
    store = LocalStore(path)
    meta = zarr.create_group(store).create_group("meta")
    count = len(rows)
    columns: dict[str, tuple[Any, Any]] = {
        "n": ("int64", [row["n"] for row in rows]),
        "f": ("float64", [np.nan if row["f"] is None else row["f"] for row in rows]),
        "s": ("string", np.array([row["s"] for row in rows], dtype=np.dtypes.StringDType())),
        "t": ("datetime64[us]", np.array([stamp(row) for row in rows], dtype="datetime64[us]")),
        "id": ("string", np.array([f"g{i:03}" for i in range(count)], np.dtypes.StringDType())),
    }
    outlines = np.empty(count, dtype=object)
    outlines[:] = [b"" if row["bbox"] is None else shapely.to_wkb(row["bbox"]) for row in rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, (dtype, values) in columns.items():
            chunk = 3 if name == "n" else CHUNK
            array = meta.create_array(name, shape=(count,), chunks=(chunk,), dtype=dtype)
            array[:] = np.asarray(values)
        array = meta.create_array(
            "bbox", shape=(count,), chunks=(CHUNK,), dtype="variable_length_bytes"
        )
        array[:] = outlines
    return store


def as_table(rows: Sequence[Row]) -> pa.Table:
    """Return rows as another engine gets them."""
    floats = [None if row["f"] is None or np.isnan(row["f"]) else row["f"] for row in rows]
    return pa.table(
        {
            "idx": pa.array(range(len(rows)), pa.int64()),
            "n": pa.array([row["n"] for row in rows], pa.int64()),
            "f": pa.array(floats, pa.float64()),
            "s": pa.array([row["s"] for row in rows], pa.string()),
            "t": pa.array([stamp(row) for row in rows], pa.timestamp("us")),
        }
    )


def stamp(row: Row) -> datetime | None:
    return None if row["t"] is None else EPOCH + timedelta(hours=row["t"])


def found(store: Any, where: str, **options: Any) -> list[int]:
    rows: list[int] = l2view.search(store, where, fields=[], **options).column("idx").to_pylist()
    return rows


def wide(count: int) -> list[Row]:
    """Return rows whose field n grows with them, and others don't."""
    return [
        {
            "n": number // 3,
            "f": float(number * 7 % 50),
            "s": f"s{number * 13 % 40:02}",
            "t": number,
            "bbox": shapely.box(number * 37 % 350 - 180, 0, number * 37 % 350 - 179, 1),
        }
        for number in range(count)
    ]


def granule(number: int, version: int) -> Granule:
    """Return a granule whose fields tell which version of it they are of."""
    row = {
        "id": f"g{number:03}",
        "datetime": EPOCH + timedelta(hours=number * 5 % 48, days=version),
        "bbox": shapely.to_wkb(box((number * 37 + version * 90) % 350 - 180, -version, 3, 2)),
        "n": number - 10 * version,
        "s": f"{'ab'[number % 2]}{version}",
    }
    if version == 2:
        row["late"] = float(number)
    return Granule(row, GranuleReferences((), {"": {}}))
