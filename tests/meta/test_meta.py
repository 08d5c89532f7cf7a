"""``/meta`` as an Arrow table: every data type, NULL, and how it is scanned."""

from __future__ import annotations

import json
import warnings
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
import shapely
import zarr
from builders import collection_of, put, texts, write_collection
from zarr.core.buffer import cpu
from zarr.storage import MemoryStore

import l2view
from l2view.errors import FieldError, SkippedFieldWarning
from l2view.limits import override_limits
from l2view.meta.decode import decode_with_arrow, decode_with_python, decode_with_rust

NUMBERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
FLOATS = ["float16", "float32", "float64"]
DURATIONS = {"s": "s", "ms": "ms", "us": "us", "ns": "ns", "m": "s", "h": "s", "D": "s", "W": "s"}


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_integers(dtype: str, zarr_format: int, order: str) -> None:
    info = np.iinfo(dtype)
    values = np.array([info.min, 0, 7, info.max], dtype=np.dtype(dtype).newbyteorder(order))
    column = collection_of({"x": values}, zarr_format).search()["x"]
    assert column.type == pa.from_numpy_dtype(dtype)
    assert column.to_pylist() == values.tolist()


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("dtype", FLOATS)
def test_floats_have_nan_as_null_and_one_zero(dtype: str, zarr_format: int) -> None:
    values = np.array([1.5, np.nan, np.inf, -np.inf, -0.0, 0.1], dtype=dtype)
    collection = collection_of({"x": values}, zarr_format)
    column = collection.search()["x"]
    assert column.type == (pa.float64() if dtype == "float64" else pa.float32())
    assert column.to_pylist() == [1.5, None, np.inf, -np.inf, 0.0, float(values[5])]
    assert collection.search("x = 0")["idx"].to_pylist() == [4]
    assert collection.search("x < 0")["idx"].to_pylist() == [3]
    # The same where DataFusion compares, and the dataset doesn't.
    assert collection.search("x * 1 = 0 OR x * 1 < 0")["idx"].to_pylist() == [3, 4]


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("unit", [*DURATIONS, "M", "Y", "10s"])
def test_datetimes(unit: str, zarr_format: int) -> None:
    values = np.array(["1969-05-06", "2025-06-14", "NaT"], dtype=f"datetime64[{unit}]")
    column = collection_of({"x": values}, zarr_format).search()["x"]
    assert column.type == pa.timestamp("ns" if unit == "ns" else "us")
    expected = values.astype(f"datetime64[{column.type.unit}]")
    assert column.null_count == 1
    np.testing.assert_array_equal(column.to_numpy(), expected)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("unit", DURATIONS)
def test_timedeltas(unit: str, zarr_format: int) -> None:
    values = np.array([-3, 0, 12, "NaT"], dtype=f"timedelta64[{unit}]")
    column = collection_of({"x": values}, zarr_format).search()["x"]
    assert column.type == pa.duration(DURATIONS[unit])
    np.testing.assert_array_equal(column.to_numpy(), values.astype(f"m8[{DURATIONS[unit]}]"))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_bools(zarr_format: int) -> None:
    collection = collection_of({"x": np.array([True, False, True])}, zarr_format)
    assert collection.search()["x"].to_pylist() == [True, False, True]
    assert collection.search("NOT x")["idx"].to_pylist() == [1]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_strings(zarr_format: int) -> None:
    said = ["S2A", "", "é–日本", "x" * 300]
    fixed = np.array(["S2A", "", "é–日本", "xyz"])
    ascii_ = np.array([b"S2A", b"", b"abc", b"x"])
    fields = {"variable": texts(said), "fixed": fixed, "bytes": ascii_}
    table = collection_of(fields, zarr_format).search()
    assert table["variable"].to_pylist() == said
    assert table["fixed"].to_pylist() == fixed.tolist()
    assert table["bytes"].to_pylist() == ["S2A", "", "abc", "x"]
    assert {table.schema.field(name).type for name in fields} == {pa.string()}


def test_variable_length_bytes_and_raw_bits() -> None:
    root = zarr.create_group(MemoryStore())
    meta = root.create_group("meta")
    said = [b"", b"\x00\x01", b"end\x00"]
    put(meta, "variable", np.array(said, dtype=object), zarr.dtype.VariableLengthBytes())
    put(meta, "raw", np.array([b"ab", b"\x00\x00", b"z\x00"], dtype="V2"))
    _put_raw_bits(root.store, [b"abc", b"\x00\x01\x02", b"xyz"])
    table = l2view.search(root.store)
    assert table["variable"].to_pylist() == said
    assert table["raw"].to_pylist() == [b"ab", b"\x00\x00", b"z\x00"]
    assert table["bits"].to_pylist() == [b"abc", b"\x00\x01\x02", b"xyz"]


