"""The cells of one array as a table, against NumPy."""

from __future__ import annotations

import asyncio
import importlib
import operator
import pickle
import subprocess
import sys
from functools import reduce
from pathlib import Path
from typing import Any

import datafusion
import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.core.sync import sync
from zarr.storage import MemoryStore, WrapperStore

import l2view
from l2view.api import session_of
from l2view.errors import ChunkError, QueryError
from l2view.tables import cells
from l2view.tables.grid import regular_edges, runs, slabs, tiles

scanned = importlib.import_module("l2view.tables.cells")
arrays_of = importlib.import_module("l2view.tables.arrays")
pieces_of = importlib.import_module("l2view.tables.pieces")

OPERATORS = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "<>": operator.ne,
}


class Counting(WrapperStore[Any]):
    """A store that keeps the keys and bytes that it is asked for."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.keys: list[str] = []
        self.nbytes = 0

    async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
        found = await self._store.get(key, *arguments, **options)
        self.keys.append(key)
        self.nbytes += 0 if found is None else len(found)
        return found

    def get_sync(self, key: str, **options: Any) -> Any:
        found = super().get_sync(key, **options)
        self.keys.append(key)
        self.nbytes += 0 if found is None else len(found)
        return found

    def get_ranges(self, key: str, byte_ranges: Any, **options: Any) -> Any:
        self.keys.append(key)
        return self._counted(self._store.get_ranges(key, byte_ranges, **options))

    async def _counted(self, groups: Any) -> Any:
        async for group in groups:
            self.nbytes += sum(0 if part is None else len(part) for _, part in group)
            yield group

    def with_read_only(self, read_only: bool = False) -> Counting:
        return self  # which counts on

    @property
    def chunks(self) -> list[str]:
        return sorted(key for key in self.keys if not key.endswith(("zarr.json", ".zarray")))


def rows_of(table: pa.Table) -> list[tuple[Any, ...]]:
    """Return a table's rows, sorted."""
    return sorted(zip(*(column.to_pylist() for column in table.columns), strict=True))


@st.composite
def arrays(draw: st.DrawFn) -> tuple[zarr.Array[Any], np.ndarray[Any, Any]]:
    """Arrays of any shape and chunks, sharded or not, with chunks that aren't there."""
    rank = draw(st.integers(0, 3))
    shape = tuple(draw(st.integers(0 if rank else 1, 9)) for _ in range(rank))
    chunks = tuple(draw(st.integers(1, 5)) for _ in range(rank))
    kind = draw(st.sampled_from(["plain", "sharded", "rectilinear", "v2"]))
    options: dict[str, Any] = {"chunks": chunks}
    if rank == 0 or 0 in shape:
        kind = "plain"
    if kind == "sharded":
        options["shards"] = tuple(n * draw(st.integers(1, 3)) for n in chunks)
    if kind == "rectilinear":
        options["chunks"] = [_parts(draw, length) for length in shape]
    if kind == "v2":
        options["zarr_format"] = 2
    values = np.arange(int(np.prod(shape)), dtype="i4").reshape(shape)
    with zarr.config.set({"array.rectilinear_chunks": True}):
        array = zarr.create_array(MemoryStore(), shape=shape, dtype="i4", fill_value=-7, **options)
        expected = np.full(shape, -7, dtype="i4")
        written = tuple(slice(0, draw(st.integers(0, length))) for length in shape)
        if all(part.stop for part in written):
            array[written] = values[written]
            expected[written] = values[written]
    return array, expected


def _parts(draw: st.DrawFn, length: int) -> list[int]:
    found: list[int] = []
    while sum(found) < length:
        found.append(draw(st.integers(1, length - sum(found))))
    return found


def _all(expected: np.ndarray[Any, Any]) -> list[tuple[int, ...]]:
    return [(*index, int(expected[index])) for index in np.ndindex(*expected.shape)]


