"""What a mosaic would read: for each of its chunks the granules, their overviews and windows.

Each chunk is told by itself. What it has in common with its neighbours is read once, as long as it
is cached; and what lies under other granules isn't read for the first or last.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray
from odc.geo import CRS
from odc.geo.geobox import GeoBox

from l2view.display.plot import requiring_matplotlib
from l2view.granules.chunks import iterate_sync
from l2view.granules.reader import GranuleReader
from l2view.mosaic.images import ArrayRead, ImageArrays, Images, SwathImages
from l2view.mosaic.plan import MosaicPlan
from l2view.progress import ReportProgress, show_progress
from l2view.regrid.projection import WGS84, apply_transform, project
from l2view.regrid.target import crs_name
from l2view.virtual.references import array_chunks, chunk_numbers, chunk_offsets

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

SCHEMA = pa.schema(
    {
        "band": pa.string(),
        **dict.fromkeys(("group", "row", "column"), pa.int64()),
        "granule": pa.large_string(),
        "array": pa.string(),
        **dict.fromkeys(("level", "row_start", "row_stop"), pa.int64()),
        **dict.fromkeys(("column_start", "column_stop", "chunks", "bytes"), pa.int64()),
    }
)
"""The columns of an explanation's table."""

MAX_OUTLINES = 2_000  # the most granules of a kind whose outlines are drawn
STEPS = 16  # the parts in which the longer sides of an outline are drawn


@dataclass(frozen=True, eq=False)
class MosaicExplanation:
    """What a mosaic would read. Its text is a summary.

    Attributes
    ----------
    plan
        The mosaic.
    table
        One row for each band, chunk of the mosaic and window of a granule that it takes:

        - ``band``; ``group``, the position along the first dimension; ``row`` and ``column`` of
          the chunk;
        - ``granule``, its ``array`` and the ``level`` of that, 0 for the finest;
        - ``row_start``, ``row_stop``, ``column_start`` and ``column_stop`` of the window. That of
          one that goes around the globe may go beyond its edges; that of a swath is all of it,
          as its latitudes and longitudes would have to be read;
        - ``chunks``, how many of the array's chunks hold it, and their ``bytes`` as they are
          stored.
    nbytes
        The bytes of all chunks, each counted once.
    nchunks
        The number of chunks.
    """

    plan: MosaicPlan
    table: pa.Table
    nbytes: int
    nchunks: int

    def to_dataframe(self) -> pd.DataFrame:
        """Return the table for pandas."""
        return self.table.to_pandas()

    def plot(self, ax: Axes | None = None, *, figsize: tuple[float, float] = (8, 6)) -> Axes:
        """Draw the chunks of the mosaic, by how many granules each takes, and the granules.

        Parameters
        ----------
        ax
            Matplotlib axes to draw on, new ones of `figsize` inches by default.
        """
        with requiring_matplotlib():
            import matplotlib.pyplot as plt
            from matplotlib.collections import LineCollection
        grid, counts = self.plan.grid, self.granules_per_chunk
        granules = self.table.column("granule").unique()
        assert grid.crs is not None
        if ax is None:
            ax = plt.figure(figsize=figsize, layout="constrained").add_subplot()
        rows, columns = (
            np.append(np.arange(0.0, length, chunk), length)
            for chunk, length in zip(self.plan.chunks, grid.shape, strict=True)
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
            line
            for images in self.plan.bands[0].images
            for line in _outlines(images, granules, grid.crs)
        ]
        outlines = LineCollection(lines, colors="#c8452d", linewidths=0.9, alpha=0.8)
        ax.add_collection(outlines, autolim=False)
        west, south, east, north = grid.boundingbox
        width, height = (east - west) * 0.04, (north - south) * 0.04
        ax.set(xlim=(west - width, east + width), ylim=(south - height, north + height))
        ax.set(aspect="equal", xlabel=f"x, {crs_name(grid.crs)}", ylabel="y")
        ax.set_title(
            f"{counts.size:,} chunks, {self.nchunks:,} chunks of granules read, "
            f"{self.nbytes / 1e6:,.1f} MB"
        )
        return ax

    @cached_property
    def granules_per_chunk(self) -> NDArray[np.int64]:
        """How many granules each chunk takes, at most of its groups and bands; a grid of chunks."""
        counts = np.zeros(self.plan.tiles.shape.yx, dtype=np.int64)
        keys = ["band", "group", "row", "column"]
        counted = self.table.group_by(keys).aggregate([("granule", "count_distinct")])
        rows, columns, granules = (
            counted.column(name).to_numpy() for name in ("row", "column", "granule_count_distinct")
        )
        np.maximum.at(counts, (rows, columns), granules)
        return counts

    def __str__(self) -> str:
        plan, counts = self.plan, self.granules_per_chunk
        height, width = plan.grid.shape
        assert plan.grid.crs is not None
        crs = crs_name(plan.grid.crs)
        images = "" if plan.layers.labels is None else f", {len(plan.groups):,} images"
        used = pc.count_distinct(self.table.column("granule")).as_py()
        chunk = " × ".join(f"{length:,}" for length in plan.chunks)
        bands = ", ".join(band.name for band in plan.bands)
        empty, low, high = int((counts == 0).sum()), int(counts.min()), int(counts.max(initial=0))
        levels = self.table.group_by(["band", "level", "array"])
        levels = levels.aggregate([("granule", "count_distinct")])
        levels = levels.sort_by([("band", "ascending"), ("level", "ascending")])
        lines = [
            f"mosaic of {height:,} × {width:,} pixels in {crs}{images}: {bands}",
            f"chunks    {counts.size:,} of {chunk}, {empty:,} of them empty",
            f"granules  {used:,} of {plan.layers.count:,}, {low:,} to {high:,} in a chunk",
            f"reads     at most {self.nchunks:,} chunks, {self.nbytes:,} bytes",
            *(
                f"  {level['band']}: level {level['level']}, {level['array']}, of "
                f"{level['granule_count_distinct']:,} granules"
                for level in levels.to_pylist()
            ),
        ]
        return "\n".join(lines)

    __repr__ = __str__


