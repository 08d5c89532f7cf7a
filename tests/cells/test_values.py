"""What values of cells are: every data type and codec, decoded or not, against NumPy and xarray."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datafusion
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import xarray as xr
import zarr
from tables import rows_of, rows_of_numpy
from zarr.storage import MemoryStore

import l2view
from l2view import zarr_cells
from l2view.errors import ChunkError, QueryError

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
    found = zarr_cells(array).to_table().column("value")
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
        table = zarr_cells(array)
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
    assert zarr_cells(array).to_table().column("value").to_pylist() == [
        {"n": 1, "z": {"real": 0.0, "imag": 2.0}, "t": b"ab"},
        {"n": 3, "z": {"real": 4.0, "imag": 0.0}, "t": b"c"},
    ]
    raw = zarr.create_array(MemoryStore(), shape=(2,), dtype=np.dtype("V3"))
    raw[:] = np.array([b"abc", b"\x00\xff1"], dtype="V3")
    assert zarr_cells(raw).to_table().column("value").to_pylist() == [b"abc", b"\x00\xff1"]
    texts = zarr.create_array(MemoryStore(), shape=(3,), dtype="str", chunks=(2,))
    texts[:] = np.array(["a", "", "long " * 20], dtype=np.dtypes.StringDType())
    assert zarr_cells(texts).to_table().column("value").to_pylist() == ["a", "", "long " * 20]
    held = zarr.create_array(MemoryStore(), shape=(2,), dtype="variable_length_bytes")
    held[:] = np.array([b"a\xff", b""], dtype=object)
    assert zarr_cells(held).to_table().column("value").to_pylist() == [b"a\xff", b""]


def test_times_that_arrow_has_no_unit_for_are_integers() -> None:
    for kind in ("M8[ps]", "m8[Y]", "m8[as]"):
        array = zarr.create_array(MemoryStore(), data=np.array([5, -1], "i8").view(kind))
        found = zarr_cells(array).to_table().column("value")
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
    assert rows_of(zarr_cells(array).to_table()) == expected


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
            stored = zarr_cells(zarr.open_array(store, path=str(name), mode="r")).to_table()[
                "value"
            ]
            np.testing.assert_array_equal(stored.to_numpy(), plain[name].values)
        found = {
            str(name): zarr_cells(zarr.open_array(store, path=str(name), mode="r"), decode=True)
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
    found = zarr_cells(array, decode=True).to_table()["value"]
    assert (found.type, found.to_pylist()) == (pa.uint8(), [None, 5, 254])
    odd = zarr.create_array(
        MemoryStore(), data=np.array([0, 5], dtype="i2"), attributes={"missing_value": 1e20}
    )
    assert zarr_cells(odd, decode=True).to_table()["value"].to_pylist() == [0, 5]


def test_a_calendar_that_timestamps_lack_is_an_error_that_says_the_way() -> None:
    array = zarr.create_array(
        MemoryStore(),
        data=np.array([0, 5], dtype="i2"),
        attributes={"units": "days since 2000-01-01", "calendar": "360_day"},
    )
    with pytest.raises(QueryError, match="calendar 360_day; leave decode out"):
        zarr_cells(array, decode=True)


def test_null_and_functions_that_ask_for_it() -> None:
    array = zarr.create_array(
        MemoryStore(),
        data=np.array([1, -1, 3, -1], dtype="i2"),
        chunks=(2,),
        attributes={"_FillValue": -1},
    )
    table = zarr_cells(array, decode=True)
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


def test_fortran_order_of_zarr_v2() -> None:
    values = np.arange(12).reshape(3, 4)
    array = zarr.create_array(MemoryStore(), data=values, chunks=(3, 4), zarr_format=2, order="F")
    assert rows_of(zarr_cells(array).to_table()) == rows_of_numpy(values)


def test_times_whose_epoch_nanoseconds_cannot_tell() -> None:
    attributes = {"units": "days since 0001-01-01", "calendar": "proleptic_gregorian"}
    array = zarr.create_array(
        MemoryStore(), data=np.array([730000.0, 730001.5]), attributes=attributes
    )
    found = zarr_cells(array, decode=True).to_table()["value"]
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
        zarr_cells(array, decode=True).to_table()
    assert zarr_cells(array).to_table()["value"].to_pylist() == [1.0, 9.97e36]
    odd = zarr.create_array(
        MemoryStore(), data=np.array([1.0]), attributes={"scale_factor": "many"}
    )
    with pytest.raises(QueryError, match="can't be decoded"):
        zarr_cells(odd, decode=True)


def test_odd_neighbours_keep_nobody_from_reading() -> None:
    for attributes in ({"_FillValue": -9999.0}, {"_FillValue": None}, {"scale_factor": "0.1 K"}):
        root = zarr.create_group(MemoryStore())
        root.create_array("v", data=np.array([1, 2]), dimension_names=["x"])
        data = np.array([0.5, -9999.0])
        root.create_array("x", data=data, dimension_names=["x"], attributes=attributes)
        table = zarr_cells(zarr.open_array(root.store, path="v")).to_table()
        assert table.to_pydict() == {"dim_0": [0, 1], "x": [0.5, -9999.0], "value": [1, 2]}


def test_coordinates_that_are_no_columns_are_no_positions_either() -> None:
    root = zarr.create_group(MemoryStore())
    root.create_array("v", data=np.array([1, 2]), dimension_names=["x"])
    root.create_array("x", data=np.arange(3.0), dimension_names=["x"])
    table = zarr_cells(zarr.open_array(root.store, path="v"))
    assert table.schema.names == ["dim_0", "value"]
    stored = root.store._store_dict
    document = json.loads(stored["x/zarr.json"].to_bytes()) | {"codecs": [{"name": "unheard-of"}]}
    said = json.dumps(document).encode()
    stored["x/zarr.json"] = type(stored["x/zarr.json"]).from_bytes(said)
    with pytest.warns(l2view.L2ViewWarning, match="x beside v can't be opened, and is no column"):
        assert zarr_cells(zarr.open_array(root.store, path="v")).schema.names == ["dim_0", "value"]


def test_axes_of_zarr_v2_have_no_missing_values() -> None:
    dataset = xr.Dataset({"v": ("x", np.arange(3))}, coords={"x": np.arange(3)})
    store = MemoryStore()
    root = zarr.create_group(store, zarr_format=2)
    for name in ("v", "x"):
        data = dataset[name].values
        root.create_array(name, data=data, attributes={"_ARRAY_DIMENSIONS": ["x"]})
    table = zarr_cells(zarr.open_array(store, path="v"))
    assert table.to_table(filter=pc.field("x") == 0)["value"].to_pylist() == [0]


def test_texts_of_fixed_length_are_bytes_until_they_are_decoded() -> None:
    values = np.array([b"ab", b"\xe9"])
    array = zarr.create_array(MemoryStore(), data=values)
    assert zarr_cells(array).to_table()["value"].to_pylist() == [b"ab", b"\xe9"]
    with pytest.raises(ChunkError, match="decode => false gives what is stored"):
        zarr_cells(array, decode=True).to_table()
    latin = zarr.create_array(MemoryStore(), data=values, attributes={"_Encoding": "latin-1"})
    assert zarr_cells(latin, decode=True).to_table()["value"].to_pylist() == ["ab", "é"]
    missing = zarr.create_array(
        MemoryStore(), data=np.array(["a", "-", "?"]), attributes={"missing_value": ["-", "?"]}
    )
    assert zarr_cells(missing, decode=True).to_table()["value"].to_pylist() == ["a", None, None]


def test_nan_is_null_and_zero_is_one() -> None:
    array = zarr.create_array(MemoryStore(), data=np.array([1.0, np.nan, -0.0, 0.0]))
    table = zarr_cells(array)
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