@given(arrays(), st.data())
def test_cells_are_numpys(made: tuple[Any, Any], data: st.DataObject) -> None:
    array, expected = made
    table = cells(array)
    rows = _all(expected)
    assert rows_of(table.to_table()) == rows
    assert table.count_rows() == len(rows)
    # A filter, as SQL and as Python has it.
    names = [*(f"dim_{axis}" for axis in range(expected.ndim)), "value"]

    def condition() -> tuple[str, Any, Any]:
        name = data.draw(st.sampled_from(names))
        said = data.draw(st.sampled_from(sorted(OPERATORS)))
        number = data.draw(st.integers(-8, 12))
        at, compare = names.index(name), OPERATORS[said]
        expression = compare(pc.field(name), number)
        return f"{name} {said} {number}", expression, lambda row: compare(row[at], number)

    sql, expression, holds = condition()
    for _ in range(data.draw(st.integers(0, 3))):
        other = condition()
        mine = holds
        if data.draw(st.booleans()):
            sql, expression = f"({sql} AND {other[0]})", expression & other[1]
            holds = lambda row, a=mine, b=other[2]: a(row) and b(row)  # noqa: E731
        else:
            sql, expression = f"({sql} OR {other[0]})", expression | other[1]
            holds = lambda row, a=mine, b=other[2]: a(row) or b(row)  # noqa: E731
    if data.draw(st.booleans()):
        sql, expression, mine = f"NOT {sql}", ~expression, holds
        holds = lambda row, a=mine: not a(row)  # noqa: E731
    wanted = [row for row in rows if holds(row)]
    assert rows_of(table.to_table(filter=expression)) == wanted
    context = datafusion.SessionContext()
    context.register_dataset("t", table)
    try:
        found = context.sql(f"SELECT * FROM t WHERE {sql}").to_arrow_table()
    except Exception as error:  # DataFusion's own, of conditions that contradict themselves
        assert "for &: 'pyarrow.lib.BooleanScalar'" in str(error)  # noqa: PT017
        assert not wanted
    else:
        assert rows_of(found) == wanted
    # Some of the columns.
    columns = data.draw(st.lists(st.sampled_from(names), unique=True))
    some = table.to_table(columns=columns, filter=expression)
    assert some.num_rows == len(wanted)
    if columns:
        order = [names.index(name) for name in columns]
        assert rows_of(some) == sorted(tuple(row[at] for at in order) for row in wanted)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4), st.integers(1, 3)), max_size=3),
    st.integers(1, 200),
    st.data(),
)
def test_tiles_hold_every_wanted_chunk_once(
    axes: list[tuple[int, int, int]], most: int, data: st.DataObject
) -> None:
    edges = [regular_edges(0, length, chunk) for length, chunk, _ in axes]
    alive = [
        np.array([data.draw(st.booleans()) for _ in range(len(axis) - 1)], dtype=bool)
        for axis in edges
    ]
    shards = [shard for _, _, shard in axes]
    seen = np.zeros([len(axis) - 1 for axis in edges], dtype=int)
    for tile in tiles(edges, alive, shards, most):
        seen[tuple(slice(span.start, span.stop) for span in tile)] += 1
        lengths = [int(e[s.stop] - e[s.start]) for e, s in zip(edges, tile, strict=True)]
        assert np.prod(lengths) <= most or all(len(span) == 1 for span in tile)
    wanted = reduce(np.multiply.outer, alive, np.ones((), dtype=int))
    assert np.array_equal(seen, np.broadcast_to(wanted, seen.shape))


@given(st.lists(st.integers(0, 7), max_size=4), st.integers(1, 60))
def test_slabs_fill_a_window_in_order(shape: list[int], most: int) -> None:
    numbers = np.arange(int(np.prod(shape))).reshape(shape)
    found = [
        numbers[tuple(slice(axis.start, axis.stop) for axis in slab)].ravel()
        for slab in slabs(shape, most)
    ]
    assert all(part.size <= most for part in found)
    assert np.concatenate([[], *found]).tolist() == list(range(numbers.size))


def test_runs() -> None:
    assert list(runs(np.array([1, 1, 0, 1], dtype=bool))) == [range(2), range(3, 4)]
    assert list(runs(np.zeros(0, dtype=bool))) == []


VALUES: dict[str, Any] = {
    "bool": np.array([True, False, True]),
    **{
        kind: np.array([0, 1, 2], dtype=kind)
        for kind in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i2", ">u4", ">i8")
    },
    **{
        kind: np.array([0.5, np.nan, -np.inf], dtype=kind)
        for kind in ("f2", "f4", "f8", ">f4", ">f8")
    },
    "U4": np.array(["", "äöü", "abcd"]),
    "S3": np.array([b"", b"a", b"abc"]),
    "M8[ns]": np.array(["2020-01-01T00:00:00.123456789", "NaT", "1900-01-01"], "M8[ns]"),
    "M8[s]": np.array(["2020-01-01T00:00:01", "NaT", "1600-01-01"], "M8[s]"),
    "M8[D]": np.array(["2020-01-01", "NaT", "1600-01-01"], "M8[D]"),
    "m8[ms]": np.array([1, "NaT", -3], "m8[ms]"),
}


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_every_data_type(kind: str, zarr_format: Any) -> None:
    values = VALUES[kind]
    array = zarr.create_array(MemoryStore(), data=values, chunks=(2,), zarr_format=zarr_format)
    found = cells(array).to_table().column("value")
    expected = values.tolist()
    if values.dtype.kind == "f":
        expected = [None if v != v else v for v in expected]
    if values.dtype.kind in "mM":
        unit = "ns" if "ns" in kind else "us" if kind[0] == "M" else "ms"
        integers = values.astype(f"{kind[0]}8[{unit}]").astype("i8").tolist()
        expected = [None if n == np.iinfo("i8").min else n for n in integers]
        found = found.cast(pa.int64())
    np.testing.assert_equal(found.to_pylist(), expected)


def test_complex_numbers_are_structs() -> None:
    for kind in ("c8", "c16", ">c8"):
        values = np.array([[1 + 2j, 3j]], dtype=kind)
        array = zarr.create_array(MemoryStore(), data=values)
        table = cells(array)
        found = table.to_table().column("value").to_pylist()
        assert found == [{"real": 1.0, "imag": 2.0}, {"real": 0.0, "imag": 3.0}]
        context = datafusion.SessionContext()
        context.register_dataset("t", table)
        query = "SELECT sum(value['imag']) s FROM t WHERE value['real'] < 1"
        assert context.sql(query).to_pydict() == {"s": [3.0]}


