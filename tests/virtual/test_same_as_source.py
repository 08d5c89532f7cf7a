"""Whatever an array is made of, a view reads it as its source does."""

from __future__ import annotations

import itertools
import json
import warnings
from typing import Any

import hypothesis.extra.numpy as npst
import numcodecs
import numpy as np
import pytest
import xarray as xr
import zarr
from builders import put, texts
from hypothesis import given, note
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec
from zarr.codecs import numcodecs as znumcodecs
from zarr.core.buffer import cpu
from zarr.storage import MemoryStore
from zarr.testing.strategies import basic_indices, orthogonal_indices

import l2view
from l2view.errors import SkippedArrayWarning

DTYPES = ["bool", "int8", "uint16", "int32", "uint64", "float16", "float32", "float64"]
DTYPES += ["complex64", "datetime64[ms]", "timedelta64[s]", "S4", "U3"]
ORDERS = ["<", ">"]


@st.composite
def values(draw: st.DrawFn, dtypes: list[str] = DTYPES) -> np.ndarray[Any, Any]:
    shape = draw(npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=7))
    dtype = np.dtype(draw(st.sampled_from(dtypes))).newbyteorder(draw(st.sampled_from(ORDERS)))
    elements = None
    if dtype.kind == "U":  # NumPy drops zeros at the end of a string
        elements = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=3)
    return draw(npst.arrays(dtype, shape, elements=elements))


def chunk_shapes(shape: tuple[int, ...]) -> st.SearchStrategy[tuple[int, ...]]:
    return st.tuples(*(st.integers(1, max(1, length + 1)) for length in shape))


@st.composite
def v3_arrays(draw: st.DrawFn) -> zarr.Array[Any]:
    data = draw(values())
    chunks = draw(chunk_shapes(data.shape))
    options: dict[str, Any] = {"chunks": chunks}
    if data.ndim and draw(st.booleans()):
        factor = draw(st.integers(1, 3))
        options["shards"] = tuple(length * factor for length in chunks)
    if data.ndim > 1 and draw(st.booleans()):
        order = draw(st.permutations(range(data.ndim)))
        options["filters"] = [TransposeCodec(order=tuple(order))]
    compressors = [None, ZstdCodec(), GzipCodec(), BloscCodec(), Crc32cCodec(), znumcodecs.Zlib()]
    options["compressors"] = draw(st.sampled_from(compressors))
    if data.dtype.kind in "iufc" and data.dtype.itemsize > 1:
        options["serializer"] = BytesCodec(endian=draw(st.sampled_from(["little", "big"])))
    if draw(st.booleans()):
        options["dimension_names"] = [f"dim{axis}" for axis in range(data.ndim)]
    return _written(data, draw, 3, options)


@st.composite
def v2_arrays(draw: st.DrawFn) -> zarr.Array[Any]:
    data = draw(values())
    options: dict[str, Any] = {
        "chunks": draw(chunk_shapes(data.shape)),
        "order": draw(st.sampled_from(["C", "F"])),
        "chunk_key_encoding": {"name": "v2", "separator": draw(st.sampled_from([".", "/"]))},
    }
    compressors = [None, numcodecs.Zstd(), numcodecs.GZip(), numcodecs.Blosc(), numcodecs.Zlib()]
    compressors += [numcodecs.Blosc(shuffle=2), numcodecs.LZ4(), numcodecs.BZ2()]
    options["compressors"] = draw(st.sampled_from(compressors))
    filters: list[Any] = []
    # Each filter hands the next a dtype and byte order of its own.
    order, last = draw(st.sampled_from(ORDERS)), data.dtype
    if data.dtype.kind in "iu" and draw(st.booleans()):
        filters.append(numcodecs.Delta(dtype=last.str, astype=last.newbyteorder(order).str))
    if data.dtype.kind == "f" and draw(st.booleans()):
        filters.append(numcodecs.AsType(encode_dtype=f"{order}f8", decode_dtype=last.str))
    elif data.dtype.kind == "b" and draw(st.booleans()):
        filters.append(numcodecs.PackBits())
    if data.dtype.kind in "iu" and draw(st.booleans()):
        filters.append(numcodecs.Shuffle(data.dtype.itemsize))
    options["filters"] = filters or None
    attributes = {"_ARRAY_DIMENSIONS": [f"dim{axis}" for axis in range(data.ndim)]}
    if draw(st.booleans()):
        options["attributes"] = attributes
    return _written(data, draw, 2, options)


