"""A picture of a mosaic: its chunks, and the granules that they take from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray
from odc.geo import CRS

from l2view.errors import L2ViewError
from l2view.mosaic.images import Images, RasterImages, SwathImages
from l2view.mosaic.plan import MosaicPlan
from l2view.regrid.projection import WGS84, apply_transform, project
from l2view.regrid.target import crs_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_OUTLINES = 2_000
"""The most granules of a kind whose outlines are drawn."""

STEPS = 16
"""The parts in which each side of an outline is drawn."""


def plot_chunks(
    plan: MosaicPlan,
    counts: NDArray[np.int64],
    granules: pa.Array,
    ax: Axes | None = None,
    figsize: tuple[float, float] = (8, 6),
) -> Axes:
    """Draw the chunks of a mosaic, coloured by how many granules each takes, and the granules.

    Parameters
    ----------
    plan
        The mosaic.
    counts
        How many granules each chunk takes, of shape (rows, columns) of chunks.
    granules
        The names of the granules that are drawn.
    ax, figsize
        Matplotlib axes to draw on; the size in inches of new ones.
    """
    try:
        import matplotlib.pyplot as plt
        from matplotlib.collections import LineCollection
    except ImportError as error:
        raise L2ViewError("plots need matplotlib: pip install 'l2view[plot]'") from error
    grid = plan.grid
    assert grid.crs is not None
    if ax is None:
        ax = plt.figure(figsize=figsize, layout="constrained").add_subplot()
    rows, columns = (
        np.minimum(np.arange(number + 1) * chunk, length).astype(float)
        for number, chunk, length in zip(counts.shape, plan.chunks, grid.shape, strict=True)
    )
    x, y = apply_transform(grid.transform, *np.meshgrid(columns, rows))
    levels = np.arange(-0.5, counts.max(initial=1) + 1)
    shades = plt.get_cmap("YlGnBu", max(len(levels) - 1, 2))
    drawn = ax.pcolormesh(
        x, y, counts, cmap=shades, vmin=-0.5, vmax=levels[-1], edgecolor="white", linewidth=0.3
    )
    ticks = np.unique(np.linspace(0, counts.max(initial=1), 6).round())
    ax.figure.colorbar(drawn, ax=ax, label="granules in a chunk", ticks=ticks, shrink=0.8)
    outlines = [
        line for images in plan.bands[0].images for line in _outlines(images, granules, grid.crs)
    ]
    ax.add_collection(
        LineCollection(outlines, colors="#c8452d", linewidths=0.9, alpha=0.8), autolim=False
    )
    west, south, east, north = grid.boundingbox
    width, height = (east - west) * 0.04, (north - south) * 0.04
    ax.set(xlim=(west - width, east + width), ylim=(south - height, north + height))
    ax.set(aspect="equal", xlabel=f"x, {crs_name(grid.crs)}", ylabel="y")
    return ax


def _outlines(images: Images, granules: pa.Array, crs: CRS) -> Iterator[NDArray[np.float64]]:
    """Yield the outlines of images of some granules in the target's CRS, each of shape (n, 2)."""
    names = images.stored.reader.granules.names.take(pa.array(images.stored.rows))
    mask = pc.is_in(names.cast(pa.large_string()), granules).to_numpy(zero_copy_only=False)
    lines: Callable[[Any, int], Iterator[tuple[Any, Any, CRS]]] = (
        _swath_lines if isinstance(images, SwathImages) else _raster_lines
    )
    for number in np.flatnonzero(mask)[:MAX_OUTLINES].tolist():
        for x, y, source in lines(images, number):
            x, y = project(x, y, source, crs)
            known = np.isfinite(x) & np.isfinite(y)
            yield np.stack([x[known], y[known]], axis=1)


def _swath_lines(swaths: SwathImages, number: int) -> Iterator[tuple[Any, Any, CRS]]:
    footprint = swaths.footprints[number]
    for part in shapely.get_parts([] if footprint is None else footprint):
        shape = shapely.segmentize(part, 1.0)
        line = shape.exterior if shape.geom_type == "Polygon" else shape
        yield *shapely.get_coordinates(line).T, WGS84


def _raster_lines(rasters: RasterImages, number: int) -> Iterator[tuple[Any, Any, CRS]]:
    along = np.linspace(0, 1, STEPS + 1)
    ones = np.ones_like(along)
    columns = np.concatenate([along, ones, along[::-1], 0 * ones])
    rows = np.concatenate([0 * ones, along, ones, along[::-1]])
    raster = rasters.raster(number)
    height, width = raster.shape
    yield *apply_transform(raster.transform, columns * width, rows * height), raster.crs
