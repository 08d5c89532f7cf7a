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
from tables import Counting, grid_dataset, rows_of, rows_of_numpy, written
from zarr.core.sync import sync
from zarr.storage import MemoryStore

import l2view
from l2view import zarr_cells
from l2view.api import open_session
from l2view.arrays.grid import regular_edges, runs, slabs, tiles
from l2view.errors import ChunkError, QueryError
from l2view.limits import override_limits

scanned = importlib.import_module("l2view.cells.scan")
arrays_of = importlib.import_module("l2view.arrays.stored")
pieces_of = importlib.import_module("l2view.cells.windows")

OPERATORS = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "<>": operator.ne,
}


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


@given(arrays(), st.data())
def test_cells_are_numpys(made: tuple[Any, Any], data: st.DataObject) -> None:
    array, expected = made
    table = zarr_cells(array)
    rows = rows_of_numpy(expected)
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


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_coordinates_are_columns(zarr_format: Any) -> None:
    grid = grid_dataset()
    store = written(grid, zarr_format, t={"chunks": (5, 4)}, lat={"chunks": (10, 12)})
    table = zarr_cells(zarr.open_array(store, path="t"))
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
    store = written(grid_dataset(), t={"chunks": (5, 4)})
    context = datafusion.SessionContext()
    context.register_dataset("t", zarr_cells(zarr.open_array(store, path="t")))
    expected = context.sql(f"SELECT value FROM (SELECT * FROM t LIMIT 1000) t WHERE {condition}")
    expected = rows_of(expected.to_arrow_table())
    store.keys.clear()
    found = context.sql(f"SELECT value FROM t WHERE {condition}").to_arrow_table()
    assert rows_of(found) == expected
    assert len(expected) > 0
    assert [key for key in store.chunks if key.startswith("t/")] == ["t/c/0/0"]


def test_corners_that_are_alternatives_leave_the_chunks_between_unread() -> None:
    store = written(grid_dataset(), t={"chunks": (2, 3)})
    table = zarr_cells(zarr.open_array(store, path="t"))
    field = pc.field
    corners = ((field("dim_0") < 1) & (field("dim_1") < 2)) | (
        (field("dim_0") > 8) & (field("dim_1") > 10)
    )
    store.keys.clear()
    assert table.to_table(columns=["value"], filter=corners)["value"].to_pylist() == [0, 1, 119]
    assert [key for key in store.chunks if key.startswith("t/")] == ["t/c/0/0", "t/c/4/3"]


def test_values_are_read_only_where_they_are_asked_for() -> None:
    store = written(grid_dataset(), t={"chunks": (5, 4)}, lat={"chunks": (5, 4)})
    table = zarr_cells(zarr.open_array(store, path="t"))
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
    table = zarr_cells(zarr.open_array(store))
    store.keys.clear()
    store.nbytes = 0
    corner = (pc.field("dim_0") < 4) & (pc.field("dim_1") > 60)
    found = table.to_table(columns=["value"], filter=corner)
    assert sorted(found["value"].to_pylist()) == sorted(values[:4, 61:].ravel().tolist())
    assert set(store.chunks) == {"c/0/1"}
    assert store.nbytes < 3 * 8 * 8 * 8  # a chunk, the shard's index, the metadata


def test_engines_read_the_same_table() -> None:
    store = written(grid_dataset(), t={"chunks": (5, 4)})
    table = zarr_cells(zarr.open_array(store, path="t"))
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


