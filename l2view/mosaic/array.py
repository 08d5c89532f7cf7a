"""One band of a mosaic as an array that is made where it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from l2view.mosaic.composite import Composed, Image, Offer, Reduce, composed
from l2view.mosaic.rasters import Rasters
from l2view.mosaic.swaths import Pixels, Swaths
from l2view.regrid.overlaps import TURN
from l2view.regrid.values import cast
from l2view.regrid.warp import PICKED

MOST_STACKED = 1 << 27
"""The most bytes of images on top of one another, of which a median or function is made."""


@dataclass(frozen=True, eq=False)
class BandArray:
    """A band on the target's grid.

    What NumPy's slices ask of it is read and put together then, and nothing else.

    Attributes
    ----------
    name
        What it is called.
    grid
        The target.
    times
        How many groups of times there are along its first axis, None where there is no such axis.
    rasters, swaths
        Its sources.
    resampling
        How images are brought onto the grid.
    reduce
        How several become one.
    source
        The data type of the sources' values.
    dtype
        Its own.
    nodata
        What stands where there is nothing.
    shuns
        Whether a value that comes out as `nodata` is moved to the next, for it stands for nothing.
    """

    name: str
    grid: GeoBox
    times: int | None
    rasters: Rasters | None
    swaths: Swaths | None
    resampling: str
    reduce: Reduce
    source: np.dtype[Any]
    dtype: np.dtype[Any]
    nodata: Any
    shuns: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape: (time, y, x), or (y, x)."""
        height, width = self.grid.shape
        return (height, width) if self.times is None else (self.times, height, width)

    @property
    def ndim(self) -> int:
        """The number of its axes."""
        return len(self.shape)

    def __repr__(self) -> str:
        shape = " × ".join(f"{length:,}" for length in self.shape)
        return f"<{self.name}: {shape} of {self.dtype}>"

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        return np.asarray(self[...], dtype=dtype)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Return a part of it.

        Parameters
        ----------
        key
            Integers and slices.
        """
        ranges, index = parts(key, self.shape)
        *times, rows, columns = ranges
        if not all(map(len, ranges)):
            return np.asarray(np.empty(tuple(map(len, ranges)), self.dtype)[index])
        window = self.grid[rows.start : rows.stop, columns.start : columns.stop]
        found = [self.window(window, group) for group in (times[0] if times else (0,))]
        if not times:
            return np.asarray(found[0][index])
        return np.asarray((found[0][None] if len(found) == 1 else np.stack(found))[index])

    def window(self, window: GeoBox, group: int) -> NDArray[Any]:
        """Return a part of the grid for one group of times, of the window's shape.

        Raises
        ------
        ChunkError
            Where a chunk can't be read.
        """
        home = at_home(window)
        if len(home) > 1 or home[0] is not window:
            return np.concatenate([self.window(part, group) for part in home], axis=1)
        height, width = window.shape
        images = self.sources(window, group)
        named = isinstance(self.reduce, str) and self.reduce != "median"
        nbytes = len(images) * height * width * self._kept.itemsize
        if not named and nbytes > MOST_STACKED and height * width > 1:
            return self._halves(window, group)
        pixels = Pixels(window)
        offers = (self._image(kind, number, pixels) for kind, number in images)
        made = composed(offers, (height, width), self._kept, self.reduce)
        return self._finished(made)

    def _halves(self, window: GeoBox, group: int) -> NDArray[Any]:
        height, width = window.shape
        axis = 0 if height >= width else 1
        middle = window.shape[axis] // 2
        cut = [(slice(None, middle), slice(middle, None)), (slice(None), slice(None))]
        rows, columns = cut if axis == 0 else cut[::-1]
        halves = [
            self.window(window[one, other], group) for one, other in zip(rows, columns, strict=True)
        ]
        return np.concatenate(halves, axis=axis)

    @property
    def _kept(self) -> np.dtype[Any]:
        """The data type that pixels are put together in."""
        if callable(self.reduce) or self.reduce == "median":
            return self.source if self.resampling in PICKED else self._wanted
        return self.dtype

    def sources(self, window: GeoBox, group: int) -> list[tuple[Rasters | Swaths, int]]:
        """Return the images that may touch a window, in the order in which they are composed."""
        found: list[tuple[int, Rasters | Swaths, int]] = []
        for kind in (self.rasters, self.swaths):
            if kind is not None and len(kind):
                numbers = kind.touching(window)
                numbers = numbers[kind.groups[numbers] == group]
                ranks = kind.ranks[numbers]
                found += [
                    (rank, kind, number)
                    for rank, number in zip(ranks.tolist(), numbers.tolist(), strict=True)
                ]
        found.sort(key=lambda one: one[0], reverse=self.reduce == "last")
        return [(kind, number) for _, kind, number in found]

    def _image(self, kind: Rasters | Swaths, number: int, pixels: Pixels) -> Image:
        """Return what an image could give a window."""
        window = pixels.window
        if isinstance(kind, Swaths):
            whole = (slice(0, window.shape[0]), slice(0, window.shape[1]))
            return [Offer(whole, partial(kind.pieces, number, pixels, self.resampling))]
        return [
            Offer(
                one.target,
                partial(kind.pieces, number, one, window, self.resampling, self._wanted),
            )
            for one in kind.overlaps(number, window, self.resampling)
        ]

    @property
    def _wanted(self) -> np.dtype[Any]:
        """The data type that resampled values are wanted in."""
        if self.reduce in ("mean", "median") or callable(self.reduce):
            return np.result_type(self.dtype, np.float64)
        return self.dtype

    @property
    def _computes(self) -> bool:
        """Whether values may be others than those of the sources."""
        picked = self.resampling in PICKED and self.reduce in ("first", "last", "min", "max")
        return not picked or self.dtype != self.source

    def _finished(self, made: Composed) -> NDArray[Any]:
        values = cast(made.values, self.dtype)
        if self.shuns and self._computes:
            other = self.nodata + 1 if self.nodata < np.iinfo(self.dtype).max else self.nodata - 1
            values = np.where(values == self.nodata, self.dtype.type(other), values)
        if made.valid is not None:
            values = np.where(made.valid, values, self.dtype.type(self.nodata))
        # What is a part of a chunk that is kept is not for the caller to write into.
        return values if values.flags.owndata else values.copy()


def at_home(window: GeoBox) -> list[GeoBox]:
    """Return a window in degrees as those of its parts that lie within ±180°, from left to right.

    Others go as they are. GDAL doesn't find everything for longitudes beyond.
    """
    crs, transform = window.crs, window.transform
    if crs is None or not crs.geographic or transform.b or transform.d:
        return [window]
    centres = transform.c + transform.a * (np.arange(window.shape[1]) + 0.5)
    turns = np.floor((centres + 180) / TURN)
    begins = [0, *(np.flatnonzero(np.diff(turns)) + 1).tolist(), window.shape[1]]
    if len(begins) == 2 and turns[0] == 0:
        return [window]
    found = []
    for first, last in pairwise(begins):
        part = window[:, first:last]
        found.append(Affine.translation(-TURN * turns[first], 0) * part)
    return found


def parts(key: Any, shape: tuple[int, ...]) -> tuple[list[range], tuple[Any, ...]]:
    """Return the positions from the first to the last that an index takes, and what of them.

    Raises
    ------
    IndexError
        Where the index is none of integers and slices, or is beyond the array.
    """
    said = key if isinstance(key, tuple) else (key,)
    if Ellipsis in said:
        at = said.index(Ellipsis)
        missing = len(shape) - len(said) + 1
        said = (*said[:at], *(slice(None),) * missing, *said[at + 1 :])
    if len(said) > len(shape):
        raise IndexError(f"{len(said)} indices for {len(shape)} axes")
    said = (*said, *(slice(None),) * (len(shape) - len(said)))
    ranges: list[range] = []
    index: list[slice | int] = []
    for one, length in zip(said, shape, strict=True):
        if isinstance(one, slice):
            taken = range(*one.indices(length))
            some = sorted((taken[0], taken[-1])) if taken else [0, -1]
            ranges.append(range(some[0], some[1] + 1))
            start = taken[0] - some[0] if taken else 0
            index.append(_steps(start, taken))
        else:
            at = range(length)[int(one)]
            ranges.append(range(at, at + 1))
            index.append(0)
    return ranges, tuple(index)


def _steps(start: int, taken: range) -> slice:
    stop = start + len(taken) * taken.step
    return slice(start, stop if stop >= 0 else None, taken.step)
