"""Granules side by side and end to end, against NumPy and xarray on each of them."""

from __future__ import annotations

import pickle
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from builders import decoded, packed_store, put, texts
from hypothesis import given
from hypothesis import strategies as st
from zarr.codecs import GzipCodec, TransposeCodec, ZstdCodec
from zarr.storage import MemoryStore

import l2view
from l2view.virtual.join_shape import JoinedView

STARTS = ("seconds since 2025-01-01", "days since 1990-01-01 12:00:00")


@dataclass(frozen=True)
class Encoding:
    """How one granule is encoded."""

    rows: int
    columns: int
    dtype: str
    endian: str
    chunks: tuple[int, int]
    codec: str
    attributes: tuple[tuple[str, Any], ...]
    fill_value: int
    gap: bool
    epoch: int = 0


def _packings() -> st.SearchStrategy[tuple[tuple[str, Any], ...]]:
    scaled = st.fixed_dictionaries(
        {"scale_factor": st.sampled_from([0.1, 0.25, 2.0])},
        optional={"add_offset": st.sampled_from([0.0, -5.5]), "_FillValue": st.just(7)},
    )
    plain = st.fixed_dictionaries({}, optional={"_FillValue": st.sampled_from([7, 3])})
    return st.one_of(plain, scaled).map(lambda said: tuple(said.items()))


@st.composite
def encodings(draw: st.DrawFn, *, columns: int | None = None) -> Encoding:
    dtype = draw(st.sampled_from(["int8", "uint8", "int16", "int32", "float32", "float64"]))
    attributes = draw(_packings())
    if np.dtype(dtype).kind == "f":  # which xarray expects encoded
        attributes = tuple((n, v) for n, v in attributes if n != "_FillValue")
    rows = draw(st.integers(0, 9))
    return Encoding(
        rows=rows,
        columns=draw(st.integers(1, 5)) if columns is None else columns,
        dtype=dtype,
        endian=draw(st.sampled_from(["little", "big"])),
        chunks=(draw(st.integers(1, 10)), draw(st.integers(1, 5))),
        codec=draw(st.sampled_from(["none", "zstd", "gzip", "transpose"])),
        attributes=attributes,
        fill_value=draw(st.sampled_from([0, 7])),
        gap=draw(st.booleans()),
        epoch=draw(st.integers(0, 1)),
    )


def write(root: zarr.Group, name: str, encoding: Encoding, number: int) -> None:
    """Write one granule: an array of its encoding, and times of its own epoch."""
    group = root.create_group(name, attributes={"title": f"granule {number}", "kind": "made up"})
    shape = (encoding.rows, encoding.columns)
    codecs: dict[str, Any] = {
        "none": {"compressors": None},
        "zstd": {"compressors": ZstdCodec(level=1)},
        "gzip": {"compressors": GzipCodec(level=1)},
        "transpose": {"filters": TransposeCodec(order=(1, 0)), "compressors": None},
    }[encoding.codec]
    one_byte = np.dtype(encoding.dtype).itemsize == 1
    serializer = "auto" if one_byte else zarr.codecs.BytesCodec(endian=encoding.endian)  # type: ignore[arg-type]
    array = group.create_array(
        "x",
        shape=shape,
        chunks=encoding.chunks,
        dtype=encoding.dtype,
        serializer=serializer,
        fill_value=encoding.fill_value,
        attributes={"units": "K", "number": number, **dict(encoding.attributes)},
        dimension_names=("y", "x_"),
        **codecs,
    )
    values = np.random.default_rng(number).integers(0, 12, shape).astype(encoding.dtype)
    skipped = encoding.chunks[0] if encoding.gap else 0  # the first chunks aren't there
    array[skipped:] = values[skipped:]
    times = group.create_array(
        "t",
        shape=(encoding.rows,),
        chunks=(max(encoding.rows, 1),),
        dtype="int32",
        attributes={"units": STARTS[encoding.epoch]},
        dimension_names=("y",),
    )
    times[:] = np.arange(encoding.rows) + number