@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
def test_structures_raw_bytes_and_texts() -> None:
    dtype = np.dtype([("n", ">i2"), ("z", "c8"), ("t", "S2")])
    values = np.array([(1, 2j, b"ab"), (3, 4, b"c")], dtype=dtype)
    array = zarr.create_array(MemoryStore(), data=values)
    assert cells(array).to_table().column("value").to_pylist() == [
        {"n": 1, "z": {"real": 0.0, "imag": 2.0}, "t": b"ab"},
        {"n": 3, "z": {"real": 4.0, "imag": 0.0}, "t": b"c"},
    ]
    raw = zarr.create_array(MemoryStore(), shape=(2,), dtype=np.dtype("V3"))
    raw[:] = np.array([b"abc", b"\x00\xff1"], dtype="V3")
    assert cells(raw).to_table().column("value").to_pylist() == [b"abc", b"\x00\xff1"]
    texts = zarr.create_array(MemoryStore(), shape=(3,), dtype="str", chunks=(2,))
    texts[:] = np.array(["a", "", "long " * 20], dtype=np.dtypes.StringDType())
    assert cells(texts).to_table().column("value").to_pylist() == ["a", "", "long " * 20]
    held = zarr.create_array(MemoryStore(), shape=(2,), dtype="variable_length_bytes")
    held[:] = np.array([b"a\xff", b""], dtype=object)
    assert cells(held).to_table().column("value").to_pylist() == [b"a\xff", b""]


def test_times_that_arrow_has_no_unit_for_are_integers() -> None:
    for kind in ("M8[ps]", "m8[Y]", "m8[as]"):
        array = zarr.create_array(MemoryStore(), data=np.array([5, -1], "i8").view(kind))
        found = cells(array).to_table().column("value")
        assert (found.type, found.to_pylist()) == (pa.int64(), [5, -1])


CODECS: dict[str, dict[str, Any]] = {
    "gzip": {"compressors": zarr.codecs.GzipCodec()},
    "blosc": {"compressors": zarr.codecs.BloscCodec(cname="lz4", shuffle="bitshuffle")},
    "zstd, crc32c": {"compressors": [zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()]},
    "none": {"compressors": None},
    "big endian": {"serializer": zarr.codecs.BytesCodec(endian="big")},
    "transposed": {"filters": zarr.codecs.TransposeCodec(order=(1, 0))},
}


@pytest.mark.parametrize("name", CODECS)
def test_every_codec(name: str) -> None:
    values = np.arange(35, dtype="f4").reshape(5, 7)
    array = zarr.create_array(MemoryStore(), data=values, chunks=(2, 3), **CODECS[name])
    expected = [(*at, float(values[at])) for at in np.ndindex(5, 7)]
    assert rows_of(cells(array).to_table()) == expected


def _written(dataset: xr.Dataset, zarr_format: Any = 3, **encoding: Any) -> Counting:
    store = MemoryStore()
    dataset.to_zarr(store, zarr_format=zarr_format, consolidated=False, encoding=encoding)
    return Counting(store)


def _grid() -> xr.Dataset:
    return xr.Dataset(
        {"t": (("y", "x"), np.arange(120, dtype="f4").reshape(10, 12))},
        coords={
            "y": np.linspace(50, 41, 10).astype("f4"),
            "x": np.linspace(0, 11, 12),
            "row": ("y", np.arange(10) * 10),
            "lat": (("y", "x"), np.add.outer(np.arange(10.0), np.arange(12.0))),
        },
    )


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_coordinates_are_columns(zarr_format: Any) -> None:
    grid = _grid()
    store = _written(grid, zarr_format, t={"chunks": (5, 4)}, lat={"chunks": (10, 12)})
    table = cells(zarr.open_array(store, path="t"))
    assert table.schema.names == ["dim_0", "dim_1", "y", "x", "lat", "row", "value"]
    frame = grid["t"].to_dataframe().reset_index()
    found = table.to_table().to_pandas().sort_values(["dim_0", "dim_1"], ignore_index=True)
    for ours, theirs in {"y": "y", "x": "x", "row": "row", "lat": "lat", "value": "t"}.items():
        np.testing.assert_array_equal(found[ours], frame[theirs])
    assert str(found["y"].dtype) == "float64"  # which queries' numbers are


@pytest.mark.parametrize(
    "condition", ["y > 45.5 AND x < 3", "dim_0 < 5 AND dim_1 < 4", "row <= 40 AND x <= 3"]
)
def test_filters_on_coordinates_leave_chunks_unread(condition: str) -> None:
    store = _written(_grid(), t={"chunks": (5, 4)})
    context = datafusion.SessionContext()
    context.register_dataset("t", cells(zarr.open_array(store, path="t")))
    expected = context.sql(f"SELECT value FROM (SELECT * FROM t LIMIT 1000) t WHERE {condition}")
    expected = rows_of(expected.to_arrow_table())
    store.keys.clear()
    found = context.sql(f"SELECT value FROM t WHERE {condition}").to_arrow_table()
    assert rows_of(found) == expected
    assert len(expected) > 0
    assert [key for key in store.chunks if key.startswith("t/")] == ["t/c/0/0"]