def _put_raw_bits(store: MemoryStore, values: list[bytes]) -> None:
    """Write the raw data type as zarrs writes it, which zarr-python doesn't read."""
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [len(values)],
        "data_type": f"r{8 * len(values[0])}",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [len(values)]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": [0] * len(values[0]),
        "codecs": [{"name": "bytes"}],
        "attributes": {},
    }
    store._store_dict["meta/bits/zarr.json"] = cpu.Buffer.from_bytes(json.dumps(document).encode())
    store._store_dict["meta/bits/c/0"] = cpu.Buffer.from_bytes(b"".join(values))


def test_what_is_no_column_is_named() -> None:
    fields = {
        "x": np.arange(3),
        "phase": np.array([1j, 2, 3]),
        "single": np.array([1j, 2, 3], dtype="complex64"),
        "pair": np.array([(1, 2.0)] * 3, dtype=[("a", "i4"), ("b", "f8")]),
        "idx": np.arange(3),
        "months": np.array([1, 2, 3], dtype="m8[M]"),
    }
    with pytest.warns(SkippedFieldWarning) as caught:
        collection = collection_of(fields)
    (message,) = (str(warning.message) for warning in caught)
    for name in ("phase", "single", "pair", "idx", "months"):
        assert f'"{name}": ' in message
    assert "complex" in message
    assert collection.schema.names == ["idx", "x"]
    assert collection.search("x > 0")["x"].to_pylist() == [1, 2]


def test_arrays_of_other_ranks_and_groups_are_no_columns() -> None:
    root = zarr.create_group(MemoryStore())
    meta = root.create_group("meta")
    put(meta, "x", np.arange(3))
    put(meta, "corners", np.zeros((3, 4)))
    put(meta, "version", np.array(1))
    meta.create_group("more")
    with pytest.warns(SkippedFieldWarning, match='"corners": it has 2 dim.*"version": it has 0'):
        assert l2view.Collection(root.store).schema.names == ["idx", "x"]


def test_null_by_fill_value_attribute() -> None:
    root = zarr.create_group(MemoryStore())
    meta = root.create_group("meta")
    put(meta, "i", np.array([1, -99, 3]), attributes={"_FillValue": -99})
    put(meta, "s", texts(["a", "none", ""]), attributes={"_FillValue": "none"})
    put(meta, "f", np.array([0.5, -1.0, np.nan]), attributes={"_FillValue": -1.0})
    # As xarray writes it: a little-endian double in base64.
    put(meta, "x", np.array([0.5, 9.0, np.nan]), attributes={"_FillValue": "AAAAAAAAIkA="})
    put(meta, "n", np.array([0.5, 9.0, np.nan]), attributes={"_FillValue": "NaN"})
    put(meta, "t", np.array([0, 7, 9], "M8[s]"), attributes={"_FillValue": 7})
    table = l2view.search(root.store)
    nulls = {name: table[name].is_null().to_pylist() for name in "isfxnt"}
    assert nulls == {
        "i": [False, True, False],
        "s": [False, True, False],
        "f": [False, True, True],
        "x": [False, True, True],
        "n": [False, False, True],
        "t": [False, True, False],
    }


def test_v2_fill_value_is_no_null() -> None:
    """In /meta a value is NULL by the CF attribute, not by Zarr's own fill value."""
    collection = collection_of({"x": np.array([0, 1, 2])}, 2, fill_value=0)
    assert collection.search()["x"].to_pylist() == [0, 1, 2]
    attributed = collection_of({"x": np.array([0, 1, 2])}, 2, attributes={"_FillValue": 2})
    assert attributed.search()["x"].to_pylist() == [0, 1, None]


def test_missing_chunks_are_the_fill_value() -> None:
    root = zarr.create_group(MemoryStore())
    array = root.create_group("meta").create_array(
        "x", shape=(10,), chunks=(4,), dtype="int16", fill_value=-3
    )
    array[4:8] = np.arange(4)
    assert l2view.search(root.store)["x"].to_pylist() == [-3] * 4 + [0, 1, 2, 3] + [-3] * 2


@override_limits(run_rows=10)
def test_fields_whose_chunks_do_not_line_up() -> None:
    root = zarr.create_group(MemoryStore())
    meta = root.create_group("meta")
    numbers = np.arange(101)
    for name, chunk in (("a", 7), ("b", 13), ("c", 101), ("d", 1000)):
        put(meta, name, numbers, chunks=(chunk,))
    put(meta, "sharded", numbers, chunks=(5,), shards=(20,))
    table = l2view.search(root.store)
    for name in ("idx", "a", "b", "c", "d", "sharded"):
        assert table[name].to_pylist() == numbers.tolist()
    found = l2view.search(root.store, "a % 10 = 3 AND b > 50", order_by="c DESC")
    assert found["sharded"].to_pylist() == [93, 83, 73, 63, 53]


