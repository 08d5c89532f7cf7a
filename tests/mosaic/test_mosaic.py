"""Mosaics as Datasets: composites, groups of times, order, engines, plans, files, errors."""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import rasterio
import rioxarray  # noqa: F401 (which gives xarray's objects theirs)
import xarray as xr
import zarr
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from scenes import UTM31, Scene, X, Y, collection, meta, scene, stack, view, write_band
from tables import Counting
from zarr.storage import MemoryStore

import l2view
from l2view.limits import override_limits
from l2view.mosaic.array import bounding_ranges
from l2view.regrid.warp import cast

GRID = GeoBox((60, 90), Affine(10, 0, X, 0, -10, Y), UTM31)


def layers(scenes: list[Scene]) -> np.ma.MaskedArray[Any, Any]:
    """Return the scenes on the grid one by one, masked where there is nothing."""
    nothing = np.zeros((len(scenes), *GRID.shape), scenes[0].values.dtype)
    made = np.ma.MaskedArray(nothing, np.ones(nothing.shape, bool))
    for at, one in enumerate(scenes):
        left, top = round((one.transform.c - X) / 10), round((Y - one.transform.f) / 10)
        height, width = one.values.shape
        rows, columns = min(height, 60 - top), min(width, 90 - left)
        values = one.values[:rows, :columns]
        missing = np.isnan(values) if values.dtype.kind == "f" else values == 0
        made[at, top : top + rows, left : left + columns] = np.ma.MaskedArray(values, missing)
    return made