def test_corners_that_are_alternatives_leave_the_chunks_between_unread() -> None:
    store = _written(_grid(), t={"chunks": (2, 3)})
    table = cells(zarr.open_array(store, path="t"))
    field = pc.field
    corners = ((field("dim_0") < 1) & (field("dim_1") < 2)) | (
        (field("dim_0") > 8) & (field("dim_1") > 10)
    )
    store.keys.clear()
    assert table.to_table(columns=["value"], filter=corners)["value"].to_pylist() == [0, 1, 119]
    assert [key for key in store.chunks if key.startswith("t/")] == ["t/c/0/0", "t/c/4/3"]


def test_values_are_read_only_where_they_are_asked_for() -> None:
    store = _written(_grid(), t={"chunks": (5, 4)}, lat={"chunks": (5, 4)})
    table = cells(zarr.open_array(store, path="t"))
    store.keys.clear()
    assert table.to_table(columns=["dim_0", "x"]).num_rows == 120
    assert table.count_rows(filter=pc.field("y") > 45.5) == 60
    assert not [key for key in store.chunks if key.startswith(("t/", "lat/"))]
    assert table.to_table(columns=["value"]).num_rows == 120
    assert not [key for key in store.chunks if key.startswith("lat/")]


def test_shards_are_read_in_parts() -> None:
    store = Counting(MemoryStore())
    values = np.random.default_rng(0).random((64, 64))
    array = zarr.create_array(
        store, shape=(64, 64), dtype="f8", chunks=(8, 8), shards=(32, 32), compressors=None
    )
    array[:] = values
    table = cells(zarr.open_array(store))
    store.keys.clear()
    store.nbytes = 0
    corner = (pc.field("dim_0") < 4) & (pc.field("dim_1") > 60)
    found = table.to_table(columns=["value"], filter=corner)
    assert sorted(found["value"].to_pylist()) == sorted(values[:4, 61:].ravel().tolist())
    assert set(store.chunks) == {"c/0/1"}
    assert store.nbytes < 3 * 8 * 8 * 8  # a chunk, the shard's index, the metadata


def test_decoding(tmp_path: Path) -> None:
    packed = xr.Dataset(
        {
            "t": ("x", np.array([1.5, np.nan, 3.25, 4.0])),
            "flag": ("x", np.array([0, 1, 2, 255], dtype="u1"), {"_FillValue": np.uint8(255)}),
            "when": ("x", np.array(["2020-01-01", "NaT", "2020-01-03", "2020-01-04"], "M8[ns]")),
        }
    )
    encoding = {
        "t": {"dtype": "i2", "scale_factor": 0.25, "add_offset": 1.0, "_FillValue": -1},
        "when": {"units": "days since 2019-12-31", "dtype": "i4", "_FillValue": -1},
    }
    for zarr_format in (2, 3):
        store = tmp_path / f"{zarr_format}.zarr"
        packed.to_zarr(store, zarr_format=zarr_format, encoding=encoding, consolidated=False)
        plain = xr.open_zarr(store, decode_cf=False, consolidated=False)
        for name in packed:
            stored = cells(zarr.open_array(store, path=str(name), mode="r")).to_table()["value"]
            np.testing.assert_array_equal(stored.to_numpy(), plain[name].values)
        found = {
            str(name): cells(zarr.open_array(store, path=str(name), mode="r"), decode=True)
            for name in packed
        }
        columns = {name: one.to_table()["value"] for name, one in found.items()}
        assert columns["t"].to_pylist() == [1.5, None, 3.25, 4.0]
        assert columns["flag"].to_pylist() == [0, 1, 2, None]
        assert columns["flag"].type == pa.uint8()
        assert columns["when"].null_count == 1
        assert columns["when"][3].as_py().isoformat() == "2020-01-04T00:00:00"


def test_unsigned_numbers_and_fills_that_cannot_be(tmp_path: Path) -> None:
    array = zarr.create_array(
        MemoryStore(),
        data=np.array([-1, 5, -2], dtype="i1"),
        attributes={"_Unsigned": "true", "_FillValue": -1},
    )
    found = cells(array, decode=True).to_table()["value"]
    assert (found.type, found.to_pylist()) == (pa.uint8(), [None, 5, 254])
    odd = zarr.create_array(
        MemoryStore(), data=np.array([0, 5], dtype="i2"), attributes={"missing_value": 1e20}
    )
    assert cells(odd, decode=True).to_table()["value"].to_pylist() == [0, 5]


def test_a_calendar_that_timestamps_lack_is_an_error_that_says_the_way() -> None:
    array = zarr.create_array(
        MemoryStore(),
        data=np.array([0, 5], dtype="i2"),
        attributes={"units": "days since 2000-01-01", "calendar": "360_day"},
    )
    with pytest.raises(QueryError, match="calendar 360_day; leave decode out"):
        cells(array, decode=True)