def _written(
    data: np.ndarray[Any, Any], draw: st.DrawFn, zarr_format: Any, options: dict[str, Any]
) -> zarr.Array[Any]:
    root = zarr.create_group(MemoryStore(), zarr_format=zarr_format)
    if data.size and data.dtype.kind in "iu" and draw(st.booleans()):
        options["fill_value"] = data.flat[0].item()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options.setdefault("attributes", {"comment": "K"})
        array = root.create_array(
            "granules/a/x", shape=data.shape, dtype=data.dtype, config=None, **options
        )
        array[...] = data
    put(root.create_group("meta"), "group_path", texts(["granules/a"]))
    return array


def same(found: Any, expected: Any) -> None:
    """Equal to the bit, but for the byte order, which a v3 array doesn't have."""
    found, expected = (np.asarray(x, x.dtype.newbyteorder("=")) for x in (found, expected))
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()


@given(st.one_of(v3_arrays(), v2_arrays()), st.data())
def test_every_selection(source: zarr.Array[Any], data: st.DataObject) -> None:
    note(f"{source.metadata}")
    view = l2view.open(source.store)
    array = view["0/x"]
    assert array.metadata.zarr_format == 3
    assert array.shape == source.shape
    assert array.chunks == source.chunks
    assert array.shards == source.shards
    assert array.dtype.newbyteorder("=") == source.dtype.newbyteorder("=")
    assert array.attrs.get("comment") == source.attrs.get("comment")
    same(array[...], source[...])
    selection = data.draw(basic_indices(shape=source.shape), label="basic")
    same(array[selection], source[selection])
    if source.ndim and all(source.shape):
        orthogonal, _ = data.draw(orthogonal_indices(shape=source.shape), label="orthogonal")
        same(array.oindex[orthogonal], source.oindex[orthogonal])


@given(st.one_of(v3_arrays(), v2_arrays()))
def test_xarray_reads_the_same(source: zarr.Array[Any]) -> None:
    """Masks and units included: v2 masks by the fill value, v3 by an attribute."""
    names = source.metadata.zarr_format == 3 and source.metadata.dimension_names
    if not (names or "_ARRAY_DIMENSIONS" in source.attrs):
        return  # xarray reads no array without dimension names
    if source.metadata.zarr_format == 2 and source.dtype.kind in "SU":
        return  # xarray masks empty texts of v2, and knows no mask for texts of v3
    options = {"consolidated": False, "chunks": None}
    ours = xr.open_zarr(l2view.open(source.store).store, group="0", **options)
    theirs = xr.open_zarr(source.store, group="granules/a", **options)
    assert ours["x"].dims == theirs["x"].dims
    same(ours["x"].values, theirs["x"].values)
    tree = l2view.open(source.store).to_datatree()
    same(tree["0/x"].values, theirs["x"].values)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("shape", [(5,), (2, 3)])
def test_variable_length_strings(zarr_format: int, shape: tuple[int, ...]) -> None:
    said = np.array([f"é{n}" * n for n in range(int(np.prod(shape)))], dtype=object).reshape(shape)
    root = zarr.create_group(MemoryStore(), zarr_format=zarr_format)
    array = root.create_array("a/x", shape=shape, chunks=(2,) * len(shape), dtype="string")
    array[...] = said
    put(root.create_group("meta"), "group_path", texts(["a"]))
    found = l2view.open(root.store)["0/x"][...]
    assert found.tolist() == said.tolist()


def test_structured_dtypes() -> None:
    for zarr_format, order in itertools.product((2, 3), "<>"):
        kind = [("count", f"{order}i4"), ("flag", "S2"), ("mean", f"{order}f8")]
        data = np.array([(1, b"ab", 2.5), (3, b"", -1.0)], dtype=kind)
        root = zarr.create_group(MemoryStore(), zarr_format=zarr_format)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = root.create_array("a/x", shape=(2,), chunks=(1,), dtype=data.dtype)
            array[:] = data
        put(root.create_group("meta"), "group_path", texts(["a"]))
        found = l2view.open(root.store)["0/x"][:]
        assert found.tolist() == array[:].tolist() == data.tolist()


