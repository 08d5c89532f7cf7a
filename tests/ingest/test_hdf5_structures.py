"""HDF5 files of all structures: what h5py and xarray read, a view shows, or the report names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import shapely
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

import l2view

pytestmark = pytest.mark.filterwarnings("ignore")  # of data types that Zarr doesn't specify

DEFAULTS = {"datetime": "2025-06-01", "bbox": shapely.to_wkb(shapely.box(0, 0, 1, 1))}

NUMBERS = tuple(f"{order}{kind}" for order in "<>" for kind in ("i2", "u4", "i8", "f4", "f8"))
DTYPES: tuple[Any, ...] = (
    *(*NUMBERS, "i1", "u1", "<f2", ">f2", "?", "S3", "<c8", ">c16"),
    h5py.string_dtype(),
    h5py.string_dtype("ascii"),
    h5py.string_dtype("utf-8", 4),
    h5py.enum_dtype({"A": 0, "B": 1}, "i2"),
    np.dtype([("a", "<i4"), ("b", ">f8")]),
    np.dtype([("a", "u1"), ("b", "f8")], align=True),
    np.dtype([("a", "i2", (2,)), ("b", "S2")]),
    *(h5py.vlen_dtype("i4"), h5py.ref_dtype, np.dtype("V4")),
)
UNKNOWN = (*DTYPES[-4:-1], DTYPES[-5])  # those that Zarr has no data type for
ATTRIBUTE_NAMES = ["units", "comment", "valid_range", "é", "a/b", "flag_meanings"]
GROUPS = ("", "a", "a/b", "Data Fields", "é.1")
NAMES = ("v", "w", "x y", "n:1", "é", "%41", "a.b", "_FillValue", "c", "0")
FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"compression": "gzip"},
    {"compression": "gzip", "shuffle": True, "fletcher32": True},
    {"compression": "lzf", "shuffle": True},
    {"compression": "szip", "compression_opts": ("nn", 2)},
    {"fletcher32": True},
    {"shuffle": True},
)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=4)
ATTRIBUTES: SearchStrategy[Any] = st.one_of(
    TEXTS,
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.booleans(),
    st.sampled_from(
        [
            *(np.float32(0.1), np.uint64(2**64 - 1), np.bytes_(b"caf\xe9"), np.bytes_(b"")),
            *(np.array([1, 2], ">i2"), np.array([0.5], "f4"), np.zeros((0,), "f8"), 1 + 2j),
            *(np.array([[1, 2], [3, 4]]), np.array([b"a", b"bc"]), np.longdouble(1.5)),
            *(h5py.Empty("f4"), h5py.Empty("S3"), np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")])),
            np.array(["a", "é"], h5py.string_dtype()),
        ]
    ),
)


@st.composite
def datasets(draw: st.DrawFn) -> dict[str, Any]:
    """Return what a dataset is made of."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    made: dict[str, Any] = {"dtype": dtype, "shape": shape, "options": {}}
    is_number = dtype.kind in "iuf" and h5py.check_enum_dtype(dtype) is None
    is_empty = 0 in shape[1:]
    if shape and not is_empty and draw(st.booleans()):
        lengths = [draw(st.integers(1, max(length, 1))) for length in shape]
        made["options"] = {"chunks": tuple(lengths)}
        if dtype.kind != "O":
            filters = FILTERS if is_number and np.prod(lengths) > 1 else FILTERS[:3]
            made["options"] |= draw(st.sampled_from(filters))
        if not shape[0] or draw(st.booleans()):
            made["options"]["maxshape"] = (None, *shape[1:])
    elif draw(st.booleans()) and dtype.kind != "O":
        made["layout"] = h5py.h5d.COMPACT
    if is_number and draw(st.booleans()):
        made["options"]["fillvalue"] = dtype.type(draw(st.integers(0, 100)))
    made["is_undefined"] = is_number and draw(st.integers(0, 9)) == 0
    made["written"] = draw(st.integers(0, shape[0])) if shape else draw(st.booleans())
    names = st.sampled_from(ATTRIBUTE_NAMES)
    made["attributes"] = draw(st.dictionaries(names, ATTRIBUTES, max_size=2))
    if is_number and draw(st.booleans()):
        made["attributes"]["_FillValue"] = dtype.type(draw(st.integers(0, 5)))
    if is_number and draw(st.integers(0, 3)) == 0:
        made["attributes"]["scale_factor"] = 0.5
    made["has_scales"] = draw(st.booleans())
    return made