def test_engines_read_the_same_table() -> None:
    store = _written(_grid(), t={"chunks": (5, 4)})
    table = cells(zarr.open_array(store, path="t"))
    assert isinstance(table, pads.Dataset)
    connection = duckdb.connect()
    connection.register("cells", table)
    # It doesn't push down that a float is greater: NaN is the greatest for it.
    query = "SELECT sum(value) FROM cells WHERE x < 2 AND dim_0 < 2"
    for read in (
        lambda: connection.sql(query).fetchall()[0][0],
        lambda: (
            pl.scan_pyarrow_dataset(table)
            .filter((pl.col("x") < 2) & (pl.col("y") > 48.5))
            .select(pl.col("value").sum())
            .collect()
            .item()
        ),
        lambda: pc.sum(
            table.to_table(["value"], filter=(pc.field("x") < 2) & (pc.field("y") > 48.5))["value"]
        ).as_py(),
    ):
        store.keys.clear()
        assert read() == 0 + 1 + 12 + 13
        assert [key for key in store.chunks if key.startswith("t/")] == ["t/c/0/0"]


def test_null_and_functions_that_ask_for_it() -> None:
    array = zarr.create_array(
        MemoryStore(),
        data=np.array([1, -1, 3, -1], dtype="i2"),
        chunks=(2,),
        attributes={"_FillValue": -1},
    )
    table = cells(array, decode=True)
    context = datafusion.SessionContext()
    context.register_dataset("t", table)

    def found(condition: str) -> list[int]:
        rows = context.sql(f"SELECT dim_0 FROM t WHERE {condition} ORDER BY 1").to_pydict()
        return list(rows["dim_0"])

    assert found("value IS NULL") == [1, 3]
    assert found("value IS NULL AND dim_0 < 2") == [1]
    assert found("value IS NOT NULL OR dim_0 = 3") == [0, 2, 3]
    assert found("value NOT IN (1)") == [2]
    assert found("dim_0 IN (0, 3) AND NOT value IN (7)") == [0]
    assert found("coalesce(value, 9) = 9") == [1, 3]
    assert found("dim_0 BETWEEN 1 AND 2") == [1, 2]
    asked = pc.if_else(pc.field("value").is_null(), 9, pc.field("dim_0")) == 9
    assert table.to_table(["dim_0"], filter=asked)["dim_0"].to_pylist() == [1, 3]
    assert table.to_table(filter=pc.scalar(True)).num_rows == 4
    assert table.to_table(filter=pc.scalar(None).cast(pa.bool_())).num_rows == 0