def made(found: l2view.View, **options: Any) -> np.ndarray[Any, Any]:
    options = {"like": GRID, "bands": "red", "chunks": 37} | options
    values: np.ndarray[Any, Any] = l2view.mosaic(found, **options)["red"].to_numpy()
    return values


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("reduce", ["first", "last", "min", "max", "mean", "median", "count"])
def test_reduce_equals_numpy(dtype: str, reduce: str) -> None:
    scenes = stack(dtype=dtype, nodata=np.nan if dtype == "float32" else 0)
    stacked = layers(scenes)
    found = made(view(scenes), reduce=reduce)
    filled = np.ma.filled(stacked.astype(float), np.nan)
    there = ~np.isnan(filled)
    nothing = np.nan if found.dtype.kind == "f" else 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pixels with nothing
        expected = {
            "first": lambda: np.take_along_axis(filled, there.argmax(axis=0)[None], 0)[0],
            "last": lambda: np.take_along_axis(
                filled, len(filled) - 1 - there[::-1].argmax(axis=0)[None], 0
            )[0],
            "min": lambda: np.nanmin(filled, axis=0),
            "max": lambda: np.nanmax(filled, axis=0),
            "mean": lambda: np.nanmean(filled, axis=0),
            "median": lambda: np.nanmedian(filled, axis=0),
            "count": lambda: there.sum(axis=0),
        }[reduce]()
    expected = np.where(there.any(axis=0), expected, nothing if reduce != "count" else 0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    kinds = {"mean": "float32", "median": "float32", "count": "int32"}
    assert found.dtype == kinds.get(reduce, dtype)


def test_reduce_with_a_function() -> None:
    scenes = stack(dtype="float64", nodata=np.nan)
    found = made(view(scenes), reduce=lambda images: np.ma.ptp(images, axis=0))
    expected = np.ma.filled(np.ma.ptp(layers(scenes), axis=0), np.nan)
    np.testing.assert_allclose(found, expected)
    with pytest.raises(l2view.QueryError, match=r"of shape \(3,\).*has to make one of"):
        made(view(scenes), reduce=lambda images: np.zeros(3))
    with pytest.raises(l2view.QueryError, match="complex128"):
        made(view(scenes), reduce=lambda images: images[0] * 1j)


@override_limits(stack_bytes=4000)
def test_medians_are_made_in_bounding_ranges() -> None:
    scenes = stack(dtype="float64", nodata=np.nan)
    whole = made(view(scenes), reduce="median")
    np.testing.assert_array_equal(made(view(scenes), reduce="median"), whole)


def test_sums_of_small_integers_are_wide() -> None:
    """Of resampling by sums, alone and composed."""
    scenes = [Scene(np.full((40, 40), 200, "uint8"), GRID.transform, UTM31, 0) for _ in range(3)]
    coarse = GeoBox((2, 2), Affine(200, 0, X, 0, -200, Y), UTM31)
    for reduce, expected in (("first", 80_000), ("median", 80_000), ("mean", 80_000)):
        found = made(view(scenes), like=coarse, resampling="sum", reduce=reduce)
        np.testing.assert_array_equal(found, expected)


def test_values_that_come_out_as_nodata_are_no_holes() -> None:
    one = Scene(np.tile(np.array([[1, 3]], "uint8"), (40, 20)), GRID.transform, UTM31, 2)
    found = made(
        view([one]), like=GeoBox((20, 20), Affine(20, 0, X, 0, -20, Y), UTM31), resampling="average"
    )
    assert (found != 2).all()
    assert (np.abs(found.astype(int) - 2) <= 1).all()


def test_order() -> None:
    scenes = [
        Scene(np.full((60, 90), 1 + at, "uint8"), GRID.transform, UTM31, 0) for at in range(4)
    ]
    cloud = np.array([30.0, 10.0, np.nan, 20.0])
    found = view(scenes, fields={"cloud_cover": cloud})
    for order_by, top in [
        (None, 1),
        ("cloud_cover", 2),
        ("cloud_cover DESC", 1),
        ("datetime DESC", 4),
        (["-cloud_cover"], 1),
        ("cloud_cover > 15, datetime DESC", 2),
    ]:
        assert set(made(found, order_by=order_by).ravel()) == {top}, order_by
    assert set(made(found, order_by="cloud_cover", reduce="last").ravel()) == {3}  # NULL is last
    few = l2view.open(
        collection(scenes, fields={"cloud_cover": cloud}), fields=["id", "cloud_cover"]
    )
    assert set(made(few, order_by="cloud_cover").ravel()) == {2}
    with pytest.raises(l2view.FieldError, match='no field "cloudcover"; did you mean'):
        made(found, order_by="cloudcover")
    with pytest.raises(l2view.QueryError, match="order_by= is a text"):
        made(found, order_by=5)


def test_what_lies_under_others_is_not_read() -> None:
    scenes = [
        Scene(np.full((60, 90), 1 + at, "uint8"), GRID.transform, UTM31, 0) for at in range(4)
    ]
    store = Counting(collection(scenes))
    found = l2view.open(store)
    lazy = l2view.mosaic(found, like=GRID, bands="red", chunks=128)
    store.keys.clear()
    assert (lazy["red"] == 1).all()
    assert {key.split("/")[1] for key in store.chunks} == {"g0"}
    assert len(store.chunks) == len(set(store.chunks))
    store.keys.clear()
    l2view.mosaic(found, like=GRID, bands="red", chunks=16, reduce="max").compute()
    assert len(store.chunks) == len(set(store.chunks)) == 4 * 2


def test_nothing_is_read_before_it_is_computed() -> None:
    store = Counting(collection(stack()))
    found = l2view.open(store)
    store.keys.clear()
    lazy = l2view.mosaic(found, crs=UTM31, resolution=20, bands="red")
    assert not [key for key in store.chunks if "/red/c" in key]
    plan = l2view.explain_mosaic(found, crs=UTM31, resolution=20, bands="red")
    store.keys.clear()
    store.nbytes = 0
    lazy.compute()
    read = [key for key in store.chunks if "/red/c" in key]
    assert len(read) == plan.nchunks
    assert sum(len(store._store._store_dict[key]) for key in read) == plan.nbytes


# Times


def times(*texts: str) -> l2view.View:
    """Return a view of scenes of one value each, taken at some times."""
    store = MemoryStore()
    root = zarr.create_group(store)
    outlines = []
    for at in range(len(texts)):
        one = Scene(np.full((60, 90), 1 + at, "uint8"), GRID.transform, UTM31, 0)
        write_band(root.create_group(f"granules/g{at}"), "red", one)
        outlines.append(one.outline)
    platforms = np.array(["AB"[at % 2] for at in range(len(texts))], np.dtypes.StringDType())
    meta(root, len(texts), outlines, {"platform": platforms})
    array = root["meta/datetime"]
    array[...] = np.array(texts, "datetime64[ms]").astype("int64").view("datetime64[ms]")
    return l2view.open(store)


def test_groups_of_times() -> None:
    found = times("2025-01-30", "2025-02-01T12:00", "2025-02-27", "2026-02-01")
    for grouping, starts in [
        ("P1M", ["2025-01-01", "2025-02-01", "2026-02-01"]),
        ("P1Y", ["2025-01-01", "2026-01-01"]),
        ("P1W", ["2025-01-27", "2025-02-24", "2026-01-26"]),
        ("P1D", ["2025-01-30", "2025-02-01", "2025-02-27", "2026-02-01"]),
        ("date_trunc('month', datetime)", ["2025-01-01", "2025-02-01", "2026-02-01"]),
    ]:
        lazy = l2view.mosaic(found, like=GRID, bands="red", group_by=grouping, reduce="max")
        assert lazy["red"].dims == ("time", "y", "x")
        assert lazy["time"].to_numpy().astype("M8[D]").astype(str).tolist() == starts, grouping
        assert lazy["red"].chunks[0] == (1,) * len(starts)
    shifted = l2view.mosaic(found, like=GRID, bands="red", group_by="P16D", epoch="2025-01-30")
    assert shifted["time"].to_numpy()[0] == np.datetime64("2025-01-30")
    with pytest.raises(l2view.QueryError, match="epoch='soon' is no time"):
        l2view.mosaic(found, like=GRID, bands="red", group_by="P16D", epoch="soon")
    monthly = l2view.mosaic(found, like=GRID, bands="red", group_by="P1M", reduce="max")
    assert monthly["red"].max(("x", "y")).to_numpy().tolist() == [1, 3, 4]


def test_groups_of_solar_days() -> None:
    found = times("2025-01-30T23:55", "2025-01-31T00:05", "2025-01-31T23:40")  # 3° east
    lazy = l2view.mosaic(found, like=GRID, bands="red", group_by="solar_day", reduce="max")
    assert lazy["time"].to_numpy().astype("M8[D]").astype(str).tolist() == ["2025-01-31"]
    assert int(lazy["red"].max()) == 3


def test_groups_of_other_values() -> None:
    found = times("2025-01-30", "2025-02-01", "2025-02-27")
    lazy = l2view.mosaic(found, like=GRID, bands="red", group_by="platform", reduce="max")
    assert lazy["red"].dims == ("group", "y", "x")
    assert lazy["group"].to_numpy().tolist() == ["A", "B"]
    assert lazy["red"].max(("x", "y")).to_numpy().tolist() == [3, 2]
    nulls = "CASE WHEN platform = 'A' THEN 1 END"
    with pytest.warns(l2view.L2ViewWarning, match="1 of 3 granules are in no group"):
        lazy = l2view.mosaic(found, like=GRID, bands="red", group_by=nulls)
    assert lazy["group"].to_numpy().tolist() == [1]
    for wrong, said in [
        ("P1M15D", "P1M15D"),
        ("nofield", 'no field "nofield"'),
        ("random()", "random"),
        (7, "neither a period"),
        ("CAST(NULL AS INT)", "all are NULL"),
    ]:
        with pytest.raises((l2view.QueryError, l2view.FieldError), match=re.escape(said)):
            l2view.mosaic(found, like=GRID, bands="red", group_by=wrong)


# The Dataset


def test_georeferenced() -> None:
    lazy = l2view.mosaic(view(stack()), crs=UTM31, resolution=20, bands="red")
    assert lazy.rio.crs == rasterio.crs.CRS.from_epsg(32631)
    assert lazy["red"].rio.nodata == 0
    assert lazy.odc.geobox.crs == UTM31
    assert lazy["red"].rio.transform() == lazy.odc.geobox.transform
    assert lazy["red"].attrs["grid_mapping"] == "spatial_ref"
    assert type(lazy.xindexes["x"]).__name__ == "RasterIndex"
    height, width = lazy["red"].shape
    assert (lazy["x"].to_numpy() % 20 == 10).all()
    part = lazy.sel(x=slice(X + 100, X + 300), y=slice(Y - 100, Y - 300))
    assert part["red"].shape == (11, 11)  # the pixels that hold the ends, too
    point = lazy.sel(x=X + 111, y=Y - 95, method="nearest")["red"]
    assert point == lazy["red"].to_numpy()[4, 5]
    assert (height, width) == (30, 50)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_written_and_read_again(tmp_path: Path, dtype: str) -> None:
    scenes = stack(dtype=dtype, nodata=np.nan if dtype == "float32" else 0)
    lazy = l2view.mosaic(view(scenes), like=GRID, bands="red", chunks=32)
    lazy.to_zarr(tmp_path / "a.zarr", consolidated=False)
    again = xr.open_zarr(tmp_path / "a.zarr", consolidated=False, mask_and_scale=False)
    np.testing.assert_array_equal(again["red"], lazy["red"])
    lazy.to_netcdf(tmp_path / "a.nc")
    lazy["red"].rio.to_raster(tmp_path / "a.tif")
    with rasterio.open(tmp_path / "a.tif") as file:
        np.testing.assert_array_equal(file.read(1), lazy["red"])
        assert file.crs == rasterio.crs.CRS.from_epsg(32631)
        assert file.nodata == 0 or np.isnan(file.nodata)


def test_cubed_makes_the_same(tmp_path: Path) -> None:
    import cubed

    found = view(stack())
    lazy = l2view.mosaic(found, like=GRID, bands="red", chunks=32, engine="cubed")
    assert isinstance(lazy["red"].data, cubed.Array)
    np.testing.assert_array_equal(lazy["red"].data.compute(), made(found))


def test_slices_and_pickles() -> None:
    found = view(stack())
    whole = made(found)
    lazy = l2view.mosaic(found, like=GRID, bands="red", chunks=16)["red"]
    for key in [
        np.s_[::-1, 5:9],
        np.s_[3, :],
        np.s_[-5:, ::7],
        np.s_[10:10, :],
        np.s_[40:5:-3, 80:2:-11],
    ]:
        np.testing.assert_array_equal(lazy[key], whole[key])
    again = pickle.loads(pickle.dumps(lazy))
    np.testing.assert_array_equal(again, whole)
    assert isinstance(lazy.data, da.Array)


@given(
    st.integers(1, 9),
    st.one_of(
        st.integers(-9, 8),
        st.slices(9),
    ),
)
def test_indices_are_numpys(length: int, key: Any) -> None:
    values = np.arange(length)
    if isinstance(key, int) and not -length <= key < length:
        with pytest.raises(IndexError):
            bounding_ranges(key, (length,))
        return
    (held,), index = bounding_ranges(key, (length,))
    np.testing.assert_array_equal(values[held.start : held.stop][index], values[key])


@given(
    st.lists(st.floats(allow_nan=False, width=64), min_size=1, max_size=9),
    st.sampled_from(["uint8", "int16", "int64", "uint64", "float32"]),
)
def test_casts_are_cut_off(values: list[float], dtype: str) -> None:
    found = cast(np.array(values), np.dtype(dtype))
    assert found.dtype == dtype
    if np.dtype(dtype).kind != "f":
        bounds = np.iinfo(dtype)
        for one, own in zip(values, found.tolist(), strict=True):
            exact = min(max(round(one) if np.isfinite(one) else 0, bounds.min), bounds.max)
            if np.isfinite(one):
                assert own == exact


def test_dtype_and_nodata() -> None:
    scenes = stack()
    assert made(view(scenes), dtype="float32").dtype == "float32"
    assert np.isnan(made(view(scenes), dtype="float32")).any()
    small = made(view(scenes), dtype="uint8")
    big = made(view(scenes))
    np.testing.assert_array_equal(small, np.minimum(big, 255))
    marked = made(view(scenes), nodata=9999)
    np.testing.assert_array_equal(marked == 9999, big == 0)
    plain = Scene(np.zeros((60, 90), "int16"), GRID.transform, UTM31, None)
    with pytest.warns(l2view.L2ViewWarning, match='"red" says no fill value: 0 stands'):
        assert (made(view([plain])) == 0).all()
    assert (made(view([plain]), nodata=-1, like=GRID.pad(5))[:5] == -1).all()
    two = [Scene(np.full((60, 90), 3, "uint8"), GRID.transform, UTM31, fill) for fill in (0, 255)]
    with pytest.warns(l2view.L2ViewWarning, match=r"several fill values \(0, 255\)"):
        made(view(two))


def test_a_coarse_map_of_fine_scenes() -> None:
    """In degrees, which are thousands of the scenes' pixels."""
    asked: Any = {"resampling": "average", "reduce": "count"}
    found = l2view.mosaic(view(stack()), crs=4326, resolution=0.5, bands="red", **asked)
    assert found["red"].max() == 5
    assert found["red"].attrs["units"] == "1"


def test_groups_are_those_of_the_bands() -> None:
    """A time at which no granule has the band has no image."""
    one = Scene(np.full((60, 90), 1, "uint8"), GRID.transform, UTM31, 0)
    found = view([{"red": one}, {"nir": one}, {"red": one}])
    with pytest.warns(l2view.L2ViewWarning, match="have no band"):
        lazy = l2view.mosaic(found, like=GRID, bands="red", group_by="P1D")
    days = lazy["time"].to_numpy().astype("M8[D]").astype(str).tolist()
    assert days == ["2025-06-01", "2025-06-03"]
    assert lazy.attrs["granules"] == 2
    assert (lazy["red"] == 1).all()


def test_bands_of_other_granules() -> None:
    one, other = stack(2)
    found = view([{"red": one, "nir": other}, {"nir": one}])
    with pytest.warns(
        l2view.L2ViewWarning, match='1 of 2 granules have no band "red": g1. They are no part'
    ):
        lazy = l2view.mosaic(found, like=GRID, bands=["red", "nir"])
    assert set(lazy.data_vars) == {"red", "nir"}
    with pytest.warns(l2view.L2ViewWarning):
        assert set(l2view.mosaic(found, like=GRID).data_vars) == {"red", "nir"}
    shown = l2view.open(collection([{"red": one, "nir": other}]), variables="nir")
    assert set(l2view.mosaic(shown, like=GRID).data_vars) == {"nir"}
    with pytest.raises(l2view.QueryError, match='no band "red"'):
        l2view.mosaic(shown, like=GRID, bands="red")


# Errors, before anything is read


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"bands": "blue"}, 'no band "blue".*bands: red'),
        ({"crs": 4326, "resolution": 10}, "10 is in degrees.*looks like metres.*8.98"),
        ({"group_by": "1M"}, 'did you mean "P1M"'),
        ({"crs": UTM31, "resolution": 1e-4}, "0.0001 is in metre.*looks like degrees.*11.132"),
        ({"crs": UTM31, "resolution": 0.5, "bbox": (0, 0, 12, 70)}, "pixels in .* chunks: pass a"),
        ({"crs": UTM31, "resolution": 0.01, "chunks": None}, "more than is made at once.*chunks="),
        ({"crs": None, "resolution": 10}, "crs= and resolution=, or like="),
        ({"crs": "EPSG:99999", "resolution": 10}, "is no CRS"),
        ({"crs": "EPSG:4979", "resolution": 1e-4}, "two dimensions"),
        ({"crs": UTM31, "resolution": "fine"}, "is no size of a pixel"),
        ({"crs": UTM31, "resolution": 0}, "is no size of a pixel"),
        ({"like": GRID, "crs": UTM31}, "like= is the whole grid"),
        ({"like": np.zeros((3, 3))}, "has no grid"),
        ({"resampling": "bicubic"}, 'no resampling "bicubic"'),
        ({"reduce": "avg"}, 'no reduce "avg".*or pass a function'),
        ({"reduce": np.array([1, 2])}, "no reduce"),
        ({"dtype": "text"}, "is no data type"),
        ({"dtype": "complex64"}, "integers, or floats"),
        ({"nodata": -1}, "nodata=-1 is no uint16"),
        ({"nodata": "none"}, "is no number"),
        ({"nodata": float("inf")}, "is no uint16"),
        ({"chunks": "auto"}, "rows and columns of a chunk"),
        ({"chunks": (0, 5)}, "rows and columns of a chunk"),
        ({"chunks": True}, "rows and columns of a chunk"),
        ({"bbox": (4, 50, 3), "crs": UTM31, "resolution": 10}, "west, south, east, north"),
        ({"engine": "spark"}, 'no engine "spark"'),
        ({"bands": []}, "names no band"),
        ({"bands": 3}, "are no paths"),
        ({"bands": {"time": "red"}}, 'no band can be called "time"'),
        ({"bands": ["red", "red"]}, "several bands would be called red"),
    ],
)
def test_errors(asked: dict[str, Any], said: str) -> None:
    store = Counting(collection(stack(2)))
    found = l2view.open(store)
    options: dict[str, Any] = {"bands": "red"}
    if not {"crs", "like"} & asked.keys():
        options["like"] = GRID
    if "bbox" not in asked and asked.get("crs") == UTM31 and asked.get("resolution") == 0.01:
        options["bbox"] = (4.2, 45.0, 4.3, 45.1)
    store.keys.clear()
    with pytest.raises(l2view.QueryError, match=re.compile(said, re.DOTALL)):
        l2view.mosaic(found, **options | asked)
    assert not [key for key in store.chunks if "/red/c" in key]


