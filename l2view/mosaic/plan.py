"""A mosaic before anything is read but where granules lie, and the Dataset that reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox, GeoboxTiles
from odc.geo.xr import xr_coords
from rasterix import RasterIndex

from l2view.cells.scan import require_free_loop
from l2view.errors import L2ViewWarning, QueryError, warn
from l2view.granules.reader import GranuleReader
from l2view.mosaic.array import BandArray, MakeArray
from l2view.mosaic.groups import Layering, layering
from l2view.mosaic.images import Images, SwathImages
from l2view.mosaic.sources import BandSources, ProfileImages, band_sources
from l2view.mosaic.spec import MosaicSpec
from l2view.regrid.target import NO_BOUNDS, geobox_within, require_unit, union_bounds
from l2view.virtual.tree import Tree

SINGLE_PRECISION_BYTES = 2  # the bytes of integers whose means single precision holds well enough


@dataclass(frozen=True, eq=False)
class MosaicPlan:
    """A planned mosaic."""

    grid: GeoBox
    chunks: tuple[int, int]  # the rows and columns of a chunk
    bands: tuple[BandArray, ...]
    layers: Layering
    reader: GranuleReader

    @property
    def groups(self) -> range:
        """The positions along the first dimension; one where there is none."""
        return range(1 if self.layers.labels is None else len(self.layers.labels))

    @property
    def tiles(self) -> GeoboxTiles:
        """The grid's chunks."""
        return GeoboxTiles(self.grid, self.chunks)

    def to_dataset(self, make_array: MakeArray) -> xr.Dataset:
        """Return the mosaic as a Dataset of arrays that `make_array` makes of its bands."""
        labels = self.layers.labels
        leading = {} if labels is None else {self.layers.dimension: 1}
        dimensions, chunks = (*leading, "y", "x"), (*leading.values(), *self.chunks)
        variables = {}
        for band in self.bands:
            counts = band.reduce == "count"
            attributes: dict[str, Any] = {"units": "1"} if counts else {**band.attributes}
            attributes["grid_mapping"] = "spatial_ref"
            if not counts:
                attributes["_FillValue"] = band.nodata
            variables[band.name] = (dimensions, make_array(band, chunks), attributes)
        dataset = xr.Dataset(variables, coords=_grid_coordinates(self.grid))
        if labels is not None:
            dataset = dataset.assign_coords({self.layers.dimension: labels})
        return dataset.assign_attrs(granules=self.layers.count)


def _grid_coordinates(grid: GeoBox) -> xr.Coordinates:
    """Return the coordinates of a grid: its CRS, and the centres of its pixels, by an index."""
    assert grid.crs is not None
    height, width = grid.shape
    index = RasterIndex.from_transform(
        grid.transform, width=width, height=height, x_dim="x", y_dim="y", crs=grid.crs.proj
    )
    described = xr_coords(grid, always_yx=True)
    coordinates = xr.Coordinates.from_xindex(index)
    for name in ("x", "y"):
        if name in coordinates and name in described:
            coordinates[name].attrs.update(described[name].attrs)
    crs = described["spatial_ref"]
    if grid.axis_aligned and height > 1 and width > 1:
        # The coordinates say it, also of a part of the mosaic, of which this would be wrong.
        crs.attrs.pop("GeoTransform", None)
    return coordinates.assign(spatial_ref=crs)


def plan_mosaic(tree: Tree, spec: MosaicSpec) -> MosaicPlan:
    """Plan the mosaic of a tree's granules."""
    require_free_loop()
    if not len(tree.granules):
        raise QueryError("the view has no granules, and there is nothing to make a mosaic of")
    layers = layering(tree.granules, spec)
    sources = band_sources(tree, spec)
    profiles = [images for source in sources for images in source.profiles]
    layers = layers.of_granules(np.concatenate([images.rows for images in profiles]))
    grid = _grid(profiles, spec) if spec.grid is None else spec.grid
    height, width = grid.shape
    chunks = spec.chunk_shape((height, width))
    token = uuid4().hex
    bands = []
    for source in sources:
        images = [profile.on(grid, layers, tree.reader, token) for profile in source.profiles]
        bands.append(_band(source, tuple(filter(None, images)), grid, layers, spec))
    # Each swath may lie on the grid.
    if not any(
        isinstance(images, SwathImages) or len(images.touching(grid))
        for band in bands
        for images in band.images
    ):
        warn(
            "no granule of the view lies in the mosaic, which is empty: look at its bbox= or like=",
            L2ViewWarning,
        )
    return MosaicPlan(grid, chunks, tuple(bands), layers, tree.reader)


