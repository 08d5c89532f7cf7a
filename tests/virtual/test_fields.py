"""The fields in a view's root, as Zarr arrays and as a Dataset."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
import xarray as xr
import zarr
from builders import boxes, put, put_wkb, texts, write_collection
from zarr.storage import MemoryStore

import l2view
from l2view.limits import override_limits

WHERE = "idx IN (1, 2, 4)"


@pytest.fixture
def view(store: MemoryStore) -> l2view.View:
    return l2view.open(store, WHERE)


def test_xarray_opens_the_root(view: l2view.View) -> None:
    dataset = xr.open_zarr(view.store)
    assert dict(dataset.sizes) == {"granule": 3}
    assert dataset["datetime"].values.astype("M8[D]").astype(str).tolist() == [
        "2025-06-02",
        "2025-06-03",
        "2025-06-05",
    ]
    assert dataset["id"].values.tolist() == ["S2A/001", "S2A/002", "S2A/004"]
    assert dataset["cloud_cover"].values.tolist() == [5.0, 10.0, 20.0]
    assert not dataset.indexes
    assert dataset["orbit"].attrs["long_name"] == "absolute orbit"
    xr.testing.assert_identical(view.to_dataset(), dataset.load())


def test_fields_of_every_type_in_the_root() -> None:
    root = zarr.create_group(MemoryStore())
    root.create_group("a")
    meta = root.create_group("meta")
    numbers = np.arange(4)
    put(meta, "path", texts("aaaa"))
    put(meta, "flag", numbers > 1)
    put(meta, "i8", numbers.astype("int8"), attributes={"_FillValue": 2})
    put(meta, "i64", np.array([2**60, 1, 2, 2**63 - 1]))
    put(meta, "u64", np.array([2**64 - 1, 1, 2, 3], dtype="uint64"))
    put(meta, "f4", np.array([1.5, np.nan, np.inf, 0], dtype="float32"))
    put(meta, "ns", np.array(["2025-06-01T00:00:00.000000001", "NaT", "1969", "2025"], "M8[ns]"))
    put(meta, "seconds", np.array(["2025-06-01", "NaT", "1900", "2025"], "M8[s]"))
    put(meta, "took", np.array([1, "NaT", 3, 4], "m8[ms]"))
    put(meta, "name", texts(["a", "", "é", "null"]), attributes={"_FillValue": "null"})
    put(meta, "days", numbers * 1.0, attributes={"units": "days since 2000-01-01"})
    put(meta, "speed", numbers * 1.0, attributes={"units": "m s-1", "scale_factor": 5.0})
    put_wkb(meta, "bbox", boxes(4))
    raw = np.array([b"\x00", b"", b"ab", b"c"], dtype=object)
    put(meta, "raw", raw, zarr.dtype.VariableLengthBytes())
    view = l2view.open(root.store)
    with xr.set_options(keep_attrs=True):
        dataset = xr.open_zarr(view.store).load()
    xr.testing.assert_identical(view.to_dataset(), dataset)
    assert dataset["flag"].values.tolist() == [False, False, True, True]
    np.testing.assert_array_equal(dataset["i8"], [0, 1, np.nan, 3])
    assert dataset["i64"].values.tolist() == [2**60, 1, 2, 2**63 - 1]
    assert dataset["u64"].values.tolist() == [2**64 - 1, 1, 2, 3]
    np.testing.assert_array_equal(dataset["f4"], np.array([1.5, np.nan, np.inf, 0], "f4"))
    assert str(dataset["ns"].values[0]) == "2025-06-01T00:00:00.000000001"
    assert np.isnat(dataset["ns"].values[1])
    assert dataset["seconds"].values.astype("M8[Y]").astype(str).tolist()[2] == "1900"
    assert np.isnat(dataset["seconds"].values[1])
    assert dataset["took"].values[0] == np.timedelta64(1, "ms")
    assert np.isnat(dataset["took"].values[1])
    assert dataset["name"].values[:3].tolist() == ["a", "", "é"]
    assert np.isnan(dataset["name"].values[3])
    assert dataset["days"].values.astype("M8[D]").astype(str).tolist()[3] == "2000-01-04"
    # What the table has as plain numbers stays plain numbers.
    assert dataset["speed"].values.tolist() == [0.0, 5.0, 10.0, 15.0]
    assert dataset["speed"].attrs["units"] == "m s-1"
    assert shapely.from_wkt(dataset["bbox"].values[1]).equals(boxes(4)[1])
    assert dataset["raw"].values.tolist() == ["00", "", "6162", "63"]


def test_strings_with_null_in_the_root() -> None:
    root = zarr.create_group(MemoryStore())
    root.create_group("a")
    meta = root.create_group("meta")
    put(meta, "path", texts("aaa"))
    put(meta, "name", texts(["x", "null", ""]), attributes={"_FillValue": "null"})
    view = l2view.open(root.store)
    array = view["name"]
    assert array.attrs["missing_value"] == "NULL"
    assert array[:].tolist() == ["x", "NULL", ""]
    assert view.table["name"].to_pylist() == ["x", None, ""]


@override_limits(view_chunk_rows=7)
def test_more_granules_than_a_chunk_holds() -> None:
    store = MemoryStore()
    write_collection(store, 20)
    view = l2view.open(store, "idx <> 3")
    assert view["id"].chunks == (7,)
    assert view["id"][:].tolist() == [f"S2A/{n:03d}" for n in range(20) if n != 3]
    assert view["idx"][5:16].tolist() == list(range(6, 17))


def test_times_that_nanoseconds_do_not_reach() -> None:
    root = zarr.create_group(MemoryStore())
    meta = root.create_group("meta")
    root.create_group("a")
    put(meta, "path", texts("aaa"))
    put(meta, "end_datetime", np.array(["9999-12-31", "NaT", "2025-06-01"], "M8[s]"))
    put(meta, "took", np.array([10**13, "NaT", 1], "m8[ms]"))
    view = l2view.open(root.store)
    for dataset in (xr.open_zarr(view.store).load(), view.to_dataset()):
        ends = dataset["end_datetime"].values.astype("M8[D]").astype(str).tolist()
        assert ends == ["9999-12-31", "NaT", "2025-06-01"]
        assert dataset["took"].values.astype("m8[ms]").astype(int).tolist()[::2] == [10**13, 1]
        assert np.isnat(dataset["took"].values[1])
    xr.testing.assert_identical(xr.open_zarr(view.store).load(), view.to_dataset())


def test_a_field_named_as_the_dimension() -> None:
    root = zarr.create_group(MemoryStore())
    root.create_group("a")
    put(root.create_group("meta"), "granule", texts("aa"))
    view = l2view.open(root.store, location="granule")
    assert view.attrs["l2view"]["location"] == "granule"
    dataset = xr.open_zarr(view.store).load()
    assert dataset["granule"].dims == ("granule_",)
    assert not dataset.indexes
    xr.testing.assert_identical(view.to_dataset(), dataset)
