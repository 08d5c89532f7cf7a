"""A planned mosaic as an `xarray.Dataset` of lazy arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal
from uuid import uuid4

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from rasterix import RasterIndex

from l2view.mosaic.array import BandArray
from l2view.mosaic.plan import MosaicPlan

type Engine = Literal["dask", "cubed"]
"""Whose arrays the bands are."""

type MakeArray = Callable[[BandArray, tuple[int, ...]], Any]
"""Makes an array of a band and the shape of its chunks."""


def _dask_array(band: BandArray, chunks: tuple[int, ...]) -> Any:
    import dask.array as da

    name = f"{band.name}-{uuid4().hex}"
    meta = np.empty((0,) * band.ndim, band.dtype)
    return da.from_array(  # type: ignore[no-untyped-call]
        band, chunks=chunks, name=name, meta=meta, asarray=False
    )


def _cubed_array(band: BandArray, chunks: tuple[int, ...]) -> Any:
    import cubed

    return cubed.from_array(band, chunks=chunks, asarray=False)


ARRAYS: dict[str, MakeArray] = {"dask": _dask_array, "cubed": _cubed_array}
"""What makes each engine's arrays."""


def to_dataset(plan: MosaicPlan, make_array: MakeArray) -> xr.Dataset:
    """Return a mosaic as a Dataset of arrays that `make_array` makes of its bands."""
    labels = plan.layers.labels
    leading = {} if labels is None else {plan.layers.dimension: 1}
    dimensions, chunks = (*leading, "y", "x"), (*leading.values(), *plan.chunks)
    variables = {}
    for band in plan.bands:
        counts = band.reduce == "count"
        attributes: dict[str, Any] = {"units": "1"} if counts else {**band.attributes}
        attributes["grid_mapping"] = "spatial_ref"
        if not counts:
            attributes["_FillValue"] = band.nodata
        variables[band.name] = (dimensions, make_array(band, chunks), attributes)
    dataset = xr.Dataset(variables, coords=_grid_coordinates(plan.grid))
    if labels is not None:
        dataset = dataset.assign_coords({plan.layers.dimension: labels})
    return dataset.assign_attrs(granules=plan.layers.count)


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
