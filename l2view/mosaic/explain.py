"""What a mosaic would read: for each of its chunks the granules, their overviews and windows.

Each chunk is told by itself. What it has in common with its neighbours is read once, as long as it
is cached; and what lies under other granules isn't read for the first or last.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from zarr.core.sync import sync

from l2view.granules.reader import GranuleReader
from l2view.mosaic.images import ArrayRead, ImageArrays
from l2view.mosaic.plan import MosaicPlan
from l2view.mosaic.plot import plot_chunks
from l2view.progress import ReportProgress, show_progress
from l2view.regrid.target import crs_name
from l2view.virtual.references import array_chunks, chunk_numbers
from l2view.virtual.tree import Tree

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

SCHEMA = pa.schema(
    [
        ("band", pa.string()),
        ("group", pa.int64()),
        ("row", pa.int64()),
        ("column", pa.int64()),
        ("granule", pa.large_string()),
        ("array", pa.string()),
        ("level", pa.int64()),
        ("row_start", pa.int64()),
        ("row_stop", pa.int64()),
        ("column_start", pa.int64()),
        ("column_stop", pa.int64()),
        ("chunks", pa.int64()),
        ("bytes", pa.int64()),
    ]
)
"""The columns of an explanation's table."""


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
            Matplotlib axes to draw on, new ones by default.
        figsize
            The size of new axes in inches.
        """
        granules = self.table.column("granule").unique()
        title = (
            f"{self.granules_per_chunk.size:,} chunks, {self.nchunks:,} chunks of granules read, "
            f"{self.nbytes / 1e6:,.1f} MB"
        )
        axes = plot_chunks(self.plan, self.granules_per_chunk, granules, ax, figsize)
        axes.set_title(title)
        return axes

    @cached_property
    def granules_per_chunk(self) -> NDArray[np.int64]:
        """How many granules each chunk takes, at most of its groups and bands.

        Of shape (rows, columns) of the grid of chunks.
        """
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
        images = "" if plan.labels is None else f", {len(plan.labels):,} images"
        used = pc.count_distinct(self.table.column("granule")).as_py()
        chunk = " × ".join(f"{length:,}" for length in plan.chunks)
        bands = ", ".join(band.name for band in plan.bands)
        empty, low, high = int((counts == 0).sum()), int(counts.min()), int(counts.max(initial=0))
        lines = [
            f"mosaic of {height:,} × {width:,} pixels in {crs}{images}: {bands}",
            f"chunks    {counts.size:,} of {chunk}, {empty:,} of them empty",
            f"granules  {used:,} of {plan.layers.count:,}, {low:,} to {high:,} in a chunk",
            f"reads     at most {self.nchunks:,} chunks, {self.nbytes:,} bytes",
        ]
        return "\n".join([*lines, *self._levels()])

    __repr__ = __str__

    def _levels(self) -> Iterator[str]:
        """Yield a line for each level that is read."""
        keys = ["band", "level", "array"]
        levels = self.table.group_by(keys).aggregate([("granule", "count_distinct")])
        for level in levels.sort_by([(name, "ascending") for name in keys[:2]]).to_pylist():
            yield (
                f"  {level['band']}: level {level['level']}, {level['array']}, of "
                f"{level['granule_count_distinct']:,} granules"
            )


def explain_plan(
    tree: Tree, plan: MosaicPlan, progress: bool | ReportProgress = False
) -> MosaicExplanation:
    """Return what the mosaic of a tree's granules would read.

    Parameters
    ----------
    progress
        True for a bar, or what is called with the chunks that are done and all of them.
    """
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    numbers_read: dict[ImageArrays, list[NDArray[np.int64]]] = {}
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
                    if read.arrays not in sizes:
                        sizes[read.arrays] = ChunkSizes.of(tree.reader, read.arrays)
                    numbers = sizes[read.arrays].numbers(read)
                    numbers_read.setdefault(read.arrays, []).append(numbers)
                    values = (
                        band.name,
                        group,
                        *tile,
                        int(images.stored.rows[number]),
                        read.arrays.array.path,
                        read.level,
                        read.rows.start,
                        read.rows.stop,
                        read.columns[0].start,
                        read.columns[0].start + sum(map(len, read.columns)),
                        len(numbers),
                        sizes[read.arrays].total(numbers),
                    )
                    for name, value in zip(columns, values, strict=True):
                        columns[name].append(value)
        report(total, total)
    names = tree.granules.names.cast(pa.large_string())
    granules = names.take(pa.array(columns["granule"], pa.int64()))
    table = pa.table({**columns, "granule": granules}, schema=SCHEMA)
    unique = {arrays: np.unique(np.concatenate(read)) for arrays, read in numbers_read.items()}
    nbytes = sum(sizes[arrays].total(numbers) for arrays, numbers in unique.items())
    return MosaicExplanation(plan, table, nbytes, sum(map(len, unique.values())))


@dataclass(frozen=True, eq=False)
class ChunkSizes:
    """The bytes of the chunks of a profile's arrays."""

    starts: NDArray[np.int64]  # where the chunks of each array begin, of shape (n + 1,)
    lengths: NDArray[np.int64]  # array by array, in C order; 0 for a chunk that isn't stored

    @classmethod
    def of(cls, reader: GranuleReader, arrays: ImageArrays) -> ChunkSizes:
        """Return those of some arrays, of which no chunk is read."""
        grids, path = arrays.array.grids, arrays.array.path
        starts = np.concatenate([[0], np.cumsum(grids.prod(axis=1))]).astype(np.int64)
        lengths = np.zeros(int(starts[-1]), dtype=np.int64)
        locations = [reader.granules.location(row) for row in arrays.table.rows.tolist()]

        async def look_up() -> None:
            async for chunks in array_chunks(reader, arrays.table, locations, path):
                numbers = chunk_numbers(chunks.members, chunks.index, grids, starts)
                lengths[numbers] = chunks.lengths

        sync(look_up())
        return cls(starts, lengths)

    def total(self, numbers: NDArray[np.int64]) -> int:
        """Return the bytes of some chunks."""
        return int(self.lengths[numbers].sum())

    def numbers(self, read: ArrayRead) -> NDArray[np.int64]:
        """Return the numbers of the chunks that are read."""
        array, member = read.arrays.array, read.member
        begins, chunks = array.begins[member], np.maximum(array.chunk_shapes[member], 1)
        grid, origins = array.grids[member], array.first_chunks[member]
        numbers = [np.zeros(0, dtype=np.int64)]
        for columns in read.columns:
            spans = [
                np.arange(
                    (side.start + begin) // chunk - origin,
                    -(-(side.stop + begin) // chunk) - origin,
                )
                for side, begin, chunk, origin in zip(
                    read.arrays.window(read.rows, columns), begins, chunks, origins, strict=True
                )
            ]
            index = [axis.ravel() for axis in np.meshgrid(*spans, indexing="ij")]
            numbers.append(self.starts[member] + np.ravel_multi_index(index, tuple(grid)))
        return np.unique(np.concatenate(numbers))