def _grid(profiles: Sequence[ProfileImages], spec: MosaicSpec) -> GeoBox:
    crs, size = spec.target_crs, spec.pixel_size
    require_unit(crs, size, np.concatenate([images.pixel_metres() for images in profiles]))
    bounds = NO_BOUNDS
    if spec.bbox is None:
        bounds = union_bounds([images.bounds[1] for images in profiles], crs)
    return geobox_within(crs, size, spec.corners, bounds)


def _band(
    source: BandSources,
    images: tuple[Images, ...],
    grid: GeoBox,
    layers: Layering,
    spec: MosaicSpec,
) -> BandArray:
    dtype = np.dtype(np.uint8) if source.dtype.kind == "b" else source.dtype
    result = spec.result_dtype or _result_dtype(dtype, spec)
    named = spec.nodata is not None or bool(source.fill_values)
    return BandArray(
        name=source.band.name,
        grid=grid,
        groups=None if layers.labels is None else len(layers.labels),
        images=images,
        resampling=spec.resampling,
        reduce=spec.reduce,
        source=dtype,
        dtype=result,
        nodata=_nodata(source, result, spec),
        avoid_nodata=result.kind in "iu" and spec.reduce != "count" and named,
        attributes=source.attributes,
    )


def _result_dtype(source: np.dtype[Any], spec: MosaicSpec) -> np.dtype[Any]:
    if spec.reduce == "count":
        return np.dtype(np.int32)
    if spec.resampling == "sum" and source.kind in "iu":
        source = np.dtype(np.int64)
    if spec.reduce in ("mean", "median") and source.kind in "iu":
        single = source.itemsize <= SINGLE_PRECISION_BYTES
        return np.dtype(np.float32 if single else np.float64)
    return source


def _nodata(source: BandSources, dtype: np.dtype[Any], spec: MosaicSpec) -> Any:
    """Return what stands where there is nothing."""
    name = source.band.name
    if spec.reduce == "count":
        return dtype.type(0)
    if spec.nodata is not None:
        return _cast_nodata(spec.nodata, dtype, name)
    if dtype.kind == "f":
        return dtype.type(np.nan)
    bounds = np.iinfo(dtype)
    if spec.resampling == "sum" and dtype.itemsize == 8:  # which may come to any number but this
        return dtype.type(bounds.min)
    fills = [fill for fill in source.fill_values if bounds.min <= fill <= bounds.max]
    problem = ""
    if len(fills) > 1:
        problem = (
            f"has several fill values ({', '.join(map(str, fills))}): {fills[0]} stands for all "
            "of them in the mosaic"
        )
    elif not fills:
        named = f"has a fill value that {dtype} has not"
        reason = named if source.fill_values else "says no fill value"
        problem = f"{reason}: 0 stands where nothing covers the mosaic, as it does for a value"
    if problem:
        warn(f'"{name}" {problem}; pass nodata= another, or dtype="float32"', L2ViewWarning)
    return dtype.type(fills[0] if fills else 0)


def _cast_nodata(nodata: float, dtype: np.dtype[Any], name: str) -> Any:
    """Return `nodata` in a data type, or raise a QueryError where that doesn't have it."""
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        integer = np.isfinite(nodata) and int(nodata) == nodata
        if not integer or not bounds.min <= nodata <= bounds.max:
            raise QueryError(
                f'nodata={nodata!r} is no {dtype}, as "{name}" is: pass another, or dtype="float32"'
            )
    value = dtype.type(nodata)
    if np.isfinite(nodata) and not np.isfinite(value):
        raise QueryError(f'nodata={nodata!r} is more than {dtype} holds: pass dtype="float64"')
    return value