def collection(items: list[Encoding], layout: str) -> Any:
    """Return a store with the granules, and their ids."""
    store = MemoryStore()
    root = zarr.create_group(store)
    names = [f"g{number}" for number in range(len(items))]
    for number, (name, encoding) in enumerate(zip(names, items, strict=True)):
        write(root, name, encoding, number)
    if layout == "packed":
        rows = [{"id": name, "orbit": n} for n, name in enumerate(names)]
        return packed_store(root, rows)
    meta = root.create_group("meta")
    put(meta, "id", texts(names))
    put(meta, "orbit", np.arange(len(items)))
    return store


def same(found: Any, expected: Any) -> None:
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


LAYOUTS = st.sampled_from(["groups", "packed"])


def indexers(draw: st.DrawFn, length: int) -> Any:
    """Return an int, a slice or some indices."""
    if length and draw(st.booleans()):
        return draw(st.lists(st.integers(0, length - 1), min_size=1, max_size=4))
    start, stop = sorted((draw(st.integers(0, length)), draw(st.integers(0, length))))
    return slice(start, stop, draw(st.integers(1, 3)))


@given(st.data(), LAYOUTS)
def test_unified_and_padded_stacks(data: st.DataObject, layout: str) -> None:
    """Each granule of a stack is the granule as xarray decodes it, and NaN beyond."""
    items = data.draw(st.lists(encodings(), min_size=1, max_size=4))
    store = collection(items, layout)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", l2view.L2ViewWarning)  # of integers without a fill value
        view = l2view.open(store, layout="stack", encoding="unify", ragged="pad")
    found = view.to_dataset()
    granules = decoded(store)
    dtype = np.result_type(*(granule.x.dtype for granule in granules))
    assert found.x.dtype == dtype
    whole = found.x.values
    for number, granule in enumerate(granules):
        rows, columns = granule.x.shape
        same(whole[number, :rows, :columns], granule.x.values.astype(dtype))
        if dtype.kind == "f":
            assert np.isnan(whole[number, rows:]).all()
            assert np.isnan(whole[number, :, columns:]).all()
        same(found.t.values[number, :rows], granule.t.values)
        assert np.isnat(found.t.values[number, rows:]).all()
    selection = tuple(indexers(data.draw, length) for length in found.x.shape)
    picked = dict(zip(found.x.dims, selection, strict=True))
    same(view.to_dataset().x.isel(picked).values, found.x.isel(picked).values)
    if layout == "packed":
        return  # a repository in memory doesn't travel
    again = pickle.loads(pickle.dumps(view.store))
    same(xr.open_zarr(again, consolidated=False).x.values, whole)


@given(st.data(), LAYOUTS)
def test_concatenated_granules(data: st.DataObject, layout: str) -> None:
    """Granules end to end are NumPy's concatenation of what xarray decodes of each."""
    columns = data.draw(st.integers(1, 5))
    items = data.draw(st.lists(encodings(columns=columns), min_size=1, max_size=5))
    store = collection(items, layout)
    view = l2view.open(store, layout="concat", dim="y", encoding="unify")
    found = view.to_dataset()
    granules = decoded(store)
    dtype = np.result_type(*(granule.x.dtype for granule in granules))
    expected = np.concatenate([granule.x.values.astype(dtype) for granule in granules])
    same(found.x.values, expected)
    same(found.t.values, np.concatenate([granule.t.values for granule in granules]))
    selection = tuple(indexers(data.draw, length) for length in expected.shape)
    picked = dict(zip(found.x.dims, selection, strict=True))
    same(view.to_dataset().x.isel(picked).values, found.x.isel(picked).values)
    chunked = view.to_dataset(chunks={})
    assert sum(chunked.x.chunks[0]) == len(expected)
    same(chunked.x.values, expected)
    assert found.y_size.values.tolist() == [granule.sizes["y"] for granule in granules]
    assert found.y_size.attrs["sample_dimension"] == "y"
    owners = np.repeat(np.arange(len(granules)), [granule.sizes["y"] for granule in granules])
    same(found.y_granule.values, owners)
    assert found.y_granule.attrs["instance_dimension"] == "granule"


# What a user sees


def plain(number: int, **options: Any) -> Encoding:
    said: dict[str, Any] = {
        "rows": 6,
        "columns": 4,
        "dtype": "int16",
        "endian": "little",
        "chunks": (3, 4),
        "codec": "zstd",
        "attributes": (("scale_factor", 0.5), ("_FillValue", -1)),
        "fill_value": -1,
        "gap": False,
    }
    return Encoding(**said | options)


