"""A picture of a mosaic: its chunks, and the granules that they take from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray
from odc.geo import CRS

from l2view.display.plot import requiring_matplotlib
from l2view.mosaic.images import Images, SwathImages
from l2view.mosaic.plan import MosaicPlan
from l2view.regrid.projection import WGS84, apply_transform, project
from l2view.regrid.target import crs_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_OUTLINES = 2_000
"""The most granules of a kind whose outlines are drawn."""

STEPS = 16
"""The parts in which the longer sides of an outline are drawn."""


def plot_chunks(
    plan: MosaicPlan,
    counts: NDArray[np.int64],
    granules: pa.Array,
    ax: Axes | None = None,
    figsize: tuple[float, float] = (8, 6),
) -> Axes:
    """Draw the chunks of a mosaic, coloured by their counts of granules, and some granules.

    `counts` are of shape (rows, columns) of chunks; `granules` are names; `figsize` is in inches.
    """
    with requiring_matplotlib():
        import matplotlib.pyplot as plt
        from matplotlib.collections import LineCollection
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
    lines = [
        line for images in plan.bands[0].images for line in _outlines(images, granules, grid.crs)
    ]
    outlines = LineCollection(lines, colors="#c8452d", linewidths=0.9, alpha=0.8)
    ax.add_collection(outlines, autolim=False)
    west, south, east, north = grid.boundingbox
    width, height = (east - west) * 0.04, (north - south) * 0.04
    ax.set(xlim=(west - width, east + width), ylim=(south - height, north + height))
    ax.set(aspect="equal", xlabel=f"x, {crs_name(grid.crs)}", ylabel="y")
    return ax


def _outlines(images: Images, granules: pa.Array, crs: CRS) -> Iterator[NDArray[np.float64]]:
    """Yield the outlines of images of some granules in the target's CRS, each of shape (n, 2)."""
    names = images.reader.granules.names.take(pa.array(images.rows))
    mask = pc.is_in(names.cast(pa.large_string()), granules).to_numpy(zero_copy_only=False)
    for number in np.flatnonzero(mask)[:MAX_OUTLINES].tolist():
        shape, source = _outline(images, number)
        for part in shapely.get_parts([] if shape is None else shape):
            line = part.exterior if part.geom_type == "Polygon" else part
            x, y = shapely.get_coordinates(line).T
            x, y = project(x, y, source, crs)
            known = np.isfinite(x) & np.isfinite(y)
            yield np.stack([x[known], y[known]], axis=1)


def _outline(images: Images, number: int) -> tuple[shapely.Geometry | None, CRS]:
    """Return the outline of an image with points near one another, and its CRS."""
    if isinstance(images, SwathImages):
        return shapely.segmentize(images.footprints[number], 1.0), WGS84
    raster = images.raster(number)
    height, width = raster.shape
    corners = shapely.segmentize(shapely.box(0, 0, width, height), max(width, height) / STEPS)
    points = apply_transform(raster.transform, *shapely.get_coordinates(corners).T)
    return shapely.Polygon(np.stack(points, axis=1)), raster.crs
