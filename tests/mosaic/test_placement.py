"""Where the images of mosaics lie, by whatever says it, and which of their levels are read."""

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
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.warp import transform_bounds
from scenes import (
    UTM31,
    Scene,
    X,
    Y,
    collection,
    field_of,
    grid,
    image,
    made,
    meta,
    scene,
    view,
    write_band,
    write_tiff,
)
from zarr.storage import MemoryStore

import l2view


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


def test_a_packing_that_some_granules_share() -> None:
    """Granules whose transforms alone differ are one variant to the decoders."""
    scales = (0.5, 0.5, 4.0)
    scenes = [scene(X + 2000 * at, Y, (50, 60), seed=at) for at in range(len(scales))]
    for one, scale in zip(scenes, scales, strict=True):
        one.attributes = {"scale_factor": scale}
    found = made(view(scenes), grid(x=X, y=Y, size=(50, 460)))
    for at, (one, scale) in enumerate(zip(scenes, scales, strict=True)):
        np.testing.assert_array_equal(found[:, 200 * at :][:, :60], one.values * scale)


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


def test_masks_among_numbered_images_are_no_overviews() -> None:
    """As TIFFs have them that nothing says the levels of (TIFF 6.0, NewSubfileType)."""
    store = MemoryStore()
    root = zarr.create_group(store)
    group = root.create_group("granules/g0")
    keys = {
        "model_pixel_scale": [10.0, 10.0, 0.0],
        "model_tiepoint": [0.0, 0.0, 0.0, float(X), float(Y), 0.0],
        "projected_type": 32631,
        "model_type": 1,
        "_FillValue": 0,
    }
    for name, size, value, said in [
        ("0", 64, 100, keys),
        ("1", 32, 255, {"new_subfile_type": 5, "_FillValue": 0}),
        ("2", 32, 101, {"new_subfile_type": 1, "_FillValue": 0}),
    ]:
        array = group.create_array(
            name, shape=(size, size), chunks=(16, 16), dtype="uint8", dimension_names=("y", "x")
        )
        array[...] = value
        array.attrs.update(said)
    meta(root, 1, [shapely.box(4, 45, 5, 46)])
    for resolution, value in ((10, 100), (20, 101)):
        target = GeoBox.from_bbox((X, Y - 640, X + 640, Y), UTM31, resolution=resolution)
        assert (made(l2view.open(store), target, bands={"red": "0"}) == value).all()