def stores(*items: Encoding) -> Any:
    return collection(list(items), "groups")


@pytest.mark.parametrize("layout", ["groups", "packed"])
def test_a_stack_of_equal_granules(layout: str) -> None:
    """One array a variable over ``granule``, fields as coordinates, chunks as they lie."""
    store = collection([plain(n) for n in range(3)], layout)
    view = l2view.open(store, layout="stack", fields=["id", "orbit"])
    found = xr.open_zarr(view.store, consolidated=False)
    assert found.x.dims == ("granule", "y", "x_")
    assert found.x.chunks == ((1, 1, 1), (3, 3), (4,))
    assert set(found.coords) == {"idx", "id", "orbit"}
    assert found.orbit.values.tolist() == [0, 1, 2]
    same(found.x.values, np.stack([granule.x.values for granule in decoded(store)]))
    assert found.x.attrs == {"units": "K"}  # `number` differs
    assert found.attrs["kind"] == "made up"
    assert "title" not in found.attrs
    raw = view["x"]
    assert isinstance(raw, zarr.Array)
    assert raw.dtype == "int16"
    shape = view.view_store.shape
    assert isinstance(shape, JoinedView)
    assert isinstance(shape.find("x/c/1/1/0"), str)  # it passes through
    assert shape.find("x/c/3/0/0") is shape.find("x/c/1/1") is shape.find("x/c/a/0/0") is None
    assert len(view) == len(list(view.members())) == 5
    assert "layout" in repr(view)
    assert "x (granule: 3, y: 6, x_: 4)" in repr(view)


def test_a_field_as_the_dimension() -> None:
    store = stores(*(plain(n) for n in range(3)))
    view = l2view.open(store, layout="stack", dim="orbit", order_by="orbit DESC")
    found = xr.open_zarr(view.store, consolidated=False)
    assert found.x.dims == ("orbit", "y", "x_")
    assert found.indexes["orbit"].tolist() == [2, 1, 0]
    same(found.x.sel(orbit=1).values, decoded(store)[1].x.values)
    with pytest.raises(l2view.ShapeError, match='no field "orbits"; did you mean "orbit"'):
        l2view.open(store, layout="stack", dim="orbits")


def test_differing_encodings_are_named() -> None:
    store = stores(
        plain(0), plain(1, attributes=(("scale_factor", 0.25), ("_FillValue", -1)), chunks=(6, 4))
    )
    with pytest.raises(l2view.ShapeError) as raised:
        l2view.open(store, layout="stack")
    text = str(raised.value)
    assert 'x: scale_factor is 0.5 in g0 and 0.25 in g1; pass encoding="unify"' in text
    assert "x has chunks of (3, 4) in g0 and (6, 4) in g1" in text
    found = l2view.open(store, layout="stack", encoding="unify").to_dataset()
    same(found.x.values, np.stack([granule.x.values for granule in decoded(store)]))


def test_differing_shapes_are_named() -> None:
    store = stores(plain(0), plain(1, rows=5), plain(2))
    with pytest.raises(l2view.ShapeError) as raised:
        l2view.open(store, layout="stack")
    text = str(raised.value)
    assert "x has the shape (6, 4) in g0 and (5, 4) in g1" in text
    assert 'ragged="pad"' in text
    assert 'layout="concat"' in text
    view = l2view.open(store, layout="stack", encoding="unify", ragged="pad")
    found = view.to_dataset()
    assert found.y_size.values.tolist() == [6, 5, 6]
    assert np.isnan(found.x.values[1, 5]).all()
    assert not np.isnan(found.x.values[0]).any()
    shape = view.view_store.shape
    assert isinstance(shape.find("x/c/1/0/0"), str)  # whole
    assert not isinstance(shape.find("x/c/1/1/0"), str)  # beyond its granule's end
    assert isinstance(shape.find("x/c/0/1/0"), str)


def test_integers_without_a_fill_value_are_warned_of() -> None:
    store = stores(plain(0, attributes=()), plain(1, rows=5, attributes=()))
    with pytest.warns(l2view.L2ViewWarning, match="x has no fill value of its own: -1"):
        view = l2view.open(store, layout="stack", encoding="unify", ragged="pad", variables="x")
    assert view.to_dataset().x.values[1, 5].tolist() == [-1] * 4