def test_a_long_axis_is_asked_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanned, "MOST", 64)
    monkeypatch.setattr(pieces_of, "MOST", 64)
    monkeypatch.setattr(arrays_of, "KEPT", 10)
    store = _written(
        xr.Dataset({"v": ("t", np.arange(1000.0))}, coords={"t": np.arange(1000) // 2}),
        v={"chunks": (50,)},
        t={"chunks": (100,)},
    )
    table = cells(zarr.open_array(store, path="v"))
    store.keys.clear()
    found = table.to_table(["value"], filter=(pc.field("t") == 300) | (pc.field("t") == 7))
    assert found["value"].to_pylist() == [14, 15, 600, 601]
    assert [key for key in store.chunks if key.startswith("v/")] == ["v/c/0", "v/c/12"]
    near = table.to_table(["value"], filter=pc.field("dim_0") >= 997)
    assert near["value"].to_pylist() == [997, 998, 999]
    fragments = list(table.get_fragments())
    assert len(fragments) == scanned.WORKERS
    parts = [pa.concat_tables([f.scanner(columns=["value"]).to_table()]) for f in fragments]
    assert sorted(pa.concat_tables(parts)["value"].to_pylist()) == list(range(1000))


def test_chunks_larger_than_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanned, "MOST", 10)
    monkeypatch.setattr(pieces_of, "MOST", 10)
    values = np.arange(6 * 7 * 5).reshape(6, 7, 5)
    table = cells(zarr.create_array(MemoryStore(), data=values, chunks=(6, 7, 5)))
    assert table.to_table(["value"])["value"].to_pylist() == values.ravel().tolist()
    asked = (pc.field("dim_0") > 3) & ((pc.field("dim_1") == 2) | (pc.field("value") == 209))
    expected = sorted([*values[4:, 2].ravel().tolist(), 209])
    assert sorted(table.to_table(["value"], filter=asked)["value"].to_pylist()) == expected
    both = (pc.field("dim_0") > 3) & (pc.field("dim_2") == 2)
    assert table.to_table(["value"], filter=both)["value"].to_pylist() == (
        values[4:, :, 2].ravel().tolist()
    )


def test_too_many_cells_are_an_error_unless_a_filter_tells_which() -> None:
    array = zarr.create_array(MemoryStore(), shape=(100, 100), chunks=(10, 10), dtype="f4")
    table = cells(array, max_cells=1000)
    with pytest.raises(QueryError, match="10,000 cells to go through, more than max_cells=1,000"):
        table.to_table()
    with pytest.raises(QueryError, match="filter by dim_0, dim_1, or allow more with max_cells"):
        table.to_table(filter=pc.field("value") > 3)
    assert table.to_table(filter=pc.field("dim_0") == 5).num_rows == 100
    with pytest.raises(QueryError, match="cells to go through"):
        table.to_table(filter=pc.field("dim_0") < 50)


def test_a_corrupt_chunk_is_named() -> None:
    store = MemoryStore()
    values = np.arange(12, dtype="i4").reshape(4, 3)
    zarr.create_array(store, data=values, chunks=(2, 3), name="red")
    key = "red/c/1/0"
    store._store_dict[key] = type(store._store_dict[key]).from_bytes(b"nonsense")
    table = cells(zarr.open_array(store, path="red", mode="r"))
    assert table.to_table(filter=pc.field("dim_0") < 2).num_rows == 6
    with pytest.raises(ChunkError, match="the chunk c/1/0 of red can't be read"):
        table.to_table()
    context = datafusion.SessionContext()
    context.register_dataset("t", table)
    with pytest.raises(Exception, match="the chunk c/1/0 of red"):
        context.sql("SELECT sum(value) FROM t").to_arrow_table()
    assert isinstance(table.failure, ChunkError)


def test_a_table_pickles_and_shows_itself(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "a.zarr", data=np.arange(6).reshape(2, 3))
    table = cells(array).filter(pc.field("dim_1") > 0)
    again = pickle.loads(pickle.dumps(table))
    assert (
        rows_of(again.to_table())
        == rows_of(table.to_table())
        == [
            (0, 1, 1),
            (0, 2, 2),
            (1, 1, 4),
            (1, 2, 5),
        ]
    )
    assert repr(table).startswith("<TableDataset: 6 cells of the array>\ndim_0: int64")
    assert table.head(2, columns=["value"])["value"].to_pylist() == [1, 2]
    with pytest.raises(QueryError, match=r"cells\(\) takes a zarr.Array, not a ndarray"):
        cells(np.zeros(3))  # type: ignore[arg-type]


def test_dimension_names_without_coordinates_are_positions() -> None:
    array = zarr.create_array(
        MemoryStore(), data=np.array([[1, 2], [3, 4]]), dimension_names=["y", None]
    )
    assert cells(array).to_table().to_pydict() == {
        "dim_0": [0, 0, 1, 1],
        "dim_1": [0, 1, 0, 1],
        "y": [0, 0, 1, 1],
        "value": [1, 2, 3, 4],
    }
    twice = zarr.create_array(MemoryStore(), data=np.eye(2), dimension_names=["x", "x"])
    assert cells(twice).schema.names == ["dim_0", "dim_1", "value"]
    named = zarr.create_array(MemoryStore(), data=np.eye(2), dimension_names=["value", "dim_0"])
    assert cells(named).schema.names == ["dim_0", "dim_1", "value"]


def test_coordinates_of_groups_above_and_of_itself() -> None:
    store = MemoryStore()
    root = zarr.open_group(store)
    root.create_array("time", data=np.array([10, 20]), dimension_names=["time"])
    inner = root.create_group("a/b")
    inner.create_array("v", data=np.array([1, 2]), dimension_names=["time"])
    found = cells(zarr.open_array(store, path="a/b/v")).to_table(["time", "value"])
    assert found.to_pydict() == {"time": [10, 20], "value": [1, 2]}
    own = cells(zarr.open_array(store, path="time")).to_table(["time", "value"])
    assert own.to_pydict() == {"time": [10, 20], "value": [10, 20]}


def test_fortran_order_of_zarr_v2() -> None:
    values = np.arange(12).reshape(3, 4)
    array = zarr.create_array(MemoryStore(), data=values, chunks=(3, 4), zarr_format=2, order="F")
    assert rows_of(cells(array).to_table()) == _all(values)


def test_times_whose_epoch_nanoseconds_cannot_tell() -> None:
    attributes = {"units": "days since 0001-01-01", "calendar": "proleptic_gregorian"}
    array = zarr.create_array(
        MemoryStore(), data=np.array([730000.0, 730001.5]), attributes=attributes
    )
    found = cells(array, decode=True).to_table()["value"]
    assert found.type == pa.timestamp("ns")
    variable = xr.Variable("x", array[:], attributes)
    expected = xr.conventions.decode_cf_variable("v", variable).values
    np.testing.assert_array_equal(found.to_numpy(), expected)


def test_what_cannot_be_decoded_says_so_and_is_no_corrupt_chunk() -> None:
    attributes = {"units": "days since 2000-01-01"}
    array = zarr.create_array(
        MemoryStore(), data=np.array([1.0, 9.97e36]), attributes=attributes, name="time"
    )
    with pytest.raises(ChunkError, match="values of time can't be told as .*; decode => false"):
        cells(array, decode=True).to_table()
    assert cells(array).to_table()["value"].to_pylist() == [1.0, 9.97e36]
    odd = zarr.create_array(
        MemoryStore(), data=np.array([1.0]), attributes={"scale_factor": "many"}
    )
    with pytest.raises(QueryError, match="can't be decoded"):
        cells(odd, decode=True)


def test_odd_neighbours_keep_nobody_from_reading() -> None:
    for attributes in ({"_FillValue": -9999.0}, {"_FillValue": None}, {"scale_factor": "0.1"}):
        root = zarr.create_group(MemoryStore())
        root.create_array("v", data=np.array([1, 2]), dimension_names=["x"])
        data = np.array([0.5, -9999.0])
        root.create_array("x", data=data, dimension_names=["x"], attributes=attributes)
        table = cells(zarr.open_array(root.store, path="v")).to_table()
        assert table.to_pydict() == {"dim_0": [0, 1], "x": [0.5, -9999.0], "value": [1, 2]}


def test_axes_of_zarr_v2_have_no_missing_values() -> None:
    dataset = xr.Dataset({"v": ("x", np.arange(3))}, coords={"x": np.arange(3)})
    store = MemoryStore()
    root = zarr.create_group(store, zarr_format=2)
    for name in ("v", "x"):
        data = dataset[name].values
        root.create_array(name, data=data, attributes={"_ARRAY_DIMENSIONS": ["x"]})
    table = cells(zarr.open_array(store, path="v"))
    assert table.to_table(filter=pc.field("x") == 0)["value"].to_pylist() == [0]


def test_texts_of_fixed_length_are_bytes_until_they_are_decoded() -> None:
    values = np.array([b"ab", b"\xe9"])
    array = zarr.create_array(MemoryStore(), data=values)
    assert cells(array).to_table()["value"].to_pylist() == [b"ab", b"\xe9"]
    with pytest.raises(ChunkError, match="decode => false gives what is stored"):
        cells(array, decode=True).to_table()
    latin = zarr.create_array(MemoryStore(), data=values, attributes={"_Encoding": "latin-1"})
    assert cells(latin, decode=True).to_table()["value"].to_pylist() == ["ab", "é"]
    missing = zarr.create_array(
        MemoryStore(), data=np.array(["a", "-", "?"]), attributes={"missing_value": ["-", "?"]}
    )
    assert cells(missing, decode=True).to_table()["value"].to_pylist() == ["a", None, None]


def test_nan_is_null_and_zero_is_one() -> None:
    array = zarr.create_array(MemoryStore(), data=np.array([1.0, np.nan, -0.0, 0.0]))
    table = cells(array)
    context = datafusion.SessionContext()
    context.register_dataset("t", table)
    for query, expected in {
        "SELECT count(*) n FROM t WHERE value > 0": 1,
        "SELECT count(*) FILTER (WHERE value > 0) n FROM t": 1,
        "SELECT count(*) n FROM t WHERE value = 0": 2,
        "SELECT count(*) FILTER (WHERE value = 0) n FROM t": 2,
        "SELECT count(value) n FROM t": 3,
    }.items():
        assert context.sql(query).to_pydict() == {"n": [expected]}, query


@pytest.mark.parametrize(
    "condition", ["value IS NOT NULL", "value IS NULL", "coalesce(value, 1) = 1", "value % 2 = 0"]
)
def test_filters_that_ask_for_null_leave_chunks_unread_too(condition: str) -> None:
    store = _written(_grid(), t={"chunks": (5, 4)})
    table = cells(zarr.open_array(store, path="t"))
    context = datafusion.SessionContext()
    context.register_dataset("t", table)
    context.from_arrow(table.to_table(), "known")
    for more in ("dim_0 < 5", "y > 45.5", "x < 4 AND dim_0 < 3"):
        store.keys.clear()
        query = f"SELECT value FROM TABLE WHERE {more} AND {condition}"
        found = context.sql(query.replace("TABLE", "t")).to_arrow_table()
        read = {key for key in store.chunks if key.startswith("t/")}
        assert rows_of(found) == rows_of(
            context.sql(query.replace("TABLE", "known")).to_arrow_table()
        )
        assert read <= {"t/c/0/0", "t/c/0/1", "t/c/0/2"}, more


def test_values_are_read_where_coordinates_of_swaths_pass() -> None:
    lat = np.add.outer(np.arange(20.0), np.zeros(20))
    lon = np.add.outer(np.zeros(20), np.arange(20.0))
    swath = xr.Dataset(
        {"v": (("row", "column"), np.arange(400.0).reshape(20, 20))},
        coords={"lat": (("row", "column"), lat), "lon": (("row", "column"), lon)},
    )
    store = _written(swath, v={"chunks": (5, 5)}, lat={"chunks": (5, 5)}, lon={"chunks": (5, 5)})
    table = cells(zarr.open_array(store, path="v"))
    place = (pc.field("lat") > 11) & (pc.field("lat") < 14) & (pc.field("lon") == 17)
    store.keys.clear()
    found = table.to_table(["value", "lat"], filter=place)
    assert found.to_pydict() == {"value": [257.0, 277.0], "lat": [12.0, 13.0]}
    assert [key for key in store.chunks if key.startswith("v/")] == ["v/c/2/3"]
    bright = table.to_table(["lat", "lon"], filter=pc.field("value") == 399)
    assert bright.to_pydict() == {"lat": [19.0], "lon": [19.0]}


def test_coordinates_are_read_once() -> None:
    cube = xr.Dataset(
        {"v": (("t", "y", "x"), np.arange(300.0).reshape(3, 10, 10))},
        coords={"lat": (("y", "x"), np.arange(100.0).reshape(10, 10)), "t": np.arange(3)},
    )
    store = _written(cube, v={"chunks": (1, 10, 10)}, lat={"chunks": (10, 10)})
    table = cells(zarr.open_array(store, path="v"))
    store.keys.clear()
    found = table.to_table(["lat", "value"], filter=pc.field("lat") >= 98)
    assert sorted(found["value"].to_pylist()) == [98, 99, 198, 199, 298, 299]
    assert store.keys.count("lat/c/0/0") == 1


def test_few_rows_read_little() -> None:
    store = Counting(MemoryStore())
    zarr.create_array(store, data=np.arange(10_000).reshape(100, 100), chunks=(10, 10))
    table = cells(zarr.open_array(store))
    store.keys.clear()
    assert table.head(1, columns=["value"])["value"].to_pylist() == [0]
    assert len(store.chunks) <= 10


@pytest.mark.parametrize("engine", ["datafusion", "duckdb", "polars", "pyarrow"])
def test_a_process_ends_that_read_a_few_rows_of_many(engine: str, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    zarr.create_array(path, shape=(4000, 4000), chunks=(500, 500), dtype="f4")
    read = {
        "datafusion": f"""import l2view
t = l2view.sql({str(path)!r}, "SELECT value FROM zarr_cells('') LIMIT 1").to_arrow_table()""",
        "duckdb": "import duckdb; t = duckdb.sql('SELECT * FROM ds LIMIT 1').to_arrow_table()",
        "polars": "import polars; t = polars.scan_pyarrow_dataset(ds).head(1).collect()",
        "pyarrow": "t = ds.head(1)",
    }[engine]
    code = f"""import zarr
from l2view.tables import cells
ds = cells(zarr.open_array({str(path)!r}, mode="r"))
{read}
print(len(t), flush=True)"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr[-2000:]


def test_a_forked_process_reads(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    zarr.create_array(path, data=np.arange(100), chunks=(10,))
    code = f"""import multiprocessing, zarr
from l2view.tables import cells
ds = cells(zarr.open_array({str(path)!r}, mode="r"))
def total(): return sum(ds.to_table(["value"])["value"].to_pylist())
assert total() == 4950
def child(queue): queue.put(total())
context = multiprocessing.get_context("fork")
queue = context.Queue()
process = context.Process(target=child, args=(queue,))
process.start()
print(queue.get(timeout=30))"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.stdout == "4950\n", done.stderr[-2000:]


def test_a_process_that_is_forked_while_another_thread_decodes_reads(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    zarr.create_array(path, data=np.arange(100), chunks=(10,))
    code = f"""import os, warnings, zarr
from l2view.decoding import QUIET
from l2view.tables import arrays, cells
ds = cells(zarr.open_array({str(path)!r}, mode="r"))
held = arrays._decoding(os.getpid())
while held.acquire(blocking=False): pass
QUIET.__enter__()
QUIET._lock.acquire()
child = os.fork()
if not child:
    assert ds.to_table(["value"]).num_rows == 100
    with QUIET: pass
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "7\n", done.stderr[-2000:]


def test_zarrs_event_loop_is_refused(tmp_path: Path) -> None:
    array = zarr.create_array(MemoryStore(), data=np.arange(4), chunks=(1,), shards=(2,))
    table, session = cells(array), session_of(array.store)

    async def read() -> int:
        return int(table.to_table().num_rows)

    async def query() -> int:
        return int(session.run("SELECT 1 FROM zarr_cells('')").count())

    with pytest.raises(QueryError, match="asyncio.to_thread"):
        sync(read())
    with pytest.raises(QueryError, match="asyncio.to_thread"):
        sync(query())
    assert asyncio.run(read()) == 4


def test_wrong_filters_are_errors() -> None:
    table = cells(zarr.create_array(MemoryStore(), data=np.arange(3)))
    with pytest.raises(QueryError, match="a filter is true or false, and dim_0 is int64"):
        table.to_table(filter=pc.field("dim_0"))
    with pytest.raises(l2view.FieldError, match='no field "valeu"; did you mean "value"'):
        table.to_table(["valeu"])
    shown = table.to_table(columns={"twice": pc.field("value") * 2, "at": pc.field("dim_0")})
    assert shown.to_pydict() == {"twice": [0, 2, 4], "at": [0, 1, 2]}


def test_the_most_cells_are_those_of_all_parts() -> None:
    array = zarr.create_array(MemoryStore(), shape=(4000, 1000), chunks=(500, 500), dtype="u1")
    table = cells(array, max_cells=2_000_000)
    context = datafusion.SessionContext()
    context.register_dataset("t", table)
    with pytest.raises(Exception, match="cells to go through, more than max_cells=2,000,000"):
        context.sql("SELECT sum(value) FROM t WHERE dim_0 < 2500").to_arrow_table()
    found = context.sql("SELECT count(value) n FROM t WHERE dim_0 < 1500").to_pydict()
    assert found == {"n": [1_500_000]}
