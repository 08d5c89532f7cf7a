"""Collections of images and swaths for the tests of mosaics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
import zarr
from affine import Affine
from builders import put, put_wkb, texts
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from rasterio.warp import transform_bounds
from zarr.storage import MemoryStore

import l2view

UTM31, UTM32 = "EPSG:32631", "EPSG:32632"
X, Y = 600_000, 5_000_000
"""Two zones, and a place in the first of them."""


@dataclass
class Scene:
    """An image that lies on a grid."""

    values: np.ndarray[Any, Any]
    transform: Affine
    crs: str
    nodata: Any = None
    chunks: tuple[int, ...] = (64, 64)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def geobox(self) -> GeoBox:
        return GeoBox(self.values.shape[-2:], self.transform, self.crs)

    @property
    def outline(self) -> shapely.Geometry:
        """A box around it in degrees."""
        return shapely.box(*transform_bounds(self.crs, "EPSG:4326", *self.geobox.boundingbox))


def image(height: int, width: int, dtype: Any = "uint16", seed: int = 0) -> np.ndarray[Any, Any]:
    """Return hills with some noise, whose values fit into `dtype` and are never 0."""
    y, x = np.mgrid[:height, :width]
    hills = np.sin(x / 17 + seed) * np.cos(y / 23 - seed)
    noise = np.random.default_rng(seed).normal(0, 0.05, (height, width))
    most = 100 if np.dtype(dtype).itemsize == 1 else 1000
    return np.clip(most / 2 + (hills + noise) * most / 3, 1, most).astype(dtype)


def scene(
    x: float,
    y: float,
    size: tuple[int, int] = (200, 240),
    *,
    crs: str = "EPSG:32631",
    resolution: float = 10.0,
    seed: int = 0,
    dtype: Any = "uint16",
    nodata: Any = 0,
    **options: Any,
) -> Scene:
    """Return a scene whose top left corner lies at a place."""
    transform = Affine(resolution, 0, x, 0, -resolution, y)
    return Scene(image(*size, dtype, seed), transform, crs, nodata, **options)


def collection(
    scenes: Sequence[Scene | Mapping[str, Scene]],
    store: Any = None,
    fields: Mapping[str, Any] | None = None,
) -> Any:
    """Write scenes as granules, each of one band ``red`` or of those that are named."""
    store = MemoryStore() if store is None else store
    root = zarr.create_group(store)
    granules = root.create_group("granules")
    outlines = []
    for number, one in enumerate(scenes):
        group = granules.create_group(f"g{number}")
        bands = one if isinstance(one, Mapping) else {"red": one}
        for name, band in bands.items():
            write_band(group, name, band)
        outlines.append(next(iter(bands.values())).outline)
    meta(root, len(scenes), outlines, fields)
    return store


def write_band(group: zarr.Group, name: str, band: Scene) -> zarr.Array[Any]:
    attributes: dict[str, Any] = {
        "spatial:transform": list(band.transform[:6]),
        "proj:code": band.crs,
        **band.attributes,
    }
    if band.nodata is not None:
        attributes["_FillValue"] = band.nodata
    rank = band.values.ndim
    array = group.create_array(
        name,
        shape=band.values.shape,
        chunks=(1,) * (rank - len(band.chunks)) + tuple(band.chunks),
        dtype=band.values.dtype,
        attributes=attributes,
        dimension_names=("band", "y", "x")[-rank:],
    )
    array[...] = band.values
    return array


def meta(
    root: zarr.Group, count: int, outlines: Sequence[Any], fields: Mapping[str, Any] | None = None
) -> None:
    numbers = np.arange(count)
    group = root.create_group("meta")
    put(group, "id", texts(f"g{number}" for number in numbers))
    put(group, "group_path", texts(f"granules/g{number}" for number in numbers))
    put(group, "datetime", np.datetime64("2025-06-01T10:00", "ms") + numbers.astype("m8[D]"))
    put_wkb(group, "bbox", [shapely.force_2d(one) for one in outlines])
    for name, values in (fields or {}).items():
        put(group, name, values)


def view(scenes: Any, **options: Any) -> l2view.View:
    return l2view.open(collection(scenes, **options))


def write_tiff(path: Path, one: Scene, **options: Any) -> Path:
    """Write a scene as a GeoTIFF, for GDAL."""
    height, width = one.values.shape
    with rasterio.open(
        path,
        "w",
        "GTiff",
        width,
        height,
        1,
        crs=CRS(one.crs).to_wkt(),
        transform=one.transform,
        dtype=one.values.dtype,
        nodata=one.nodata,
        **options,
    ) as file:
        file.write(one.values, 1)
    return path


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


def stack(count: int = 5, dtype: Any = "uint16", **options: Any) -> list[Scene]:
    """Return scenes that overlap, with holes."""
    found = []
    for seed in range(count):
        one = scene(
            X + 100 * seed, Y - 50 * (seed % 3), (50, 60), seed=seed, dtype=dtype, **options
        )
        hole = np.random.default_rng(seed).random(one.values.shape) < 0.2
        one.values[hole] = np.nan if np.dtype(dtype).kind == "f" else 0
        found.append(one)
    return found