def test_units_that_differ_are_an_error_unless_they_are_the_same() -> None:
    store = stores(plain(0), plain(1))
    root = zarr.open_group(store)
    root["g1/x"].attrs["units"] = "celsius"
    for options in ({}, {"encoding": "unify"}):
        with pytest.raises(l2view.ShapeError, match="units is 'K' in g0 and 'celsius' in g1"):
            l2view.open(store, layout="stack", **options)
    root["g1/x"].attrs["units"] = "kelvin"
    found = l2view.open(store, layout="stack", encoding="unify").to_dataset()
    assert found.x.attrs["units"] == "K"


def test_flags_that_differ_are_an_error() -> None:
    store = stores(plain(0), plain(1))
    zarr.open_group(store)["g1/x"].attrs["flag_meanings"] = "land sea"
    with pytest.raises(l2view.ShapeError, match="flag_meanings is none in g0 and 'land sea'"):
        l2view.open(store, layout="stack", encoding="unify")


def test_granules_that_differ_in_structure_are_groups_of_their_own() -> None:
    store = stores(plain(0), plain(1), plain(2))
    root = zarr.open_group(store)
    root["g1"].create_array("extra", shape=(2,), dtype="int8", dimension_names=("z",))
    put(root["meta"], "product", texts(["day", "night", "day"]))
    view = l2view.open(store, layout="stack", fields=["id", "product"])
    assert sorted(view.group_keys()) == ["day", "night"]
    said = view.attrs["l2view"]["stacks"]
    assert said == {
        "day": {"granules": 2, "arrays": ["t", "x"]},
        "night": {"granules": 1, "arrays": ["extra", "t", "x"]},
    }
    assert "day (2 granules), night (1 granules)" in repr(view)
    with pytest.raises(l2view.ShapeError, match="are in day, night"):
        view.to_dataset()
    tree = view.to_datatree()
    same(tree["day/x"].values, np.stack([decoded(store)[n].x.values for n in (0, 2)]))
    assert tree["day/id"].values.tolist() == ["g0", "g2"]
    unnamed = l2view.open(store, layout="stack", fields=["id"])
    assert sorted(unnamed.group_keys()) == ["stack_0", "stack_1"]
    # Of the variables that all have it is one.
    assert "x" in l2view.open(store, layout="stack", variables=["x", "t"])


def test_a_variable_called_like_a_field() -> None:
    store = stores(plain(0), plain(1))
    root = zarr.open_group(store)
    put(root["meta"], "x", np.arange(2.0))
    found = l2view.open(store, layout="stack").to_dataset()
    assert found.x.dims == ("granule", "y", "x_")
    assert found.granule_x.values.tolist() == [0.0, 1.0]


def test_granules_without_arrays_are_left_out_with_a_warning() -> None:
    store = stores(plain(0), plain(1), plain(2))
    root = zarr.open_group(store)
    del root["g1"]
    with pytest.warns(l2view.MissingGranuleWarning, match="1 of 3 granules have no arrays.*g1"):
        view = l2view.open(store, layout="stack")
    assert view.to_dataset()["id"].values.tolist() == ["g0", "g2"]


def test_nothing_found() -> None:
    view = l2view.open(stores(plain(0)), "orbit > 5", layout="stack")
    assert view.to_datatree().children == {}
    assert len(view) == 0


def test_arguments_are_checked() -> None:
    store = stores(plain(0))
    for options, text in [
        ({"layout": "stak"}, 'no layout= "stak"; did you mean "stack"'),
        ({"layout": "stack", "encoding": "same"}, "encoding= takes: keep, unify"),
        ({"encoding": "unify"}, 'pass layout="stack"'),
    ]:
        with pytest.raises(l2view.QueryError, match=text):
            l2view.open(store, **options)  # type: ignore[arg-type]
    with pytest.raises(l2view.ShapeError, match="name it with dim="):
        l2view.open(store, layout="concat")
    with pytest.raises(l2view.ShapeError, match='no dimension "z"; dimensions: x_, y'):
        l2view.open(store, layout="concat", dim="z")


def test_end_to_end_on_a_regular_grid_where_it_fits() -> None:
    """Chunk lengths that are the same and fill their granules make a regular grid."""
    view = l2view.open(stores(*(plain(n) for n in range(3))), layout="concat", dim="y")
    array = view["x"]
    assert isinstance(array, zarr.Array)
    assert array.chunks == (3, 4)
    assert array.shape == (18, 4)
    shape = view.view_store.shape
    assert all(isinstance(shape.find(f"x/c/{n}/0"), str) for n in range(6))