def test_fields_of_unequal_length_are_named() -> None:
    fields = {"a": np.arange(3), "b": np.arange(4), "c": np.arange(3)}
    with pytest.raises(FieldError) as raised:
        collection_of(fields)
    assert str(raised.value) == "the fields of meta differ in length: 3 rows in a, c; 4 rows in b"


def test_no_rows_and_no_fields() -> None:
    collection = collection_of({"x": np.arange(0), "s": texts([])})
    assert len(collection) == 0
    assert collection.search("x > 1").num_rows == 0
    view = collection.open()
    assert view["x"].shape == (0,)
    empty = zarr.create_group(MemoryStore())
    empty.create_group("meta")
    with pytest.raises(l2view.StoreError, match="is not a collection"):
        l2view.Collection(empty.store)


def test_compressors_and_filters_of_v2() -> None:
    import numcodecs

    root = zarr.create_group(MemoryStore(), zarr_format=2)
    meta = root.create_group("meta")
    numbers = np.arange(20, dtype="int32")
    compressors = {
        "none": None,
        "blosc": numcodecs.Blosc(),
        "zstd": numcodecs.Zstd(),
        "gzip": numcodecs.GZip(),
        "zlib": numcodecs.Zlib(),
        "lz4": numcodecs.LZ4(),
        "bz2": numcodecs.BZ2(),
        "lzma": numcodecs.LZMA(),
    }
    for name, compressor in compressors.items():
        put(meta, name, numbers, compressors=compressor)
    for name, filters in {
        "delta": [numcodecs.Delta(dtype="<i4")],
        "shuffle": [numcodecs.Shuffle(4)],
        "scaled": [numcodecs.FixedScaleOffset(offset=0, scale=2, dtype="<i4", astype="<i2")],
    }.items():
        put(meta, name, numbers, filters=filters)
    put(meta, "big", numbers.astype(">i4"), filters=[numcodecs.Delta(dtype=">i4")])
    table = l2view.search(root.store)
    for name in table.schema.names:
        assert table[name].to_pylist() == numbers.tolist(), name


def test_all_decoders_give_the_same(v3_store: MemoryStore) -> None:
    compared = plain = 0
    for field in l2view.Collection(v3_store).table.fields.values():
        document = {**field.document, "shape": [field.chunk_length]}
        raw = v3_store._store_dict[field.chunk_key(0)].to_bytes()
        rust, python = (decode(document, raw) for decode in (decode_with_rust, decode_with_python))
        assert rust is not None
        arrow = decode_with_arrow(document, raw)
        for other in (rust,) if arrow is None else (rust, arrow):
            left = other.to_pylist() if isinstance(other, pa.Array) else other.tolist()
            for a, b in zip(left, python.tolist(), strict=True):
                assert a == b or (a != a and b != b)
        compared += 1
        plain += arrow is not None
    assert (compared, plain) == (8, 4)


def test_a_damaged_chunk_names_the_field(v3_store: MemoryStore) -> None:
    v3_store._store_dict["meta/orbit/c/1"] = cpu.Buffer.from_bytes(b"damaged")
    collection = l2view.Collection(v3_store)
    with pytest.raises(FieldError, match='a chunk of the field "orbit" can\'t be decoded'):
        collection.search("orbit > 3")
    with pytest.raises(FieldError, match='a chunk of the field "orbit" can\'t be decoded'):
        collection.search()
    # The other fields are as good as ever.
    assert collection.search('"eo:cloud_cover" = 3', fields=["id"])["id"].to_pylist() == ["S2A/001"]


def test_reading_warns_of_nothing(v3_store: MemoryStore) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        view = l2view.Collection(v3_store).open("platform = 'A'")
        view["S2A_002/red"][:]
        view.to_datatree()


def test_the_store_of_zarr_datafusion_search(shared_data: Any) -> None:
    path = shared_data / "meta-store" / "zarr_store.zarr"
    collection = l2view.Collection(path)
    assert collection.schema.names == ["idx", "bbox", "collection", "date"]
    found = collection.search(bbox=(15, 15, 18, 18), datetime="2023")
    assert found["collection"].to_pylist() == ["collection_b", "collection_c"]
    assert len(duckdb.sql("SELECT * FROM found").fetchall()) == 2


def test_write_collection_has_both_formats() -> None:
    for zarr_format in (2, 3):
        store = MemoryStore()
        root = write_collection(store, 3, zarr_format=zarr_format)
        assert root.metadata.zarr_format == zarr_format


