"""Views in xarray: granules and trees, decoded as far as xarray can."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from builders import put, texts
from zarr.storage import MemoryStore

import l2view


def test_xarray_opens_granules(view: l2view.View, store: MemoryStore) -> None:
    ours = xr.open_zarr(view.store, group="S2A_002")
    source = xr.open_zarr(store, group="granules/g002", consolidated=False)
    xr.testing.assert_equal(ours, source)
    assert ours.attrs["orbit"] == 2
    nested = xr.open_zarr(view.store, group="S2A_002/quality")
    assert nested["flag"].values.tolist() == [1, 2, 2]


def test_xarray_opens_the_tree(view: l2view.View) -> None:
    tree = xr.open_datatree(view.store, engine="zarr")
    assert list(tree.children) == ["S2A_001", "S2A_002", "S2A_004"]
    assert tree["S2A_002/quality/flag"].values.tolist() == [1, 2, 2]
    ours = view.to_datatree()
    assert ours.identical(tree)
    # Children inherit neither coordinates nor variables of the root.
    assert not tree["S2A_002"].coords
    assert set(tree["S2A_002"].to_dataset().variables) == {"red", "nir"}
    assert ours["S2A_002/red"].encoding["preferred_chunks"] == {"y": 4, "x": 4}


def test_datatree_reads_lazily_and_as_selected(view: l2view.View) -> None:
    red = view.to_datatree()["S2A_004/red"]
    expected = xr.open_zarr(view.store, group="S2A_004")["red"]
    np.testing.assert_array_equal(red[2:5, ::2], expected[2:5, ::2])
    np.testing.assert_array_equal(red.isel(y=[5, 1], x=3), expected.isel(y=[5, 1], x=3))
    chunked = view.to_datatree().chunk()["S2A_004/red"]
    np.testing.assert_array_equal(chunked.mean("x"), expected.mean("x"))


def test_what_xarray_cannot_decode_costs_no_other_array() -> None:
    root = zarr.create_group(MemoryStore())
    granules = root.create_group("granules")
    for name, last in (("a", 2.0), ("b", 1e30)):
        group = granules.create_group(name)
        for array in ("time", "start", "end"):
            values = np.array([1.0, last])
            made = group.create_array(array, data=values, dimension_names=("time",))
            made.attrs["units"] = "days since 2000-01-01"
        group["end"].attrs["units"] = "days since launch"
    put(root.create_group("meta"), "id", texts(["a", "b"]))
    put(root["meta"], "group_path", texts(["granules/a", "granules/b"]))
    view = l2view.open(root.store)
    with pytest.warns(l2view.UndecodedArrayWarning) as caught:
        tree = view.to_datatree()
    (warning,) = caught
    names = "4 arrays are shown as they are stored: a/end, b/end, b/start, b/time; the first, for "
    assert str(warning.message).startswith(names)
    assert tree["a/time"].dtype.kind == tree["a"].indexes["time"].dtype.kind == "M"
    assert tree["b/time"].to_numpy().tolist() == tree["b/start"].to_numpy().tolist() == [1, 1e30]
    assert tree["b/start"].attrs["units"] == "days since 2000-01-01"
    stored = view.to_datatree(decode_times=False)
    expected = xr.open_datatree(
        view.store, engine="zarr", consolidated=False, decode_times=False, chunks=None
    )
    assert stored.identical(expected)
    assert "time" not in view.to_datatree(drop_variables=["time", "start", "end"])["b"]
    with pytest.raises(TypeError):
        view.to_datatree(decode_time=False)


@pytest.mark.parametrize("layout", ["stack", "concat"])
def test_joined_granules_are_decoded_as_far_as_xarray_can(layout: Any) -> None:
    root = zarr.create_group(MemoryStore())
    for name in ("a", "b"):
        for array, units in (("time", "days since 2000-01-01"), ("end", "days since launch")):
            made = root.create_array(
                f"granules/{name}/{array}", data=np.arange(2.0), dimension_names=("row",)
            )
            made.attrs["units"] = units
    put(root.create_group("meta"), "id", texts(["a", "b"]))
    put(root["meta"], "group_path", texts(["granules/a", "granules/b"]))
    view = l2view.open(root.store, layout=layout, dim="row" if layout == "concat" else None)
    for read in (view.to_dataset, lambda: view.to_datatree().to_dataset()):
        with pytest.warns(l2view.UndecodedArrayWarning, match="1 array is shown .*: end; .*launch"):
            dataset = read()
        assert dataset["time"].dtype.kind == "M"
        assert dataset["end"].to_numpy().ravel().tolist() == [0, 1, 0, 1]
        assert dataset["end"].attrs["units"] == "days since launch"
    theirs = xr.open_zarr(view.store, consolidated=False, drop_variables=["end"], chunks=None)
    with pytest.warns(l2view.UndecodedArrayWarning):
        xr.testing.assert_identical(view.to_dataset().drop_vars("end"), theirs)


@pytest.mark.parametrize("error", [OSError("connection reset"), MemoryError()])
def test_what_cannot_be_read_is_no_matter_of_decoding(error: Exception) -> None:
    class Failing(MemoryStore):
        async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
            if "/time/c/" in key:
                raise error
            return await super().get(key, *arguments, **options)

    store = Failing()
    root = zarr.create_group(store)
    made = root.create_array("granules/a/time", data=np.arange(3), dimension_names=("time",))
    made.attrs["units"] = "days since 2000-01-01"
    put(root.create_group("meta"), "id", texts(["a"]))
    put(root["meta"], "group_path", texts(["granules/a"]))
    with pytest.raises((OSError, MemoryError, l2view.L2ViewError)):
        l2view.open(store).to_datatree()["a/time"].to_numpy()


def test_datatree_needs_dimension_names() -> None:
    root = zarr.create_group(MemoryStore())
    root.create_group("a").create_array("x", shape=(3,), chunks=(3,), dtype="int8")
    put(root.create_group("meta"), "id", texts(["a"]))
    view = l2view.open(root.store)
    assert view["a/x"].shape == (3,)
    with pytest.raises(KeyError, match="the array a/x has no dimension names"):
        view.to_datatree()


@pytest.mark.parametrize("chunks", [{}, {"x": 20}, "auto", -1])
def test_datatrees_of_dask_arrays(chunks: Any) -> None:
    root = zarr.create_group(MemoryStore())
    group = root.create_group("a")
    names = {"dimension_names": ["x"]}
    sharded = group.create_array("s", shape=(20,), chunks=(3,), shards=(12,), dtype="i2", **names)
    sharded[:] = np.arange(20)
    group.create_array("x", shape=(20,), chunks=(7,), dtype="i2", **names)[:] = np.arange(20)
    with zarr.config.set({"array.rectilinear_chunks": True}):
        ragged = group.create_array("r", shape=(20,), chunks=[[3, 5, 12]], dtype="i2", **names)
        ragged[:] = np.arange(20)
        put(root.create_group("meta"), "id", texts(["a"]))
        view = l2view.open(root.store)
        ours = view.to_datatree(chunks)["a"].to_dataset()
        theirs = xr.open_zarr(view.store, group="a", chunks=chunks)
        for name in ("s", "r"):
            assert ours[name].chunks == theirs[name].chunks
            for said in ("chunks", "preferred_chunks", "shards"):
                assert ours[name].encoding.get(said) == theirs[name].encoding.get(said)
        xr.testing.assert_identical(ours, theirs)