def test_end_to_end_on_a_rectilinear_grid() -> None:
    store = stores(plain(0, rows=6), plain(1, rows=5), plain(2, rows=4))
    view = l2view.open(store, layout="concat", dim="y")
    array = view["x"]
    assert isinstance(array, zarr.Array)
    assert array.read_chunk_sizes == ((3, 3, 3, 2, 3, 1), (4,))
    shape = view.view_store.shape
    passing = [isinstance(shape.find(f"x/c/{n}/0"), str) for n in range(6)]
    assert passing == [True, True, True, False, True, True]  # the last may reach beyond the end
    found = xr.open_zarr(view.store, consolidated=False)
    assert found.x.chunks == ((3, 3, 3, 2, 3, 1), (4,))
    same(found.x.values, np.concatenate([granule.x.values for granule in decoded(store)]))


def test_what_lies_not_along_the_dimension_is_stacked() -> None:
    store = stores(plain(0), plain(1))
    root = zarr.open_group(store)
    for number in range(2):
        root[f"g{number}"].create_array("orbits", shape=(), dtype="int32")[...] = number
    found = l2view.open(store, layout="concat", dim="y").to_dataset()
    assert found.orbits.dims == ("granule",)
    assert found.orbits.values.tolist() == [0, 1]


def test_a_stack_in_a_dask_worker() -> None:
    """It travels, also where its chunks differ in length."""
    import dask

    store = stores(plain(0, rows=6), plain(1, rows=5))
    view = l2view.open(store, layout="concat", dim="y")
    found = view.to_dataset(chunks={})
    with dask.config.set(scheduler="processes"):  # type: ignore[no-untyped-call]
        mean = float(found.x.mean().compute())
    assert mean == float(found.x.mean().compute(scheduler="synchronous"))


def test_head_and_listing() -> None:
    view = l2view.open(stores(*(plain(n) for n in range(3))), layout="stack", fields="id")
    two = view.head(2)
    assert two["x"].shape == (2, 6, 4)  # type: ignore[union-attr]
    assert two.attrs["l2view"]["count"] == 2
    group = zarr.open_group(view.store, mode="r")
    assert sorted(group.array_keys()) == ["id", "idx", "t", "x"]
    array = group["x"]
    assert isinstance(array, zarr.Array)
    assert array.nchunks_initialized == 6


def test_a_broken_chunk_is_named() -> None:
    store = stores(plain(0), plain(1, chunks=(6, 4)))
    key = next(key for key in store._store_dict if key.startswith("g0/x/c"))
    store._store_dict[key] = store._store_dict[key][:3]
    found = l2view.open(store, layout="stack", encoding="unify").to_dataset()
    with pytest.raises(l2view.ChunkError, match="g0/x can't be read"):
        found.x.load()


def test_variables_that_match_nothing_are_named() -> None:
    store = stores(plain(0), plain(1))
    with pytest.raises(l2view.ShapeError, match=r"no array matches variables=\['y'\]: t, x"):
        l2view.open(store, layout="stack", variables="y")


def test_what_else_a_joined_view_does() -> None:
    view = l2view.open(stores(plain(0), plain(1)), layout="stack", fields=["id"])
    assert view._ipython_key_completions_() == ["t", "x", "idx", "id"]
    assert view.verify() == {}
    assert "x" in str(view.tree())
    assert view.table["id"].to_pylist() == ["g0", "g1"]
    assert view["id"][:].tolist() == ["g0", "g1"]  # type: ignore[index,union-attr]
    assert view.store == l2view.open(view.view_store.source, layout="stack", fields=["id"]).store


def test_units_without_what_tells_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from l2view.virtual import join_conflicts

    monkeypatch.setattr(join_conflicts, "knows_units", lambda: False)
    join_conflicts._same_units.cache_clear()
    store = stores(plain(0), plain(1))
    zarr.open_group(store)["g1/x"].attrs["units"] = "kelvin"
    with pytest.raises(l2view.ShapeError, match=r"extra l2view\[units\]"):
        l2view.open(store, layout="stack", encoding="unify")
    join_conflicts._same_units.cache_clear()
