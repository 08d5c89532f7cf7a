"""Mosaics of images on grids, against GDAL."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from typing import Any

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
import zarr
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.merge import merge
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject, transform_bounds
from scenes import Scene, collection, image, meta, scene, view, write_band, write_tiff
from zarr.storage import MemoryStore

import l2view
from l2view.mosaic import rasters
from l2view.mosaic.warp import RADIUS, RESAMPLINGS

UTM31, UTM32 = "EPSG:32631", "EPSG:32632"
X, Y = 600_000, 5_000_000


def warped(
    one: Scene, grid: GeoBox, resampling: str, scale: float | tuple[float, float] | None = None
) -> np.ndarray[Any, Any]:
    """Return a scene on a grid, by GDAL."""
    found = np.zeros(grid.shape, one.values.dtype)
    pair = scale if isinstance(scale, tuple) else (scale, scale)
    options = {} if scale is None else {"YSCALE": pair[0], "XSCALE": pair[1]}
    reproject(
        one.values,
        found,
        src_transform=one.transform,
        src_crs=one.crs,
        src_nodata=one.nodata,
        dst_transform=grid.transform,
        dst_crs=str(grid.crs),
        dst_nodata=0 if one.nodata is None else one.nodata,
        resampling=Resampling[resampling],
        tolerance=0,
        **options,
    )
    return found


def made(found: l2view.View, grid: GeoBox, **options: Any) -> np.ndarray[Any, Any]:
    options = {"bands": "red", "chunks": 96} | options
    values: np.ndarray[Any, Any] = l2view.mosaic(found, like=grid, **options)["red"].to_numpy()
    return values


def grid(
    crs: str = UTM31,
    x: float = X + 203,
    y: float = Y - 187,
    size: tuple[int, int] = (150, 170),
    resolution: float = 10.0,
) -> GeoBox:
    return GeoBox(size, Affine(resolution, 0, x, 0, -resolution, y), crs)


def assert_alike(ours: Any, theirs: Any, resampling: str, share: float = 0.99) -> None:
    """Values are the same, but for what approximations of projections turn over."""
    assert ours.shape == theirs.shape
    there = (ours != 0) == (theirs != 0)
    assert there.mean() > share
    off = np.abs(ours.astype(float) - theirs.astype(float))[there]
    few = 1.0 if resampling not in ("nearest", "mode", "min", "max", "med", "q1", "q3") else 0
    assert (off <= few).mean() > share, np.sort(off)[-20:]


@pytest.mark.parametrize("resampling", RESAMPLINGS)
@pytest.mark.parametrize("holes", [False, True])
def test_resampling_within_one_crs(resampling: str, holes: bool) -> None:
    one = scene(X, Y)
    if holes:
        one.values[40:60, 50:90] = 0
        one.values[np.random.default_rng(1).random(one.values.shape) < 0.03] = 0
    target = grid()
    found = made(view([one]), target, resampling=resampling)
    assert found.dtype == (np.int64 if resampling == "sum" else np.uint16)
    theirs = warped(one, target, resampling)
    if resampling == "sum":  # which GDAL cuts off at what its type holds
        theirs = warped(Scene(one.values.astype("int32"), one.transform, one.crs, 0), target, "sum")
        found = np.where(found == np.iinfo("int64").min, 0, found)
    assert_alike(found, theirs, resampling)


@pytest.mark.parametrize("resampling", RESAMPLINGS)
@pytest.mark.parametrize("resolution", [3.0, 7.0, 15.0, 40.0])
def test_resampling_into_another_crs(resampling: str, resolution: float) -> None:
    one = scene(X, Y, (300, 300), dtype="float32", nodata=np.nan)
    x, y = Transformer.from_crs(UTM31, UTM32, always_xy=True).transform(X + 700, Y - 500)
    target = grid(UTM32, x, y, (120, 130), resolution)
    found = made(view([one]), target, resampling=resampling)
    scale = 10 / resolution
    theirs = warped(
        one, target, resampling, scale if resampling in RADIUS and abs(scale - 1) > 0.05 else None
    )
    known = np.isfinite(found) & np.isfinite(theirs)
    assert (np.isfinite(found) == np.isfinite(theirs)).mean() > 0.99
    assert known.any()
    off = np.abs(found - theirs)[known]
    assert np.quantile(off, 0.97) <= 0.02 * np.ptp(one.values)


@pytest.mark.parametrize("resampling", RESAMPLINGS)
def test_chunks_have_no_seams(resampling: str) -> None:
    one = scene(X, Y, (300, 300), dtype="float64", nodata=np.nan)
    x, y = Transformer.from_crs(UTM31, UTM32, always_xy=True).transform(X + 300, Y - 200)
    for resolution in (4.0, 13.0, 37.0):
        target = grid(UTM32, x, y, (90, 90), resolution)
        small, whole = (
            made(view([one]), target, resampling=resampling, chunks=c) for c in (17, 90)
        )
        np.testing.assert_array_equal(np.isnan(small), np.isnan(whole))
        if resampling in ("nearest", "mode", "min", "max", "med", "q1", "q3"):
            assert np.isclose(small, whole, equal_nan=True).mean() > 0.985
        else:
            assert np.nanmax(np.abs(small - whole)) < 0.02 * np.ptp(one.values)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64"])
@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic", "lanczos", "average"])
def test_integers_stay_integers(dtype: str, resampling: str) -> None:
    """Of all values that the type has, its ends among them."""
    bounds = np.iinfo(dtype)
    low, high = max(bounds.min, -(2**50)), min(bounds.max, 2**50)
    values = np.random.default_rng(0).integers(low, high, (120, 130), dtype=dtype, endpoint=True)
    values[10:40, 20:60] = high
    values[60:90, 20:60] = low
    one = Scene(values, Affine(10, 0, X, 0, -10, Y), UTM31)
    target = grid(x=X + 103, y=Y - 104, size=(90, 90), resolution=9.0)
    with pytest.warns(l2view.L2ViewWarning, match="no fill value"):
        found = made(view([one]), target, resampling=resampling)
    assert found.dtype == dtype
    wide = Scene(values.astype("float64"), one.transform, UTM31, np.nan)
    scale = 10 / 9
    theirs = warped(wide, target, resampling, scale if resampling in RADIUS else None)
    theirs = np.clip(np.rint(theirs), bounds.min, bounds.max)
    off = np.abs(found.astype(float) - theirs)
    assert off.max() <= max(1, 1e-9 * (high - low))


@pytest.mark.parametrize(
    "one",
    [
        Scene(image(100, 110), Affine(10, 0, X, 0, 10, Y - 1000), UTM31, 0),
        Scene(image(100, 110), Affine(-10, 0, X + 1100, 0, -10, Y), UTM31, 0),
        Scene(image(100, 110), Affine(8, 3, X, 2, -9, Y), UTM31, 0),
        Scene(image(100, 110), Affine(20, 0, X, 0, -5, Y), UTM31, 0),
        Scene(image(100, 110), Affine(1e-4, 0, 4.27, 0, -1e-4, 45.15), "EPSG:4326", 0),
        Scene(image(100, 110), Affine(10, 0, 4_000_000, 0, -10, 2_400_000), "EPSG:3035", 0),
    ],
    ids=["south up", "mirrored", "sheared", "oblong", "degrees", "equal area"],
)
@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "average"])
def test_transforms(one: Scene, resampling: str) -> None:
    bounds = transform_bounds(one.crs, UTM31, *one.geobox.boundingbox)
    target = GeoBox.from_bbox(bounds, UTM31, resolution=10)
    found = made(view([one]), target, resampling=resampling, chunks=64)
    a, b, _, d, e, _ = one.transform[:6]
    skewed = (np.hypot(b, e) / 10, np.hypot(a, d) / 10) if b and resampling == "bilinear" else None
    assert_alike(found, warped(one, target, resampling, skewed), resampling, 0.97)
    assert (found > 0).mean() > 0.3


def test_merge_of_aligned_scenes_equals_rasterio(tmp_path: Any) -> None:
    """Overlapping scenes on one grid, for each way to compose them that rasterio has."""
    scenes = [scene(X + 900 * at, Y - 300 * (at % 2), seed=at) for at in range(5)]
    for one in scenes[::2]:
        one.values[30:70, 40:100] = 0
    files = [write_tiff(tmp_path / f"{at}.tif", one) for at, one in enumerate(scenes)]
    for reduce in ("first", "last", "min", "max", "count"):
        theirs, transform = merge(files, method=reduce)
        target = GeoBox(theirs.shape[1:], transform, UTM31)
        found = made(view(scenes), target, reduce=reduce, chunks=128)
        np.testing.assert_array_equal(found, theirs[0], err_msg=reduce)


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic"])
def test_equals_a_warped_vrt(tmp_path: Any, resampling: str) -> None:
    one = scene(X, Y, (400, 400))
    path = write_tiff(tmp_path / "a.tif", one)
    x, y = Transformer.from_crs(UTM31, "EPSG:3857", always_xy=True).transform(X + 500, Y - 500)
    target = grid("EPSG:3857", x, y, (220, 230), 14.1)
    with (
        rasterio.open(path) as file,
        WarpedVRT(
            file,
            crs="EPSG:3857",
            transform=target.transform,
            height=220,
            width=230,
            resampling=Resampling[resampling],
            tolerance=0.001,
        ) as vrt,
    ):
        theirs = vrt.read(1)
    assert_alike(made(view([one]), target, resampling=resampling), theirs, resampling)


def test_two_zones_have_no_seam() -> None:
    """A plane over both zones is the same plane in the mosaic, across where they meet."""
    border = 6.0  # degrees east
    scenes = []
    for crs in (UTM31, UTM32):
        x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(border, 45)
        x, y = round(x, -1), round(y, -1)
        transform = Affine(10, 0, x - 2000, 0, -10, y + 1000)
        columns, rows = np.meshgrid(np.arange(400) + 0.5, np.arange(200) + 0.5)
        lon, lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(
            *(transform @ (columns, rows))
        )
        inside = (lon < border) if crs == UTM31 else (lon >= border)
        values = np.where(inside, (lon - border) * 1e5 + (lat - 45) * 3e5, np.nan)
        scenes.append(Scene(values, transform, crs, np.nan))
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:3857", always_xy=True).transform(border, 45)
    target = grid("EPSG:3857", x - 900, y + 600, (80, 120), 15.0)
    lon, lat = Transformer.from_crs("EPSG:3857", "EPSG:4326", always_xy=True).transform(
        *(target.transform @ tuple(np.meshgrid(np.arange(120) + 0.5, np.arange(80) + 0.5)))
    )
    plane = (lon - border) * 1e5 + (lat - 45) * 3e5
    for resampling in ("nearest", "bilinear"):
        found = made(view(scenes), target, resampling=resampling, chunks=32)
        assert np.isfinite(found).all(), resampling
        assert np.abs(found - plane).max() < (40 if resampling == "nearest" else 25)


@given(
    x=st.floats(-1500, 1500),
    y=st.floats(-1500, 1500),
    resolution=st.floats(4, 50),
    chunks=st.integers(7, 200),
    own=st.tuples(st.integers(1, 80), st.integers(1, 80)),
)
def test_nearest_is_exact(
    x: float, y: float, resolution: float, chunks: int, own: tuple[int, int]
) -> None:
    """Against the pixel that each centre lies in, found in NumPy."""
    one = scene(X, Y, (70, 90), chunks=own)
    target = GeoBox((40, 50), Affine(resolution, 0, X + x, 0, -resolution, Y + y), UTM31)
    found = made(view([one]), target, chunks=chunks)
    columns = np.floor((x + resolution * (np.arange(50) + 0.5)) / 10 + 1e-9)
    rows = np.floor((-y + resolution * (np.arange(40) + 0.5)) / 10 + 1e-9)
    expected = np.zeros((40, 50), "uint16")
    for row, at in enumerate(rows.astype(int)):
        for column, beside in enumerate(columns.astype(int)):
            if 0 <= at < 70 and 0 <= beside < 90:
                expected[row, column] = one.values[at, beside]
    on_edges = [
        np.abs(v / 10 - np.round(v / 10)) < 1e-6
        for v in (x + resolution * (np.arange(50) + 0.5), -y + resolution * (np.arange(40) + 0.5))
    ]
    clear = ~(on_edges[1][:, None] | on_edges[0][None, :])
    np.testing.assert_array_equal(found[clear], expected[clear])


def globe(west: float = -180.0, step: float = 1.0) -> Scene:
    """A grid of the whole globe whose values are a smooth field of where they lie."""
    lon = west + step / 2 + np.arange(round(360 / step)) * step
    lat = 90 - step / 2 - np.arange(round(180 / step)) * step
    values = field_of(lon[None, :], lat[:, None])
    return Scene(values, Affine(step, 0, west, 0, -step, 90), "EPSG:4326", np.nan)


def field_of(lon: Any, lat: Any) -> Any:
    lon, lat = np.radians(lon), np.radians(lat)
    return (
        100 * np.cos(lat) * np.cos(lon - 1) + 50 * np.sin(lat) + 30 * np.cos(lat) * np.sin(2 * lon)
    )


@pytest.mark.parametrize("west", [-180.0, 0.0])
@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic", "average"])
@pytest.mark.parametrize(
    "target",
    [
        grid("EPSG:3832", 2_800_000, 2_000_000, (100, 120), 10_000),  # across 180°
        grid("EPSG:4326", 170.0, 20.0, (60, 80), 0.25),
        grid("EPSG:4326", -190.0, 20.0, (60, 80), 0.25),
        grid("EPSG:3413", -1_000_000, 1_000_000, (100, 100), 20_000),  # the pole in the middle
        grid("EPSG:3031", -3_000_000, 3_000_000, (120, 120), 50_000),
        grid("EPSG:6931", -9_000_000, 9_000_000, (90, 90), 200_000),
        grid("EPSG:3857", -20_037_508, 10_000_000, (100, 200), 200_375),
    ],
    ids=["Pacific", "beyond 180", "beyond -180", "north", "south", "hemisphere", "world"],
)
def test_the_whole_globe(west: float, resampling: str, target: GeoBox) -> None:
    """A smooth field comes out as it is, across the antimeridian, Greenwich and the poles."""
    found = made(view([globe(west)]), target, resampling=resampling, chunks=40)
    height, width = target.shape
    at = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    lon, lat = Transformer.from_crs(target.crs.proj, "EPSG:4326", always_xy=True).transform(
        *(target.transform @ tuple(at))
    )
    known = np.isfinite(lon) & np.isfinite(lat)
    assert np.isfinite(found[known]).all(), np.argwhere(np.isnan(found) & known)[:5]
    off = np.abs(found - field_of(lon, lat))[known]
    assert off.max() < {"nearest": 3.5, "average": 7.0}.get(resampling, 1.5)


@pytest.mark.parametrize("crs", ["EPSG:32601", "EPSG:32660", "EPSG:3413"])
def test_scenes_at_the_antimeridian_and_the_pole_in_degrees(crs: str) -> None:
    """Images in a projection, on a target in degrees."""
    to = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    polar = crs == "EPSG:3413"
    x, y = to.transform(180.0, 90.0 if polar else 10.0)
    step = 2000.0
    transform = Affine(step, 0, x - 150 * step, 0, -step, y + 150 * step)
    at = np.meshgrid(np.arange(300) + 0.5, np.arange(300) + 0.5)
    lon, lat = to.transform(*(transform @ tuple(at)), direction="INVERSE")
    one = Scene(field_of(lon, lat), transform, crs, np.nan)
    target = (
        grid("EPSG:4326", -180.0, 90.0, (40, 720), 0.5 / 10)
        if polar
        else grid("EPSG:4326", 178.5, 11.0, (100, 150), 0.02)
    )
    if polar:
        target = GeoBox((40, 360), Affine(1.0, 0, -180, 0, -0.05, 90), "EPSG:4326")
    found = made(view([one]), target, resampling="bilinear", chunks=50)
    height, width = target.shape
    at = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    expected = field_of(*(target.transform @ tuple(at)))
    assert np.isfinite(found).all()
    assert np.abs(found - expected).max() < 0.5


def test_scenes_in_degrees_are_found_again_after_a_turn() -> None:
    one = Scene(image(40, 40), Affine(0.1, 0, -179.0, 0, -0.1, 5), "EPSG:4326", 0)
    target = grid("EPSG:4326", 178.0, 5.0, (40, 60), 0.1)
    found = made(view([one]), target)
    np.testing.assert_array_equal(found[:, 30:], one.values[:, :30])
    assert not found[:, :30].any()


def levels(group: zarr.Group, one: Scene, names: list[str], **options: Any) -> None:
    """Write overviews of a scene, each the mean of the one before, with multiscales."""
    values = one.values.astype(float)
    layout = []
    for number, name in enumerate(names):
        scale = 2**number
        height, width = values.shape
        array = group.create_array(
            name, shape=(height, width), chunks=(32, 32), dtype="uint16", dimension_names=("y", "x")
        )
        array.attrs.update({"_FillValue": 0})
        array[...] = np.rint(values).astype("uint16") + number * 10_000
        layout.append({"asset": name.split("/")[0]})
        if number:
            layout[-1] |= {
                "derived_from": names[0].split("/")[0],
                "transform": {"scale": [scale, scale], "translation": [0.0, 0.0]},
            }
        values = values.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
    group.attrs.update({"multiscales": {"layout": layout}} | options)


@pytest.mark.parametrize("inside", ["", "/red"])
@pytest.mark.parametrize(
    ("resolution", "level"), [(5, 0), (10, 0), (19.5, 0), (20, 1), (39, 1), (40, 2), (300, 2)]
)
def test_overviews(inside: str, resolution: float, level: int) -> None:
    """The coarsest that is no coarser than the target is read, and nothing else."""
    store = MemoryStore()
    root = zarr.create_group(store)
    one = scene(X, Y, (256, 256))
    group = root.create_group("granules/g0")
    placing = {"spatial:transform": list(one.transform[:6]), "proj:code": UTM31}
    levels(group, one, [f"{name}{inside}" for name in ("r10m", "r20m", "r40m")], **placing)
    meta(root, 1, [one.outline])
    band = "red" if inside else "r10m"
    target = GeoBox.from_bbox(one.geobox.boundingbox, UTM31, resolution=resolution)
    found = l2view.mosaic(l2view.open(store), like=target, bands={"red": band})["red"].to_numpy()
    there = found[found > 0]
    assert (there // 10_000 == level).all()
    plan = l2view.explain_mosaic(l2view.open(store), like=target, bands={"red": band})
    assert set(plan.table.column("level").to_pylist()) == {level}


def test_a_level_with_its_own_transform(tmp_path: Any) -> None:
    store = MemoryStore()
    root = zarr.create_group(store)
    group = root.create_group("granules/g0")
    one = scene(X, Y, (128, 128))
    levels(group, one, ["a", "b"])
    layout = [
        {"asset": "a", "spatial:transform": [10, 0, X, 0, -10, Y], "spatial:shape": [128, 128]},
        {"asset": "b", "spatial:transform": [20, 0, X + 40, 0, -20, Y], "spatial:shape": [64, 64]},
    ]
    group.attrs.update({"multiscales": {"layout": layout}, "proj:code": UTM31})
    meta(root, 1, [one.outline])
    target = GeoBox((64, 64), Affine(20, 0, X + 40, 0, -20, Y), UTM31)
    found = l2view.mosaic(l2view.open(store), like=target, bands="a")["a"].to_numpy()
    np.testing.assert_array_equal(found, group["b"][...])


@pytest.mark.parametrize("named", [True, False])
def test_cf_grids(named: bool) -> None:
    """Axes in degrees, ascending or not, and in a projection with a grid mapping."""
    store = MemoryStore()
    root = zarr.create_group(store)
    outlines = []
    for number, (order, crs) in enumerate([(1, None), (-1, None), (1, UTM31)]):
        group = root.create_group(f"granules/g{number}")
        step = 10.0 if crs else 0.001
        x = (X if crs else 4.0) + 5 * step + np.arange(60) * step
        y = ((Y if crs else 45.0) + np.arange(50) * step)[::order]
        values = image(50, 60, seed=number)
        named_axes = {"y": y, "x": x} if crs or named else {"lat": y, "lon": x}
        standard = ("projection_y_coordinate", "projection_x_coordinate")
        standard = standard if crs else ("latitude", "longitude")
        for (name, axis), said in zip(named_axes.items(), standard, strict=True):
            array = group.create_array(
                name,
                shape=axis.shape,
                chunks=(20,),
                dtype="float64" if name in ("y", "lat") or crs else "float32",
                dimension_names=(name,),
            )
            array[...] = axis
            array.attrs.update({"standard_name": said})
        band = group.create_array(
            "red",
            shape=(50, 60),
            chunks=(20, 20),
            dtype="uint16",
            dimension_names=tuple(named_axes),
        )
        band[...] = values
        band.attrs.update({"_FillValue": 0})
        if crs:
            mapping = group.create_array("crs", shape=(), dtype="int32")
            mapping.attrs.update({"crs_wkt": rasterio.crs.CRS.from_string(crs).to_wkt()})
            band.attrs.update({"grid_mapping": "crs"})
        transform = Affine(step, 0, x[0] - step / 2, 0, step * order, y[0] - step * order / 2)
        own = crs or "EPSG:4326"
        outlines.append(Scene(values, transform, own).outline)
        root.attrs[f"expected{number}"] = [list(transform[:6]), own]
        root.require_group("kept").create_array(str(number), data=values)
    meta(root, 3, outlines)
    for number in range(3):
        transform, crs = root.attrs[f"expected{number}"]
        target = GeoBox((50, 60), Affine(*transform), crs)
        one = l2view.open(store, ids=[f"g{number}"])
        found = l2view.mosaic(one, like=target, bands="red")["red"].to_numpy()
        np.testing.assert_array_equal(found, root[f"kept/{number}"][...])


def test_placed_by_fields() -> None:
    """What /meta says, where the arrays say nothing."""
    one = scene(X, Y, (50, 60))
    store = MemoryStore()
    root = zarr.create_group(store)
    array = write_band(root.create_group("granules/g0"), "red", one)
    array.attrs.put({"_FillValue": 0})
    fields: dict[str, Any] = {
        f"transform_{at}": np.array([float(value)]) for at, value in enumerate(one.transform[:6])
    }
    fields |= {"shape_y": np.array([50]), "shape_x": np.array([60])}
    fields |= {"proj:epsg": np.array([32631])}
    meta(root, 1, [one.outline], fields)
    found = made(l2view.open(store), one.geobox)
    np.testing.assert_array_equal(found, one.values)


def test_each_granule_has_its_own_packing() -> None:
    scenes = [scene(X + 2000 * at, Y, (50, 60), seed=at, nodata=7) for at in range(2)]
    for at, one in enumerate(scenes):
        one.attributes = {"scale_factor": 0.1 * (1 + at), "add_offset": float(at)}
    target = grid(x=X, y=Y, size=(50, 260))
    found = made(view(scenes), target)
    assert found.dtype.kind == "f"
    for at, one in enumerate(scenes):
        expected = np.where(one.values == 7, np.nan, one.values * 0.1 * (1 + at) + at)
        np.testing.assert_allclose(found[:, 200 * at :][:, :60], expected, rtol=1e-6)
    assert np.isnan(found[:, 60:200]).all()


def test_bands_of_an_array_are_picked() -> None:
    values = np.stack([image(50, 60, seed=at) for at in range(3)])
    one = Scene(values, Affine(10, 0, X, 0, -10, Y), UTM31, 0)
    found = view([{"rgb": one}])
    grid_ = one.geobox
    made_ = l2view.mosaic(found, like=grid_, bands={"g": "rgb[1]", "b": "rgb[-1]"})
    np.testing.assert_array_equal(made_["g"], values[1])
    np.testing.assert_array_equal(made_["b"], values[2])
    with pytest.raises(l2view.QueryError, match=r'band \(3\).*"rgb\[0\]"'):
        l2view.mosaic(found, like=grid_, bands="rgb")


def test_chunks_that_are_missing_are_the_fill_value() -> None:
    one = scene(X, Y, (128, 128), chunks=(64, 64))
    one.values[:64, 64:] = 0
    store = collection([one])
    store._store_dict.pop("granules/g0/red/c/0/1", None)  # as zarr leaves it out by default
    np.testing.assert_array_equal(made(l2view.open(store), one.geobox), one.values)


def test_cropped_views() -> None:
    scenes = [scene(X + 1000 * at, Y, (128, 128), seed=at) for at in range(2)]
    whole = view(scenes)
    target = GeoBox.from_bbox((X, Y - 1280, X + 2280, Y), UTM31, resolution=10)
    all_of_it = made(whole, target)
    lon, lat = Transformer.from_crs(UTM31, "EPSG:4326", always_xy=True).transform(X + 800, Y - 640)
    bbox = (lon - 0.003, lat - 0.003, lon + 0.003, lat + 0.003)
    cropped = made(whole.sel(bbox=bbox, exact=True), target)
    there = cropped != 0
    assert 0 < there.mean() < 0.3
    np.testing.assert_array_equal(
        cropped[there & (np.arange(228) < 100)], all_of_it[there & (np.arange(228) < 100)]
    )


def test_a_coarse_target_is_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    one = scene(X, Y, (300, 300), dtype="float64", nodata=np.nan)
    target = grid(x=X, y=Y, size=(10, 10), resolution=300.0)
    whole = made(view([one]), target, resampling="average")
    monkeypatch.setattr(rasters, "MOST_PIXELS", 2000)
    np.testing.assert_allclose(made(view([one]), target, resampling="average"), whole)


@pytest.mark.filterwarnings("ignore:Imagecodecs codecs are not")
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32"])
def test_cogs(tmp_path: Any, dtype: str) -> None:
    """As ingested: deflated, predicted, with overviews whose sides are no halves."""
    one = scene(X, Y, (301, 403), dtype=dtype, nodata=0)
    options = {
        "dtype": dtype,
        "crs": UTM31,
        "transform": one.transform,
        "nodata": 0,
        "compress": "deflate",
        "predictor": 3 if dtype == "float32" else 2,
        "blocksize": 128,
        "overview_resampling": "average",
    }
    with rasterio.open(tmp_path / "a.tif", "w", "COG", 403, 301, 1, **options) as file:
        file.write(one.values, 1)
    when = {"datetime": datetime(2025, 6, 1)}
    l2view.ingest(tmp_path / "a.tif", tmp_path / "store", harvest=lambda *_: when)
    found = l2view.open(tmp_path / "store", authorize=True)
    full = made(found, one.geobox, bands={"red": "0"})
    np.testing.assert_array_equal(full, one.values)
    with rasterio.open(tmp_path / "a.tif", overview_level=0) as file:
        smaller = file.read(1)
        target = GeoBox(smaller.shape, file.transform, UTM31)
    np.testing.assert_array_equal(made(found, target, bands={"red": "0"}), smaller)
    cropped = found.sel(bbox=transform_bounds(UTM31, "EPSG:4326", X + 900, Y - 900, X + 1500, Y))
    part = made(cropped, target, bands={"red": "0"})
    there = np.isfinite(part) & (part != 0)
    assert 0 < there.sum() < there.size
    np.testing.assert_array_equal(part[there], smaller[there])


def test_tiffs_are_read_where_nothing_was_ingested(tmp_path: Any) -> None:
    """The codecs of TIFFs are found by name in a process that has only opened a collection."""
    one = scene(X, Y, (64, 64))
    path = write_tiff(
        tmp_path / "a.tif",
        one,
        compress="deflate",
        predictor=2,
        tiled=True,
        blockxsize=64,
        blockysize=64,
    )
    l2view.ingest(path, tmp_path / "store", harvest=lambda *_: {"datetime": datetime(2025, 6, 1)})
    code = (
        "import sys, l2view; view = l2view.open(sys.argv[1], authorize=True); "
        "array = next(iter(dict(view['a'].arrays()).values())); print(array[...].sum())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "store")], capture_output=True, text=True
    )
    assert done.stdout.strip() == str(one.values.sum()), done.stderr


GEOSTATIONARY = "+proj=geos +lon_0=-75 +h=35786023 +a=6378137 +b=6356752.31414 +sweep=x"


@pytest.mark.parametrize(("units", "factor"), [("rad", 1 / 35786023), ("km", 1e-3), ("m", 1.0)])
def test_axes_in_other_units(units: str, factor: float) -> None:
    """As geostationary satellites have them, in radians seen from their height."""
    crs = pyproj.CRS.from_user_input(GEOSTATIONARY)
    step = 20_000.0
    at = (np.arange(100) - 49.5) * step
    x, y = np.meshgrid(at, -at)
    lon, lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)
    values = np.where(np.isfinite(lon), field_of(lon, lat), np.nan)
    store = MemoryStore()
    root = zarr.create_group(store)
    group = root.create_group("granules/g0")
    for name, axis in (("y", -at), ("x", at)):
        array = group.create_array(name, shape=(100,), dtype="float64", dimension_names=(name,))
        array[...] = axis * factor
        said = {"units": units, "standard_name": f"projection_{name}_coordinate"}
        array.attrs.update(said)
    band = group.create_array("red", shape=(100, 100), dtype="float64", dimension_names=("y", "x"))
    band[...] = values
    band.attrs["grid_mapping"] = "fixed_grid"
    mapping = group.create_array("fixed_grid", shape=(), dtype="int32")
    said = crs.to_cf()
    mapping.attrs.update({k: v for k, v in said.items() if k != "crs_wkt"})
    meta(root, 1, [shapely.box(-100, -20, -50, 20)])
    target = grid("EPSG:4326", -82.0, 5.0, (40, 50), 0.25)
    found = made(l2view.open(store), target, resampling="bilinear")
    at = np.meshgrid(np.arange(50) + 0.5, np.arange(40) + 0.5)
    np.testing.assert_allclose(found, field_of(*(target.transform @ tuple(at))), atol=0.05)


@pytest.mark.parametrize("chunks", [17, 60, 300])
@pytest.mark.parametrize(
    "crs",
    ["EPSG:6933", "ESRI:54009", "EPSG:3035", "+proj=geos +h=35786023 +lon_0=10", "EPSG:6932"],
)
def test_where_projections_end_nothing_is_lost(crs: str, chunks: int) -> None:
    """Each pixel that is on the globe has a value, whichever chunks are made."""
    reach = 5_000_000 if "geos" in crs or crs == "EPSG:6932" else 9_000_000
    target = GeoBox.from_bbox((-reach, -reach, reach, reach), crs, resolution=150_000)
    found = made(view([globe()]), target, chunks=chunks)
    height, width = target.shape
    at = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    x, y = target.transform @ tuple(at)
    there = Transformer.from_crs(target.crs.proj, "EPSG:4326", always_xy=True)
    lon, lat = there.transform(x, y)
    with np.errstate(invalid="ignore"):
        again = there.transform(lon, lat, direction="INVERSE")
        known = np.hypot(again[0] - x, again[1] - y) < 1  # and not beyond the map's edge
    assert known.any()
    lost = known & np.isnan(found)
    assert not lost.any(), (int(lost.sum()), np.argwhere(lost)[:5])
    assert np.abs(found[known] - field_of(lon[known], lat[known])).max() < 3.5


@pytest.mark.parametrize("names", [("x", "y"), ("lon", "lat"), ("easting", "northing")])
def test_images_that_lie_on_their_side(names: tuple[str, str]) -> None:
    """Dimensions are told by their names, and not by their order."""
    one = scene(X, Y, (50, 60))
    store = MemoryStore()
    root = zarr.create_group(store)
    group = root.create_group("granules/g0")
    said = {"spatial:transform": list(one.transform[:6]), "proj:code": UTM31, "_FillValue": 0}
    array = group.create_array(
        "red",
        shape=(60, 50),
        chunks=(16, 16),
        dtype="uint16",
        dimension_names=names,
        attributes=said,
    )
    array[...] = one.values.T
    meta(root, 1, [one.outline])
    np.testing.assert_array_equal(made(l2view.open(store), one.geobox), one.values)


def test_large_integers_are_exact() -> None:
    values = np.random.default_rng(0).integers(2**60, 2**62, (60, 60))
    values[10:20] = -(2**63)
    one = Scene(values, Affine(10, 0, X, 0, -10, Y), UTM31, -(2**63))
    x, y = Transformer.from_crs(UTM31, UTM32, always_xy=True).transform(X + 50, Y - 50)
    target = grid(UTM32, x, y, (40, 40))
    found = made(view([one]), target)
    assert np.isin(found, values).all()
    assert (found > 2**60).any()
    with pytest.raises(l2view.QueryError, match="can't be resampled exactly"):
        made(view([one]), target, resampling="bilinear")


def test_default_extents_are_sane() -> None:
    """Where a projection has the far pole at infinity, the mosaic doesn't go there."""
    for crs, most in (("EPSG:3413", 450), ("EPSG:3857", 450), ("EPSG:2154", 450)):
        lazy = l2view.mosaic(view([globe()]), crs=crs, resolution=100_000, bands="red")
        assert max(lazy["red"].shape) < most, crs