def values_of(dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
    """Return values of a data type, different ones as far as it has some."""
    numbers = np.arange(int(np.prod(shape))).reshape(shape)
    if h5py.check_string_dtype(dtype) is not None:
        e = "e" if h5py.check_string_dtype(dtype).encoding == "ascii" else "é"
        texts = np.array([e * (n % 2) + str(n) for n in numbers.ravel()], object).reshape(shape)
        return (
            texts if dtype.kind == "O" else np.char.encode(texts.astype(str), "utf-8").astype(dtype)
        )
    if dtype.kind == "O":
        return None
    if dtype.names:
        values = np.zeros(shape, dtype)
        values["a"] = numbers[..., None] if dtype["a"].shape else numbers
        values["b"] = numbers
        return values
    if dtype.kind == "V":
        return np.full(shape, b"\x01\x02\x03\x04", "V4").astype(dtype)
    return (numbers % 2 if dtype.kind == "b" else numbers).astype(dtype)


def write(file: h5py.File, path: str, made: dict[str, Any]) -> None:
    shape, dtype = made["shape"], made["dtype"]
    options = dict(made["options"])
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    if "layout" in made:
        properties.set_layout(made["layout"])
    if made["is_undefined"]:
        options.pop("fillvalue", None)
        properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    dataset = file.create_dataset(path, shape, dtype, dcpl=properties, **options)
    values = values_of(dtype, shape)
    if values is not None and made["written"] and dataset.size:
        if shape:
            dataset[: made["written"]] = values[: made["written"]]
        else:
            dataset[()] = values
    for name, value in made["attributes"].items():
        dataset.attrs[name] = value
    if made["has_scales"]:
        for axis, length in enumerate(shape):
            scale = f"{path.rpartition('/')[0]}/dim{length}"
            if scale not in file:
                file.create_dataset(scale, data=np.arange(length, dtype="f8")).make_scale()
            dataset.dims[axis].attach_scale(file[scale])


def as_lists(values: Any) -> Any:
    """Return values as Python's, texts as texts, so that they are equal however they are held."""
    if isinstance(values, np.ndarray | np.generic):
        values = values.tolist()
    if isinstance(values, bytes):
        return values.rstrip(b"\0").decode(errors="replace")
    if isinstance(values, list | tuple):
        return [as_lists(value) for value in values]
    return "nan" if values != values else values


def without_attributes(path: Path, name: str, shown: dict[str, Any]) -> list[str]:
    """Return the attributes of a dataset with numbers or texts that aren't shown so."""
    with h5py.File(path) as file:
        attributes = {n: v for n, v in file[name].attrs.items() if n in ATTRIBUTE_NAMES}
    missing = []
    for attribute, value in attributes.items():
        kind = np.asarray(value).dtype.kind if not isinstance(value, h5py.Empty) else ""
        expected = as_lists(value.ravel() if isinstance(value, np.ndarray) else value)
        alone = isinstance(expected, list) and len(expected) == 1
        same = as_lists(np.ravel(shown[attribute])) == (
            expected if isinstance(expected, list) else [expected]
        )
        is_plain = kind in ("i", "u", "f", "b", "U") and not isinstance(value, np.longdouble)
        if is_plain and not (same or (alone and shown[attribute] == expected[0])):
            missing.append(attribute)
    return missing


members = st.dictionaries(
    st.tuples(st.sampled_from(GROUPS), st.sampled_from(NAMES)), datasets(), min_size=1, max_size=4
)


@given(members)
def test_any_structure(
    tmp_path_factory: pytest.TempPathFactory, members: dict[tuple[str, str], dict[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("hdf5") / "g.h5"
    with h5py.File(path, "w") as file:
        for (group, name), made in members.items():
            write(file, f"{group}/{name}".strip("/"), made)
    report = l2view.ingest(path, path.parent / "c", defaults=DEFAULTS)
    omitted = dict(tuple(report.omitted))
    for group, name in members:
        dtype = members[group, name]["dtype"]
        named = omitted.get(f"{group}/{name}".strip("/"))
        assert named is None or dtype in UNKNOWN or "byte order" in named, named
    if not report.added.count:
        assert report.failed[0].reason.startswith("no array of it can be taken in")
        return
    view = l2view.open(path.parent / "c", authorize=True, fields=[])
    granule: Any = view["g"]
    # What nobody wrote of a dataset without a fill value may be anything.
    defined = {key: made for key, made in members.items() if not made["is_undefined"]}
    with h5py.File(path) as file:
        for group, name in defined:
            member = f"{group}/{name}".strip("/")
            if member not in omitted:
                dataset: Any = file[member]
                is_text = h5py.check_string_dtype(dataset.dtype) and dataset.dtype.kind == "O"
                expected = dataset.asstr()[()] if is_text else dataset[()]
                assert as_lists(granule[member][...]) == as_lists(expected), member
    for group, name in members:
        member = f"{group}/{name}".strip("/")
        if member not in omitted:
            assert without_attributes(path, member, dict(granule[member].attrs)) == []
    tree = view.to_datatree()
    for group in {group for group, _ in members}:
        node = f"g/{group}".strip("/")
        opened = xr.open_zarr(view.store, group=node, consolidated=False, chunks=None)
        assert opened.sizes.items() <= tree[node].to_dataset().sizes.items()
        for name in (name for g, name in defined if g == group):
            if f"{group}/{name}".strip("/") in omitted:
                continue
            try:
                options: Any = {"engine": "h5netcdf", "phony_dims": "sort", "group": f"/{group}"}
                original = xr.open_dataset(path, **options)[name].load()
            except Exception:  # of this or of another array, which costs h5netcdf the group
                continue
            assert as_lists(opened[name].to_numpy()) == as_lists(original.to_numpy()), name