def test_structured_dtypes_of_mixed_byte_order_are_left_out() -> None:
    """A v3 array has one byte order, so this would be read wrongly."""
    root = zarr.create_group(MemoryStore(), zarr_format=2)
    kind = [("count", "<i4"), ("mean", ">f8")]
    root.create_array("a/x", shape=(2,), chunks=(1,), dtype=np.dtype(kind))
    put(root.create_group("meta"), "group_path", texts(["a"]))
    view = l2view.open(root.store)
    with pytest.warns(SkippedArrayWarning, match="its fields differ in byte order"):
        assert "x" not in view["0"]


def test_v2_filters_that_change_the_dtype() -> None:
    data = np.array([0.5, 1.5, -2.0, 7.25])
    filters: dict[str, list[Any]] = {
        "scaled": [numcodecs.FixedScaleOffset(offset=1, scale=4, dtype="<f8", astype="<i2")],
        "quantized": [numcodecs.Quantize(digits=3, dtype="<f8")],
        "bits": [numcodecs.BitRound(keepbits=40)],
        "as_type": [numcodecs.AsType(encode_dtype="<f4", decode_dtype="<f8")],
        "both": [numcodecs.AsType(encode_dtype="<f4", decode_dtype="<f8"), numcodecs.Shuffle(4)],
    }
    for name, steps in filters.items():
        root = zarr.create_group(MemoryStore(), zarr_format=2)
        array = root.create_array(
            "a/x", shape=(4,), chunks=(3,), dtype="<f8", filters=steps, compressors=None
        )
        array[:] = data
        put(root.create_group("meta"), "group_path", texts(["a"]))
        same(l2view.open(root.store)["0/x"][:], array[:])
        assert array[:].tolist() == data.tolist(), name


@pytest.mark.parametrize(
    ("filters", "reason"),
    [
        ([{"id": "delta", "dtype": ">f8", "astype": ">f8"}], "delta is for >f8, not <f8"),
        ([{"id": "quantize", "digits": 3, "dtype": "<f8", "astype": "<f4"}], "with astype"),
        ([{"id": "shuffle", "elementsize": 8}, {"id": "delta", "dtype": "<f8"}], "makes bytes"),
    ],
)
def test_v2_filters_without_a_v3_form(filters: list[Any], reason: str) -> None:
    root = zarr.create_group(MemoryStore(), zarr_format=2)
    root.create_array("a/x", shape=(4,), chunks=(3,), dtype="<f8", compressors=None)
    path = "a/x/.zarray"
    store = root.store
    assert isinstance(store, MemoryStore)
    document = json.loads(store._store_dict[path].to_bytes()) | {"filters": filters}
    store._store_dict[path] = cpu.Buffer.from_bytes(json.dumps(document).encode())
    put(root.create_group("meta"), "group_path", texts(["a"]))
    with pytest.warns(SkippedArrayWarning, match=reason):
        assert l2view.open(store).to_datatree()["0"].to_dataset().sizes == {}


@pytest.mark.parametrize("value", [0, -7, None])
def test_v2_masks(value: int | None) -> None:
    """xarray masks a v2 array by its fill value, and so it masks the view's array."""
    root = zarr.create_group(MemoryStore(), zarr_format=2)
    attributes = {"_ARRAY_DIMENSIONS": ["i"], "scale_factor": 0.5, "_FillValue": -7}
    array = root.create_array(
        "a/x", shape=(4,), chunks=(2,), dtype="int16", fill_value=value, attributes=attributes
    )
    array[:3] = [0, -7, 4]
    put(root.create_group("meta"), "group_path", texts(["a"]))
    ours = xr.open_zarr(l2view.open(root.store).store, group="0", chunks=None)["x"].values
    theirs = xr.open_zarr(root.store, group="a", consolidated=False, chunks=None)["x"].values
    same(ours, theirs)
