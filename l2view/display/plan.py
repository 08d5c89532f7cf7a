"""The plan of a mosaic: its chunks, and the granules that they take from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from l2view.errors import L2ViewError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from l2view.mosaic.plan import MosaicPlan
    from l2view.mosaic.rasters import Rasters
    from l2view.mosaic.swaths import Swaths

OUTLINES = 2_000
"""The most granules whose outlines are drawn."""

STEPS = 16
"""The parts that each side of an outline is drawn in."""


def plot_plan(
    plan: MosaicPlan, ax: Axes | None = None, *, figsize: tuple[float, float] = (8, 6)
) -> Axes:
    """Draw the chunks of a mosaic, coloured by how many granules each takes, and the granules.

    Parameters
    ----------
    plan
        What it would read.
    ax
        Matplotlib axes to draw on, new ones by default.
    figsize
        The size of new axes in inches.
    """
    try:
        import matplotlib.pyplot as plt
        from matplotlib.collections import LineCollection
    except ImportError as error:
        raise L2ViewError("plots need matplotlib: pip install 'l2view[plot]'") from error
    from l2view.regrid.overlaps import apply
    from l2view.regrid.target import name_of

    grid = plan.mosaic.grid
    assert grid.crs is not None
    if ax is None:
        ax = plt.figure(figsize=figsize, layout="constrained").add_subplot()
    counts = plan.granules_per_chunk
    rows, columns = (
        np.minimum(np.arange(number + 1) * chunk, length)
        for number, chunk, length in zip(counts.shape, plan.mosaic.chunks, grid.shape, strict=True)
    )
    x, y = apply(grid.transform, *np.meshgrid(columns.astype(float), rows.astype(float)))
    levels = np.arange(-0.5, counts.max(initial=1) + 1)
    shades = plt.get_cmap("YlGnBu", max(len(levels) - 1, 2))
    drawn = ax.pcolormesh(
        x, y, counts, cmap=shades, vmin=-0.5, vmax=levels[-1], edgecolor="white", linewidth=0.3
    )
    ticks = np.unique(np.linspace(0, counts.max(initial=1), 6).round())
    ax.figure.colorbar(drawn, ax=ax, label="granules in a chunk", ticks=ticks, shrink=0.8)
    first = plan.mosaic.bands[0]
    outlines = [*_outlines(first.rasters, plan), *_footprints(first.swaths, plan)]
    ax.add_collection(
        LineCollection(outlines, colors="#c8452d", linewidths=0.9, alpha=0.8), autolim=False
    )
    west, south, east, north = grid.boundingbox
    wide, high = (east - west) * 0.04, (north - south) * 0.04
    ax.set(xlim=(west - wide, east + wide), ylim=(south - high, north + high), aspect="equal")
    ax.set(
        xlabel=f"x, {name_of(grid.crs)}",
        ylabel="y",
        title=f"{counts.size:,} chunks, {plan.nchunks:,} chunks of granules read, "
        f"{plan.nbytes / 1e6:,.1f} MB",
    )
    return ax


def _used(images: Rasters | Swaths, plan: MosaicPlan) -> NDArray[np.bool_]:
    """Return which images a plan takes from, of shape (n,)."""
    names = images.reader.granules.names.take(pa.array(images.rows))
    used = pc.is_in(names.cast(pa.large_string()), plan.table.column("granule").unique())
    return np.asarray(used.to_numpy(zero_copy_only=False))


def _footprints(swaths: Swaths | None, plan: MosaicPlan) -> list[Any]:
    """Return the footprints of swaths in the target's CRS."""
    from l2view.regrid.overlaps import DEGREES, project

    found: list[Any] = []
    crs = plan.mosaic.grid.crs
    if swaths is None or crs is None:
        return found
    for shape in swaths.footprints[_used(swaths, plan)][:OUTLINES]:
        for part in shapely.get_parts([] if shape is None else shape):
            ring = shapely.segmentize(part, 1.0)
            lines = ring.exterior if ring.geom_type == "Polygon" else ring
            points = shapely.get_coordinates(lines)
            x, y = project(points[:, 0], points[:, 1], DEGREES, crs)
            known = np.isfinite(x) & np.isfinite(y)
            found.append(np.stack([x[known], y[known]], axis=1))
    return found


def _outlines(rasters: Rasters | None, plan: MosaicPlan) -> list[Any]:
    """Return the outlines of images in the target's CRS."""
    from l2view.regrid.overlaps import apply, project

    found: list[Any] = []
    if rasters is None:
        return found
    along = np.linspace(0, 1, STEPS + 1)
    ones = np.ones_like(along)
    columns = np.concatenate([along, ones, along[::-1], 0 * ones])
    rows = np.concatenate([0 * ones, along, ones, along[::-1]])
    numbers = np.flatnonzero(_used(rasters, plan))[:OUTLINES]
    for number in numbers.tolist():
        raster = rasters.raster(number)
        height, width = raster.shape
        x, y = apply(raster.transform, columns * width, rows * height)
        x, y = project(x, y, raster.crs, rasters.target)
        known = np.isfinite(x) & np.isfinite(y)
        found.append(np.stack([x[known], y[known]], axis=1))
    return found