@override_limits(window_cells=64, cached_values=10)
def test_a_long_axis_is_asked_in_parts() -> None:
    store = written(
        xr.Dataset({"v": ("t", np.arange(1000.0))}, coords={"t": np.arange(1000) // 2}),
        v={"chunks": (50,)},
        t={"chunks": (100,)},
    )
    table = zarr_cells(zarr.open_array(store, path="v"))
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


@override_limits(window_cells=10)
def test_chunks_larger_than_a_window() -> None:
    values = np.arange(6 * 7 * 5).reshape(6, 7, 5)
    table = zarr_cells(zarr.create_array(MemoryStore(), data=values, chunks=(6, 7, 5)))
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
    table = zarr_cells(array, max_cells=1000)
    with pytest.raises(QueryError, match="10,000 cells to go through, more than max_cells=1,000"):
        table.to_table()
    with pytest.raises(QueryError, match="filter by dim_0, dim_1, or allow more with max_cells"):
        table.to_table(filter=pc.field("value") > 3)
    assert table.to_table(filter=pc.field("dim_0") == 5).num_rows == 100
    with pytest.raises(QueryError, match="cells to go through"):
        table.to_table(filter=pc.field("dim_0") < 50)


def test_more_cells_than_64_bits_can_tell() -> None:
    shape = (2**32, 2**32, 2**32)
    array = zarr.create_array(MemoryStore(), shape=shape, chunks=(2**31, 2**31, 2**31), dtype="u1")
    table = zarr_cells(array)
    assert table.count_rows() == 2**96
    with pytest.raises(QueryError, match=f"{2**96:,} cells to go through"):
        table.to_table()


def test_a_corrupt_chunk_is_named() -> None:
    store = MemoryStore()
    values = np.arange(12, dtype="i4").reshape(4, 3)
    zarr.create_array(store, data=values, chunks=(2, 3), name="red")
    key = "red/c/1/0"
    store._store_dict[key] = type(store._store_dict[key]).from_bytes(b"nonsense")
    table = zarr_cells(zarr.open_array(store, path="red", mode="r"))
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
    table = zarr_cells(array).filter(pc.field("dim_1") > 0)
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
        zarr_cells(np.zeros(3))  # type: ignore[arg-type]


def test_dimension_names_without_coordinates_are_positions() -> None:
    array = zarr.create_array(
        MemoryStore(), data=np.array([[1, 2], [3, 4]]), dimension_names=["y", None]
    )
    assert zarr_cells(array).to_table().to_pydict() == {
        "dim_0": [0, 0, 1, 1],
        "dim_1": [0, 1, 0, 1],
        "y": [0, 0, 1, 1],
        "value": [1, 2, 3, 4],
    }
    twice = zarr.create_array(MemoryStore(), data=np.eye(2), dimension_names=["x", "x"])
    assert zarr_cells(twice).schema.names == ["dim_0", "dim_1", "value"]
    named = zarr.create_array(MemoryStore(), data=np.eye(2), dimension_names=["value", "dim_0"])
    assert zarr_cells(named).schema.names == ["dim_0", "dim_1", "value"]


def test_coordinates_of_groups_above_and_of_itself() -> None:
    store = MemoryStore()
    root = zarr.open_group(store)
    root.create_array("time", data=np.array([10, 20]), dimension_names=["time"])
    inner = root.create_group("a/b")
    inner.create_array("v", data=np.array([1, 2]), dimension_names=["time"])
    found = zarr_cells(zarr.open_array(store, path="a/b/v")).to_table(["time", "value"])
    assert found.to_pydict() == {"time": [10, 20], "value": [1, 2]}
    own = zarr_cells(zarr.open_array(store, path="time")).to_table(["time", "value"])
    assert own.to_pydict() == {"time": [10, 20], "value": [10, 20]}


@pytest.mark.parametrize(
    "condition", ["value IS NOT NULL", "value IS NULL", "coalesce(value, 1) = 1", "value % 2 = 0"]
)
def test_filters_that_ask_for_null_leave_chunks_unread_too(condition: str) -> None:
    store = written(grid_dataset(), t={"chunks": (5, 4)})
    table = zarr_cells(zarr.open_array(store, path="t"))
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
    store = written(swath, v={"chunks": (5, 5)}, lat={"chunks": (5, 5)}, lon={"chunks": (5, 5)})
    table = zarr_cells(zarr.open_array(store, path="v"))
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
    store = written(cube, v={"chunks": (1, 10, 10)}, lat={"chunks": (10, 10)})
    table = zarr_cells(zarr.open_array(store, path="v"))
    store.keys.clear()
    found = table.to_table(["lat", "value"], filter=pc.field("lat") >= 98)
    assert sorted(found["value"].to_pylist()) == [98, 99, 198, 199, 298, 299]
    assert store.keys.count("lat/c/0/0") == 1


def test_few_rows_read_little() -> None:
    store = Counting(MemoryStore())
    zarr.create_array(store, data=np.arange(10_000).reshape(100, 100), chunks=(10, 10))
    table = zarr_cells(zarr.open_array(store))
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
from l2view import zarr_cells
ds = zarr_cells(zarr.open_array({str(path)!r}, mode="r"))
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
from l2view import zarr_cells
ds = zarr_cells(zarr.open_array({str(path)!r}, mode="r"))
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


def test_a_forked_process_has_pools_of_its_own() -> None:
    code = """import multiprocessing
from l2view.virtual.granules import submit
assert submit(int, "1").result() == 1
def child(queue): queue.put(submit(int, "2").result(timeout=20))
context = multiprocessing.get_context("fork")
queue = context.Queue()
process = context.Process(target=child, args=(queue,))
process.start()
print(queue.get(timeout=30))"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.stdout == "2\n", done.stderr[-2000:]


def test_a_process_that_is_forked_while_another_thread_decodes_reads(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    zarr.create_array(path, data=np.arange(100), chunks=(10,))
    code = f"""import os, warnings, zarr
from l2view import zarr_cells
from l2view.arrays import stored
from l2view.arrays.quiet import QUIET
ds = zarr_cells(zarr.open_array({str(path)!r}, mode="r"))
held = stored._decode_slots(os.getpid())
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
    table, session = zarr_cells(array), open_session(array.store)

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
    table = zarr_cells(zarr.create_array(MemoryStore(), data=np.arange(3)))
    with pytest.raises(QueryError, match="a filter is true or false, and dim_0 is int64"):
        table.to_table(filter=pc.field("dim_0"))
    with pytest.raises(l2view.FieldError, match='no field "valeu"; did you mean "value"'):
        table.to_table(["valeu"])
    shown = table.to_table(columns={"twice": pc.field("value") * 2, "at": pc.field("dim_0")})
    assert shown.to_pydict() == {"twice": [0, 2, 4], "at": [0, 1, 2]}


def test_the_most_cells_are_those_of_all_parts() -> None:
    array = zarr.create_array(MemoryStore(), shape=(4000, 1000), chunks=(500, 500), dtype="u1")
    table = zarr_cells(array, max_cells=2_000_000)
    context = datafusion.SessionContext()
    context.register_dataset("t", table)
    with pytest.raises(Exception, match="cells to go through, more than max_cells=2,000,000"):
        context.sql("SELECT sum(value) FROM t WHERE dim_0 < 2500").to_arrow_table()
    found = context.sql("SELECT count(value) n FROM t WHERE dim_0 < 1500").to_pydict()
    assert found == {"n": [1_500_000]}


def test_the_columns_of_a_filter_are_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    filters = importlib.import_module("l2view.scan.filter")
    looked: list[Any] = []
    columns_of = filters.columns_of
    monkeypatch.setattr(
        filters, "columns_of", lambda *args: looked.append(args) or columns_of(*args)
    )
    dataset = zarr_cells(zarr.create_array({}, data=np.arange(8), chunks=(2,)))
    with override_limits(window_cells=2):
        for low in (3, 5):
            fragments = list(dataset.get_fragments(pc.field("value") > low))
            scans = [f.scanner(filter=pc.field("value") > low).to_table() for f in fragments]
            values = sorted(pa.concat_tables(scans)["value"].to_pylist())
            assert values == list(range(low + 1, 8))
    assert len(fragments) > 1
    assert len(looked) == 2