def test_views_without_anything() -> None:
    with pytest.raises(l2view.QueryError, match="no granules"):
        l2view.mosaic(l2view.open(collection(stack(1)), where="id = 'x'"), like=GRID)
    with pytest.raises(l2view.QueryError, match="made of a view, and not of str"):
        l2view.mosaic("store", like=GRID)  # type: ignore[arg-type]
    store = MemoryStore()
    root = zarr.create_group(store)
    array = root.create_group("granules/g0").create_array("red", shape=(4, 4), dtype="int16")
    array[...] = 1
    meta(root, 1, [scene(X, Y).outline])
    with pytest.raises(l2view.QueryError, match='1 of 1 granules don.t say where.*"red" lie.*g0'):
        l2view.mosaic(l2view.open(store), like=GRID, bands="red")


def test_a_mosaic_beside_all_granules_is_warned_of() -> None:
    with pytest.warns(l2view.L2ViewWarning, match="no granule of the view lies in the mosaic"):
        lazy = l2view.mosaic(view(stack(1)), crs=4326, resolution=0.01, bbox=(50, 10, 51, 11))
    assert not lazy["red"].any()


def test_a_granule_that_lies_nowhere_is_left_out() -> None:
    bad, good = stack(2)
    bad.transform = Affine(0, 0, 0, 0, 0, 0)
    store = MemoryStore()
    root = zarr.create_group(store)
    for at, one in enumerate((bad, good)):
        write_band(root.create_group(f"granules/g{at}"), "red", one)
    meta(root, 2, [good.outline] * 2)
    with pytest.warns(l2view.L2ViewWarning, match="1 of 2 granules don.t say where.*g0"):
        found = made(l2view.open(store))
    np.testing.assert_array_equal(found, made(view([good])))