def explain_plan(plan: MosaicPlan, progress: bool | ReportProgress = False) -> MosaicExplanation:
    """Return what a mosaic would read."""
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    sizes: dict[ImageArrays, ChunkSizes] = {}
    tiles = plan.tiles
    turns = itertools.product(plan.bands, plan.groups, np.ndindex(*tiles.shape.yx))
    total = len(plan.bands) * len(plan.groups) * tiles.shape.y * tiles.shape.x
    with show_progress(progress, "chunks") as report:
        for done, (band, group, tile) in enumerate(turns):
            report(done, total)
            window = tiles[tile]
            assert isinstance(window, GeoBox)
            request = band.request(window)
            for images, number in band.images_in(window, group):
                for read in images.reads(number, request):
                    arrays, rows, spans = read
                    if arrays not in sizes:
                        sizes[arrays] = ChunkSizes(plan.reader, arrays)
                    nchunks, nbytes = sizes[arrays].add(read, int(images.members[number]))
                    values = (
                        band.name,
                        group,
                        *tile,
                        int(images.rows[number]),
                        arrays.array.path,
                        int(images.levels[number]),
                        rows.start,
                        rows.stop,
                        spans[0].start,
                        spans[0].start + sum(map(len, spans)),
                        nchunks,
                        nbytes,
                    )
                    for name, value in zip(columns, values, strict=True):
                        columns[name].append(value)
        report(total, total)
    names = plan.reader.granules.names.cast(pa.large_string())
    granules = names.take(pa.array(columns["granule"], pa.int64()))
    table = pa.table({**columns, "granule": granules}, schema=SCHEMA)
    nbytes = sum(int(chunks.sizes[chunks.is_read].sum()) for chunks in sizes.values())
    nchunks = sum(int(chunks.is_read.sum()) for chunks in sizes.values())
    return MosaicExplanation(plan, table, nbytes, nchunks)


class ChunkSizes:
    """The bytes of the chunks of a profile's arrays, and which of them are read."""

    def __init__(self, reader: GranuleReader, arrays: ImageArrays) -> None:
        array = arrays.array
        self.grids, self.begins, self.origins = array.grids, array.begins, array.first_chunks
        self.chunk_shapes = np.maximum(array.chunk_shapes, 1)
        self.offsets = chunk_offsets(self.grids)
        self.sizes = np.zeros(int(self.offsets[-1]), dtype=np.int64)  # 0 for what isn't stored
        self.is_read = np.zeros(len(self.sizes), dtype=bool)
        locations = [reader.granules.location(row) for row in arrays.table.rows.tolist()]
        table = replace(arrays.table, locations=locations)
        for batch in iterate_sync(array_chunks(reader, table, array.path)):
            numbers = chunk_numbers(batch.members, batch.index, self.grids, self.offsets)
            self.sizes[numbers] = batch.lengths

    def add(self, read: ArrayRead, member: int) -> tuple[int, int]:
        """Return how many chunks a window reads of one granule's array, and their bytes."""
        arrays, rows, spans = read
        numbers = [np.zeros(0, dtype=np.int64)]
        for columns in spans:
            window = arrays.window(rows, columns)
            starts, stops = np.array([(side.start, side.stop) for side in window]).T
            starts, stops = starts + self.begins[member], stops + self.begins[member]
            first = starts // self.chunk_shapes[member] - self.origins[member]
            end = -(-stops // self.chunk_shapes[member]) - self.origins[member]
            index = np.meshgrid(*map(np.arange, first, end), indexing="ij")
            in_array = np.ravel_multi_index(index, tuple(self.grids[member])).ravel()
            numbers.append(self.offsets[member] + in_array)
        unique = np.unique(np.concatenate(numbers))
        self.is_read[unique] = True
        return len(unique), int(self.sizes[unique].sum())


def _outlines(images: Images, granules: pa.Array, crs: CRS) -> Iterator[NDArray[np.float64]]:
    """Yield the outlines of images of some granules in the target's CRS, each of shape (n, 2)."""
    names = images.reader.granules.names.take(pa.array(images.rows))
    mask = pc.is_in(names.cast(pa.large_string()), granules).to_numpy(zero_copy_only=False)
    for number in np.flatnonzero(mask)[:MAX_OUTLINES].tolist():
        if isinstance(images, SwathImages):
            shape, source = shapely.segmentize(images.footprints[number], 1.0), WGS84
        else:
            raster = images.raster(number)
            box = shapely.box(0, 0, *raster.shape[::-1])
            corners = shapely.get_coordinates(shapely.segmentize(box, max(raster.shape) / STEPS))
            points = apply_transform(raster.transform, *corners.T)
            shape, source = shapely.LinearRing(np.stack(points, axis=1)), raster.crs
        for part in shapely.get_parts([] if shape is None else shape):
            line = part.exterior if part.geom_type == "Polygon" else part
            x, y = shapely.get_coordinates(line).T
            x, y = project(x, y, source, crs)
            known = np.isfinite(x) & np.isfinite(y)
            yield np.stack([x[known], y[known]], axis=1)
