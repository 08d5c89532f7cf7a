"""The cells of a variable over the granules that a search finds, against xarray."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import duckdb
import icechunk
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.compute as pc
import pytest
import xarray as xr
import zarr
from builders import packed_store, put, texts, write_collection, write_swath
from hypothesis import given
from hypothesis import strategies as st
from zarr.storage import MemoryStore

import l2view
from l2view.errors import MissingGranuleWarning, QueryError
from l2view.search.table import MetaTable


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("swaths")
    return [write_swath(folder / f"s{n}.nc", n, rows=6 + n % 4, chunk=4) for n in range(8)]


@pytest.fixture(scope="module")
def swaths(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> l2view.Collection:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        store = tmp_path_factory.mktemp("collection")
        l2view.ingest([str(path) for path in files], store)
        return l2view.Collection(store)


def frame_of(files: list[Path]) -> pd.DataFrame:
    """Return the cells of all granules as xarray decodes them."""
    frames = []
    for path in files:
        dataset = xr.open_dataset(path, engine="h5netcdf")
        frame = dataset["sst"].to_dataframe().reset_index()
        frame["granule"] = path.stem
        frame["orbit"] = dataset.attrs["orbit_number"]
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def test_cells_of_all_granules_are_xarrays(swaths: l2view.Collection, files: list[Path]) -> None:
    table = swaths.open(fields=["orbit", "platform"]).cells("sst").to_table()
    assert table.schema.names == [
        *("granule", "idx", "orbit", "platform"),
        *("dim_0", "dim_1", "row", "column", "lat", "lon", "value"),
    ]
    order = ["granule", "row", "column"]
    found = table.to_pandas().sort_values(order, ignore_index=True)
    expected = frame_of(files).sort_values(order, ignore_index=True)
    for ours, theirs in (("lat", "lat"), ("lon", "lon"), ("value", "sst"), ("orbit", "orbit")):
        np.testing.assert_array_equal(found[ours], expected[theirs])


def test_the_search_and_the_filters_prune(swaths: l2view.Collection, files: list[Path]) -> None:
    frame = frame_of(files)
    query = """
        SELECT platform, count(*) AS n, avg(value) AS v
        FROM cells('sst', where => 'orbit < $most', bbox => [-180, 0, 180, 90])
        WHERE row >= 4 AND lon > -170 GROUP BY platform ORDER BY platform
    """
    found = swaths.sql(query, {"most": 6}).to_pandas()
    kept = frame[(frame.orbit < 6) & (frame.row >= 4) & (frame.lon > -170)]
    expected = kept.groupby(kept.orbit.map(lambda n: "AB"[n % 2])).sst.agg(["count", "mean"])
    assert found["platform"].tolist() == ["A", "B"]
    assert found["n"].tolist() == expected["count"].tolist()
    np.testing.assert_allclose(found["v"], expected["mean"])


def test_months_of_the_issue(swaths: l2view.Collection, files: list[Path]) -> None:
    query = """
        SELECT date_trunc('month', datetime) m, avg(value) v
        FROM cells('sst', where => 'orbit BETWEEN 1 AND 3') GROUP BY m
    """
    (row,) = swaths.sql(query).to_pylist()
    frame = frame_of(files)
    assert row["m"].isoformat() == "2025-06-01T00:00:00"
    assert row["v"] == pytest.approx(frame[frame.orbit.between(1, 3)].sst.mean())


def test_footprints_are_columns_where_they_are_asked_for(swaths: l2view.Collection) -> None:
    query = "SELECT * FROM cells('sst', limit => 1) LIMIT 1"
    assert "bbox" not in swaths.sql(query).to_arrow_table().schema.names
    query = "SELECT ST_XMin(bbox) x FROM cells('sst', fields => ['bbox'], ids => ['s1']) LIMIT 1"
    (row,) = swaths.sql(query).to_pylist()
    assert -174 < row["x"] < -172


def test_stored_numbers_on_request(swaths: l2view.Collection, files: list[Path]) -> None:
    found = swaths.sql("SELECT value FROM cells('sst', decode => false)").to_arrow_table()
    assert str(found.schema.field("value").type) == "int16"
    stored = [xr.open_dataset(f, engine="h5netcdf", decode_cf=False)["sst"] for f in files]
    assert sorted(found["value"].to_pylist()) == sorted(
        np.concatenate([one.values.ravel() for one in stored]).tolist()
    )


def test_cropped_views_have_the_cells_that_they_show(swaths: l2view.Collection) -> None:
    view = swaths.open("orbit = 3").sel(bbox=(-180, 4, 180, 6), exact=True)
    array = view[f"{view.names[0]}/sst"]
    table = view.cells("sst", decode=False).to_table()
    assert 0 < array.shape[0] < 9
    values = table.sort_by([("dim_0", "ascending"), ("dim_1", "ascending")])
    assert values["value"].to_pylist() == array[:].ravel().tolist()
    assert max(table["dim_0"].to_pylist()) == array.shape[0] - 1
    lat = view[f"{view.names[0]}/lat"][:]
    assert sorted(table["lat"].to_pylist()) == sorted(lat.ravel().tolist())


def test_engines_read_the_same_table(swaths: l2view.Collection, files: list[Path]) -> None:
    table = swaths.open().cells("sst")
    frame = frame_of(files)
    expected = frame[(frame.orbit == 5) & (frame.row < 4)].sst.sum()
    connection = duckdb.connect()
    connection.register("cells", table)
    query = "SELECT sum(value) FROM cells WHERE orbit = 5 AND dim_0 < 4"
    assert connection.sql(query).fetchall()[0][0] == pytest.approx(expected)
    found = pl.scan_pyarrow_dataset(table).filter((pl.col("orbit") == 5) & (pl.col("row") < 4))
    assert found.select(pl.col("value").sum()).collect().item() == pytest.approx(expected)
    again = pickle.loads(pickle.dumps(table))
    assert again.count_rows() == len(frame)


def test_granules_are_left_unread(files: list[Path], tmp_path: Path) -> None:
    for path in files:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    store = tmp_path / "collection"
    l2view.ingest(str(tmp_path / "*.nc"), store)
    for path in sorted(tmp_path.glob("*.nc")):
        if path.stem != "s5":
            path.unlink()  # whose chunks nobody may want
    collection = l2view.Collection(store)
    query = "SELECT count(value) FROM cells('sst') WHERE orbit = 5"
    assert collection.sql(query).to_pydict() == {"count(cells().value)": [7 * 8]}
    found = collection.sql("SELECT count(value) n FROM cells('sst', ids => ['s5'])")
    assert found.to_pydict() == {"n": [56]}
    with pytest.raises(Exception, match="sst/c/"):
        collection.sql("SELECT sum(value) FROM cells('sst')").to_arrow_table()


def test_fields_are_read_when_a_query_asks_for_them(
    swaths: l2view.Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    read = MetaTable.take

    def take(self: Any, rows: Any, columns: Any = None, **options: Any) -> Any:
        asked.extend(columns or self.schema.names)
        return read(self, rows, columns, **options)

    monkeypatch.setattr(MetaTable, "take", take)
    swaths.sql("SELECT platform, avg(value) FROM cells('sst') GROUP BY platform").to_pylist()
    assert "platform" in asked
    assert "bbox" not in asked


def test_variables_are_named_by_path_or_name() -> None:
    root = zarr.create_group(MemoryStore())
    for name in "ab":
        for path in ("x/time", "y/time", "y/n"):
            root.create_array(f"{name}/{path}", data=np.arange(3), dimension_names=["t"])
    view = l2view.open(packed_store(root, [{"id": name} for name in "ab"]))
    assert view.cells("n").count_rows() == 6
    assert view.cells("/y/time").count_rows() == 6
    with pytest.raises(QueryError, match='several arrays are called "time".* of x/time, y/time'):
        view.cells("time")
    with pytest.raises(QueryError, match='no variable "tme"; .*variables: x/time, y/n, y/time'):
        view.cells("tme")
    shown = l2view.open(packed_store(root, [{"id": "a"}]), variables="x/*")
    assert shown.cells("time").count_rows() == 3
    with pytest.raises(QueryError, match='no variable "n"'):
        shown.cells("n")


def test_granules_of_other_ranks_types_and_coordinates_are_in_one_table() -> None:
    root = zarr.create_group(MemoryStore())
    one = root.create_group("a")
    put(one, "v", np.array([[1, 2]], dtype="i2"), dimension_names=["y", "x"])
    put(one, "x", np.array([10.0, 20.0]), dimension_names=["x"])
    other = root.create_group("b")
    put(other, "v", np.array([3.5, 4.5], dtype="f4"), dimension_names=["x"])
    put(other, "w", np.array([0, 1]), dimension_names=["x"])
    other["v"].attrs["coordinates"] = "w"
    view = l2view.open(packed_store(root, [{"id": "a"}, {"id": "b"}]), fields=["id"])
    table = view.cells("v")
    assert table.schema.names == [
        *("granule", "idx", "id", "dim_0", "dim_1", "y", "x", "w", "value")
    ]
    assert table.to_table(["granule", "dim_0", "dim_1", "y", "x", "w", "value"]).to_pydict() == {
        "granule": ["a", "a", "b", "b"],
        "dim_0": [0, 0, 0, 1],
        "dim_1": [0, 1, None, None],
        "y": [0, 0, None, None],
        "x": [10.0, 20.0, None, None],
        "w": [None, None, 0, 1],
        "value": [1.0, 2.0, 3.5, 4.5],
    }
    assert table.to_table(["value"], filter=pc.field("x") > 10)["value"].to_pylist() == [2.0]
    found = table.to_table(["value"], filter=pc.field("dim_1").is_null())
    assert found["value"].to_pylist() == [3.5, 4.5]
    either = (pc.field("w") == 1) | (pc.field("dim_1") == 0)
    assert table.to_table(["value"], filter=either)["value"].to_pylist() == [1.0, 4.5]


def test_values_without_a_type_in_common_are_an_error() -> None:
    root = zarr.create_group(MemoryStore())
    put(root.create_group("a"), "v", np.array([1]))
    put(root.create_group("b"), "v", texts(["x"]))
    view = l2view.open(packed_store(root, [{"id": "a"}, {"id": "b"}]))
    with pytest.raises(QueryError, match="v differs between granules: no data type holds all of"):
        view.cells("v")


def test_fields_whose_names_are_taken_are_called_otherwise() -> None:
    root = zarr.create_group(MemoryStore())
    put(root.create_group("a"), "v", np.array([1, 2]), dimension_names=["y"])
    rows = [{"id": "a", "value": 7, "y": "north", "granule": 3}]
    table = l2view.open(packed_store(root, rows)).cells("v").to_table()
    assert set(table.schema.names) >= {"granule", "granule_granule", "granule_value", "granule_y"}
    assert table.select(["granule_value", "granule_y", "y", "value"]).to_pylist()[1] == {
        "granule_value": 7,
        "granule_y": "north",
        "y": 1,
        "value": 2,
    }


def test_granules_without_arrays_are_told() -> None:
    store = MemoryStore()
    write_collection(store, 5)
    with pytest.warns(MissingGranuleWarning, match="1 of 5 granules have no arrays in memory, and"):
        table = l2view.Collection(store).sql("SELECT DISTINCT granule FROM cells('red')")
    assert len(table.to_pylist()) == 4


def test_a_search_without_granules_has_no_cells(swaths: l2view.Collection) -> None:
    query = "SELECT count(*) n, sum(value) v FROM cells('sst', where => 'orbit > 99')"
    assert swaths.sql(query).to_pylist() == [{"n": 0, "v": None}]
    assert swaths.open("orbit > 99").cells("sst").to_table().num_rows == 0


@pytest.mark.parametrize("layout", ["packed", "groups"])
@given(data=st.data())
def test_cells_are_numpys_whatever_the_granules(layout: str, data: st.DataObject) -> None:
    root = zarr.create_group(MemoryStore())
    meta: list[dict[str, Any]] = []
    expected = []
    for number in range(data.draw(st.integers(1, 4))):
        shape = (data.draw(st.integers(1, 6)), data.draw(st.integers(1, 5)))
        values = np.arange(shape[0] * shape[1], dtype="i2").reshape(shape) - 3
        scale = data.draw(st.sampled_from([None, 0.5, 2.0]))
        fill = data.draw(st.sampled_from([None, 0, 1]))
        attributes: dict[str, Any] = {} if scale is None else {"scale_factor": scale}
        attributes |= {} if fill is None else {"_FillValue": fill}
        chunks = (data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4)))
        group = root.create_group(f"g{number}")
        group.create_array("v", data=values, chunks=chunks, attributes=attributes)
        meta.append({"id": f"g{number}", "n": number})
        decoded = values * (scale or 1.0)
        for at in np.ndindex(*shape):
            value = None if fill is not None and values[at] == fill else float(decoded[at])
            expected.append((number, *at, value))
    if layout == "packed":
        store: Any = packed_store(root, meta)
    else:
        store = root.store
        fields = root.create_group("meta")
        put(fields, "id", texts([row["id"] for row in meta]))
        put(fields, "n", np.arange(len(meta)))
    most, row, value = (data.draw(st.integers(-1, 6)) for _ in range(3))
    query = f"""
        SELECT n, dim_0, dim_1, value FROM cells('v')
        WHERE n < {most} OR dim_0 >= {row} AND value > {value}
    """
    found = l2view.sql(store, query).to_arrow_table()
    rows = zip(*(column.to_pylist() for column in found.columns), strict=True)
    wanted = [
        one
        for one in expected
        if one[0] < most or (one[1] >= row and one[3] is not None and one[3] > value)
    ]
    assert sorted(rows, key=str) == sorted(wanted, key=str)


def test_real_swaths(shared_data: Path, tmp_path: Path) -> None:
    netCDF4 = pytest.importorskip("netCDF4")
    paths = sorted(shared_data.glob("l2/ascat_2015*.nc"))
    l2view.ingest([str(path) for path in paths], tmp_path / "collection")
    table = l2view.open(tmp_path / "collection").cells("wind_speed")
    for path in paths:
        with netCDF4.Dataset(path) as source:
            expected = source["wind_speed"][:].filled(np.nan)
            lat = source["lat"][:].filled(np.nan)
        own = table.to_table(
            ["dim_0", "dim_1", "lat", "value"], filter=pc.field("granule") == path.stem
        ).sort_by([("dim_0", "ascending"), ("dim_1", "ascending")])
        np.testing.assert_allclose(
            own["value"].to_numpy().astype("f8"), expected.ravel().astype("f8"), rtol=1e-6
        )
        np.testing.assert_allclose(own["lat"].to_numpy(), lat.ravel(), rtol=1e-6)


@pytest.mark.slow
def test_arrays_of_the_real_granules_are_numpys(shared_data: Path, tmp_path: Path) -> None:
    """One array of each dtype, rank and encoding; every array in the long form."""
    every = "L2VIEW_EXAMPLES" in os.environ
    paths = [path for path in sorted(shared_data.glob("l2/*")) if path.suffix != ".md"]
    l2view.ingest([str(path) for path in paths], tmp_path / "collection")
    icechunk.set_logs_filter("error")
    view = l2view.open(tmp_path / "collection")
    kinds = set()
    for name in view.names:
        for path, array in view.get_group(name).members(max_depth=None):
            if not isinstance(array, zarr.Array):
                continue
            kind = (array.dtype, array.ndim, repr(array.filters), repr(array.compressors))
            if kind in kinds and not every:
                continue
            kinds.add(kind)
            table = l2view.zarr_cells(array)
            columns = [f"dim_{axis}" for axis in range(array.ndim)]
            found = table.to_table([*columns, "value"])
            values = array[...]
            assert found.num_rows == array.size, path
            index = tuple(found[column].to_numpy() for column in columns)
            expected = np.asarray(values)[index] if columns else np.atleast_1d(values)
            ours = found["value"]
            if expected.dtype.kind in "SUTO":
                assert ours.to_pylist() == expected.tolist()
            else:
                np.testing.assert_array_equal(ours.to_numpy(), expected)
            if columns:
                numbers = np.ravel_multi_index(index, array.shape)
                assert (np.bincount(numbers, minlength=array.size) == 1).all()
    assert len(kinds) >= 14


def test_wide_fields_take_no_more_memory_than_they_must() -> None:
    root = zarr.create_group(MemoryStore())
    put(root.create_group("a"), "v", np.zeros((1000, 1000), "u1"), chunks=(1000, 1000))
    table = l2view.open(packed_store(root, [{"id": "a", "history": "x" * 2500}])).cells("v")
    first = table.head(1)
    assert first["history"].to_pylist() == ["x" * 2500]
    batch = next(iter(table.to_batches()))
    assert batch.nbytes < 2**26
    assert (
        table.count_rows(filter=(pc.field("history") == "x" * 2500) & (pc.field("dim_0") < 2))
        == 2000
    )


def test_granules_whose_field_is_null_are_left_unread() -> None:
    root = zarr.create_group(MemoryStore())
    rows: list[dict[str, Any]] = []
    for number in range(6):
        group = root.create_group(f"g{number}")
        put(group, "v", np.arange(4) + number, dimension_names=["x"])
        rows.append({"id": f"g{number}", "n": number if number % 2 else None})
    view = l2view.open(packed_store(root, rows))
    table = view.cells("v")
    opened: list[int] = []
    arrays = table.table.arrays[0]
    real = type(arrays).open

    def watched(self: Any, member: int, name: str) -> Any:
        opened.append(member)
        return real(self, member, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(arrays), "open", watched)
        for condition in (
            (pc.field("n") < 4) & (pc.field("value") > 0),
            (pc.field("n") < 4) & pc.field("value").is_valid(),
        ):
            opened.clear()
            found = table.to_table(["granule", "value"], filter=condition)
            assert set(found["granule"].to_pylist()) == {"g1", "g3"}
            assert sorted(set(opened)) == [1, 3]


def test_coordinates_of_other_lengths_and_types_are_no_columns() -> None:
    root = zarr.create_group(MemoryStore())
    for name, length in (("a", 3), ("b", 2)):
        group = root.create_group(name)
        put(group, "v", np.arange(3), dimension_names=["z"])
        put(group, "z", np.arange(length) * 10.0, dimension_names=["z"])
    view = l2view.open(packed_store(root, [{"id": "a"}, {"id": "b"}]), fields=["id"])
    with pytest.warns(l2view.L2ViewWarning, match="z is as long as v in 1 of 2 granules"):
        assert "z" not in view.cells("v").schema.names
    texts_too = zarr.create_group(MemoryStore())
    for name, values in (("a", np.arange(2.0)), ("b", texts(["x", "y"]))):
        group = texts_too.create_group(name)
        put(group, "v", np.arange(2), dimension_names=["z"])
        put(group, "z", values, dimension_names=["z"])
    view = l2view.open(packed_store(texts_too, [{"id": "a"}, {"id": "b"}]), fields=["id"])
    with pytest.warns(l2view.L2ViewWarning, match="the data types of z beside v differ"):
        assert "z" not in view.cells("v").schema.names
    with pytest.raises(QueryError, match="named by a text, not by 5"):
        view.cells(5)  # type: ignore[arg-type]


def test_times_and_complex_numbers_of_other_widths_are_brought_together() -> None:
    root = zarr.create_group(MemoryStore())
    put(root.create_group("a"), "v", np.array([1, 5], "M8[ps]"))
    put(root.create_group("b"), "v", np.array([1, 5], "M8[ns]"))
    found = l2view.open(packed_store(root, [{"id": "a"}, {"id": "b"}])).cells("v").to_table()
    assert sorted(found["value"].to_pylist()) == [1, 5, 1000, 5000]
    other = zarr.create_group(MemoryStore())
    put(other.create_group("a"), "v", np.array([1.5], "f4"))
    put(other.create_group("b"), "v", np.array([2j], "c8"))
    found = l2view.open(packed_store(other, [{"id": "a"}, {"id": "b"}])).cells("v").to_table()
    assert found["value"].to_pylist() == [{"real": 1.5, "imag": 0.0}, {"real": 0.0, "imag": 2.0}]