def test_a_chunk_that_cannot_be_read_is_named() -> None:
    store = collection(stack(1))
    store._store_dict["granules/g0/red/c/0/0"] = type(
        store._store_dict["granules/g0/red/c/0/0"]
    ).from_bytes(b"nonsense")
    with pytest.raises(l2view.ChunkError, match="c/0/0 of g0/red can't be read"):
        made(l2view.open(store))


# Plans


def test_a_plan_tells_what_is_read() -> None:
    found = view(stack())
    plan = found.explain_mosaic(like=GRID, bands="red", chunks=30)
    assert str(plan).startswith(
        "mosaic of 60 × 90 pixels in EPSG:32631: red\nchunks    6 of 30 × 30"
    )
    table = plan.to_dataframe()
    assert isinstance(table, pd.DataFrame)
    assert set(table["granule"]) == {f"g{at}" for at in range(5)}
    assert plan.granules_per_chunk.shape == (2, 3)
    for _, one in table.iterrows():
        assert 0 <= one["row_start"] < one["row_stop"] <= 50
        assert one["bytes"] > 0
    axes = plan.plot()
    assert "6 chunks" in axes.get_title()
    import matplotlib.pyplot as plt

    plt.close(axes.figure)


def test_what_is_computed_is_the_callers() -> None:
    """Who writes into it changes nothing that is computed again."""
    one = Scene(np.full((60, 90), 7, "uint8"), GRID.transform, UTM31, 0, chunks=(60, 90))
    lazy = l2view.mosaic(view([one]), like=GRID, bands="red", chunks=None)["red"]
    values = lazy.to_numpy()
    values[...] = 1
    assert (lazy.to_numpy() == 7).all()


def test_threads_share_chunks() -> None:
    """Several threads that need one chunk read it once."""
    store = Counting(collection([scene(X, Y, (128, 128), chunks=(128, 128))]))
    lazy = l2view.mosaic(l2view.open(store), crs=UTM31, resolution=10, bands="red", chunks=16)
    store.keys.clear()
    with dask.config.set(scheduler="threads", num_workers=8):
        lazy.compute()
    assert len([key for key in store.chunks if "/red/c" in key]) == 1