def test_fields_that_xarray_wrote() -> None:
    """Times are numbers since an instant there, and numbers may be scaled."""
    import pandas as pd
    import xarray as xr

    store = MemoryStore()
    times = np.array(["2025-06-01", "NaT", "2025-06-03T12:00:00.5"], dtype="M8[ns]")
    dataset = xr.Dataset(
        {
            "datetime": ("granule", times),
            "ended": ("granule", times),
            "took": ("granule", pd.to_timedelta([1, 2, None], "s")),
            "cloud_cover": ("granule", [10.5, np.nan, 99.0]),
            "id": ("granule", np.array(["a", "b", "c"], dtype=object)),
            "orbit": ("granule", [1, 2, 3]),
        }
    )
    encoding = {
        "cloud_cover": {"dtype": "int16", "scale_factor": 0.5, "_FillValue": -1},
        "ended": {"units": "days since 2000-01-01", "dtype": "float64"},
    }
    zarr.create_group(store)
    dataset.to_zarr(store, group="meta", encoding=encoding, consolidated=False, zarr_format=3)
    collection = l2view.Collection(store)
    assert pa.types.is_timestamp(collection.schema.field("datetime").type)
    table = collection.search()
    for name in ("datetime", "ended"):
        found = table[name].to_numpy().astype("M8[ms]")
        np.testing.assert_array_equal(found, times.astype("M8[ms]"))
    expected = np.array([1000, 2000, "NaT"], "m8[ms]")
    np.testing.assert_array_equal(table["took"].to_numpy().astype("m8[ms]"), expected)
    assert table["cloud_cover"].to_pylist() == [10.5, None, 99.0]
    assert table["orbit"].to_pylist() == [1, 2, 3]
    assert collection.search(datetime="2025-06-03")["id"].to_pylist() == ["c"]
    assert collection.search("cloud_cover > 50")["id"].to_pylist() == ["c"]
    with pytest.warns(l2view.MissingGranuleWarning):
        view = collection.open()
    again = view.to_dataset()
    np.testing.assert_array_equal(again["cloud_cover"], [10.5, np.nan, 99.0])
    np.testing.assert_array_equal(again["datetime"].values.astype("M8[ms]"), times.astype("M8[ms]"))


def test_times_of_other_calendars_are_left_out_by_name() -> None:
    root = zarr.create_group(MemoryStore())
    attributes = {"units": "days since 2000-01-01", "calendar": "noleap"}
    meta = root.create_group("meta")
    put(meta, "model_time", np.arange(3), attributes=attributes)
    put(meta, "x", np.arange(3))
    with pytest.warns(SkippedFieldWarning, match='"model_time": .*noleap'):
        assert l2view.Collection(root.store).schema.names == ["idx", "x"]


@pytest.mark.parametrize("encoding", ["WKT", "WKB"])
def test_empty_geometries_are_null(encoding: str) -> None:
    root = zarr.create_group(MemoryStore())
    meta = root.create_group("meta")
    if encoding == "WKT":
        put(meta, "bbox", texts(["POINT (1 1)", "", "POINT (9 9)"]))
    else:
        raw = [shapely.Point(1, 1).wkb, b"", shapely.Point(9, 9).wkb]
        put(meta, "bbox", np.array(raw, dtype=object), zarr.dtype.VariableLengthBytes())
    collection = l2view.Collection(root.store)
    assert collection.search(bbox=(0, 0, 2, 2))["idx"].to_pylist() == [0]
    assert collection.search("bbox IS NULL")["idx"].to_pylist() == [1]


def test_nulls_that_no_value_has() -> None:
    root = zarr.create_group(MemoryStore())
    meta = root.create_group("meta")
    put(meta, "u", np.array([255, 1], "u1"), attributes={"_FillValue": -1})
    put(meta, "i", np.array([2, 1]), attributes={"_FillValue": "NaN", "missing_value": 2.5})
    put(meta, "l", np.array([2, 1]), attributes={"missing_value": [2, 9]})
    put(meta, "f", np.array([2.0, 1.0]), attributes={"_FillValue": "no base64!"})
    put(meta, "d", np.array([2, 1], "M8[D]"), attributes={"_FillValue": 2})
    put(meta, "b", np.array([-2, -1], "i1"), attributes={"_Unsigned": "true", "_FillValue": -1})
    table = l2view.search(root.store)
    assert table.select(list("uilfb")).to_pydict() == {
        "u": [255, 1],
        "i": [2, 1],
        "l": [None, 1],
        "f": [2.0, 1.0],
        "b": [254, None],
    }
    assert table["d"].is_null().to_pylist() == [True, False]
