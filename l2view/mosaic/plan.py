"""What a mosaic would read: for each of its chunks the granules, their overviews and windows.

It is told of each chunk by itself. What is in common with its neighbours is read once, as long as
it is kept; and of what lies under other granules nothing, of the first or last.
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
from odc.geo.geobox import GeoBox, GeoboxTiles
from zarr.core.sync import sync

from l2view.export.progress import Tell, told
from l2view.granules.reader import GranuleReader
from l2view.mosaic.array import BandArray
from l2view.mosaic.dataset import Mosaic
from l2view.mosaic.rasters import Arrays, Rasters
from l2view.mosaic.swaths import Swaths
from l2view.regrid.overlaps import wrapped
from l2view.regrid.target import name_of
from l2view.virtual.references import chunks_of, numbers_of

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
"""The columns of a plan."""


@dataclass(frozen=True, eq=False)
class MosaicPlan:
    """What a mosaic would read. Its text is a summary.

    Attributes
    ----------
    mosaic
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
        How many they are.
    """

    mosaic: Mosaic
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
        from l2view.display.plan import plot_plan

        return plot_plan(self, ax, figsize=figsize)

    @cached_property
    def granules_per_chunk(self) -> NDArray[np.int64]:
        """How many granules each chunk takes, at most of its groups and bands.

        Of shape (rows, columns) of the grid of chunks.
        """
        found = np.zeros(self.shape, dtype=np.int64)
        keys = ["band", "group", "row", "column"]
        counted = self.table.group_by(keys).aggregate([("granule", "count_distinct")])
        rows, columns, counts = (
            counted.column(name).to_numpy() for name in ("row", "column", "granule_count_distinct")
        )
        np.maximum.at(found, (rows, columns), counts)
        return found

    @property
    def shape(self) -> tuple[int, int]:
        """The rows and columns of the grid of chunks."""
        pairs = zip(self.mosaic.grid.shape, self.mosaic.chunks, strict=True)
        rows, columns = (-(-length // chunk) for length, chunk in pairs)
        return rows, columns

    def __str__(self) -> str:
        made, table = self.mosaic, self.table
        height, width = made.grid.shape
        assert made.grid.crs is not None
        images = "" if made.labels is None else f", {len(made.labels):,} images"
        used = pc.count_distinct(table.column("granule")).as_py()
        counts = self.granules_per_chunk
        chunk = " × ".join(f"{length:,}" for length in made.chunks)
        bands = ", ".join(band.name for band in made.bands)
        empty, least = int((counts == 0).sum()), int(counts.min())
        most = int(counts.max(initial=0))
        lines = [
            f"mosaic of {height:,} × {width:,} pixels in {name_of(made.grid.crs)}{images}: {bands}",
            f"chunks    {counts.size:,} of {chunk}, {empty:,} of them empty",
            f"granules  {used:,} of {made.count:,}, {least:,} to {most:,} in a chunk",
            f"reads     at most {self.nchunks:,} chunks, {self.nbytes:,} bytes",
        ]
        return "\n".join([*lines, *self._levels()])

    __repr__ = __str__

    def _levels(self) -> Iterator[str]:
        """Yield a line for each level that is read."""
        keys = ["band", "level", "array"]
        found = self.table.group_by(keys).aggregate([("granule", "count_distinct")])
        for one in found.sort_by([(name, "ascending") for name in keys[:2]]).to_pylist():
            yield (
                f"  {one['band']}: level {one['level']}, {one['array']}, of "
                f"{one['granule_count_distinct']:,} granules"
            )


def explained(mosaic: Mosaic, progress: bool | Tell = False) -> MosaicPlan:
    """Return what a mosaic would read.

    Parameters
    ----------
    mosaic
        The mosaic.
    progress
        Whether to draw a bar; or what is told instead of the chunks that are done.
    """
    tiles = GeoboxTiles(mosaic.grid, mosaic.chunks)
    places = list(np.ndindex(*tiles.shape.yx))
    groups = range(1 if mosaic.labels is None else len(mosaic.labels))
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    wanted: dict[tuple[int, str, int], list[NDArray[np.int64]]] = {}
    total = len(places) * len(mosaic.bands) * len(groups)
    with told(progress, "chunks") as tell:
        sizes: dict[tuple[int, str, int], Sizes] = {}
        turns = itertools.product(enumerate(mosaic.bands), groups, places)
        for done, ((number, band), group, place) in enumerate(turns):
            tell(done, total)
            window = tiles[place]
            assert isinstance(window, GeoBox)
            for row, part, taken in _windows(band, window, group):
                key = (number, part.kind, part.which)
                if key not in sizes:
                    sizes[key] = Sizes.of(part.reader, part.arrays)
                numbers = sizes[key].numbers(part.member, taken)
                wanted.setdefault(key, []).append(numbers)
                values = (
                    band.name,
                    group,
                    *place,
                    row,
                    part.arrays.array.path,
                    part.level,
                    *(end for one in _hull(taken) for end in (one.start, one.stop)),
                    len(numbers),
                    int(sizes[key].lengths[numbers].sum()),
                )
                for name, value in zip(columns, values, strict=True):
                    columns[name].append(value)
        tell(total, total)
    each = {key: np.unique(np.concatenate(some)) for key, some in wanted.items()}
    nbytes = sum(int(sizes[key].lengths[numbers].sum()) for key, numbers in each.items())
    return MosaicPlan(
        mosaic, _table(mosaic, columns), nbytes, sum(len(one) for one in each.values())
    )


def _table(mosaic: Mosaic, columns: dict[str, list[Any]]) -> pa.Table:
    """Return the columns of a plan, granules by their names."""
    readers = [kind.reader for band in mosaic.bands for kind in _kinds(band)]
    if readers:
        names = readers[0].granules.names.cast(pa.large_string())
        columns = {**columns, "granule": names.take(pa.array(columns["granule"], pa.int64()))}
    return pa.table(columns, schema=SCHEMA)


def _kinds(band: BandArray) -> list[Rasters | Swaths]:
    return [kind for kind in (band.rasters, band.swaths) if kind is not None]


@dataclass(frozen=True, eq=False)
class Part:
    """An array of a granule that a chunk of a mosaic takes from.

    Attributes
    ----------
    reader
        The granules.
    kind, which
        The arrays: a name, and their number.
    arrays
        They.
    member
        Which of them it is.
    level
        0 for the finest.
    """

    reader: GranuleReader
    kind: str
    which: int
    arrays: Arrays
    member: int
    level: int = 0


type Window = tuple[range, range]
"""Rows and columns of an image."""


def _windows(
    band: BandArray, window: GeoBox, group: int
) -> Iterator[tuple[int, Part, list[Window]]]:
    """Yield the granules that a chunk takes from, and which windows of their arrays."""
    for kind, number in band.sources(window, group):
        row, which = int(kind.rows[number]), int(kind.which[number])
        reader, member = kind.reader, int(kind.members[number])
        if isinstance(kind, Swaths):
            for name in ("arrays", "latitudes", "longitudes"):
                arrays = getattr(kind, name)[which]
                shape = (arrays.array.ends - arrays.array.begins)[member]
                sides = [range(int(shape[axis])) for axis in arrays.axes]
                whole = (sides[0], sides[1] if len(sides) == 2 else range(1))
                yield row, Part(reader, name, which, arrays, member), [whole]
            continue
        width = int(kind.shapes[number, 1])
        for overlap in kind.overlaps(number, window, band.resampling):
            arrays = kind.arrays[which]
            level = int(kind.levels[number])
            taken = [(overlap.rows, one) for one in wrapped(overlap.columns, width)]
            yield row, Part(reader, "rasters", which, arrays, member, level), taken


def _hull(taken: list[Window]) -> tuple[range, range]:
    """Return the rows and columns of a window that may go around the globe."""
    rows, first = taken[0]
    return rows, range(first.start, first.start + sum(len(columns) for _, columns in taken))


@dataclass(frozen=True, eq=False)
class Sizes:
    """How many bytes the chunks of a profile's arrays have.

    Attributes
    ----------
    arrays
        The arrays.
    firsts
        The number of the first chunk of each, and of all, of shape (n + 1,).
    lengths
        The bytes of each chunk, 0 for one that isn't there; array by array, in C order.
    """

    arrays: Arrays
    firsts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, reader: GranuleReader, arrays: Arrays) -> Sizes:
        """Return those of some arrays, of which what is stored is looked up and nothing read."""
        array = arrays.array
        grids = array.grids
        firsts = np.concatenate([[0], np.cumsum(grids.prod(axis=1))]).astype(np.int64)
        lengths = np.zeros(int(firsts[-1]), dtype=np.int64)
        locations = [reader.granules.location(row) for row in arrays.inventory.rows.tolist()]

        async def look() -> None:
            async for chunks in chunks_of(reader, arrays.inventory, locations, array.path):
                at = numbers_of(chunks.members, chunks.index, grids, firsts)
                lengths[at] = chunks.lengths

        sync(look())
        return cls(arrays, firsts, lengths)

    def numbers(self, member: int, windows: list[Window]) -> NDArray[np.int64]:
        """Return the numbers of the chunks that hold windows of an array."""
        array = self.arrays.array
        begins, chunks = array.begins[member], np.maximum(array.chunk_shapes[member], 1)
        grid, first = array.grids[member], array.first_chunks[member]
        found = [np.zeros(0, dtype=np.int64)]
        for rows, columns in windows:
            sides = self.arrays.window(rows, columns)
            spans = [
                np.arange((s.start + b) // c - f, -(-(s.stop + b) // c) - f)
                for s, b, c, f in zip(sides, begins, chunks, first, strict=True)
            ]
            index = np.meshgrid(*spans, indexing="ij")
            flat = np.ravel_multi_index([one.ravel() for one in index], tuple(grid))
            found.append(self.firsts[member] + flat)
        return np.unique(np.concatenate(found))
