"""One band of a mosaic as an array that is computed where it is sliced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal
from uuid import uuid4

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from xarray.core.indexing import expanded_indexer

from l2view.limits import limits
from l2view.mosaic.composite import Reduce, composite
from l2view.mosaic.images import Images, WindowRequest, halve
from l2view.regrid.projection import TURN
from l2view.regrid.warp import SELECTING, Masked, cast


@dataclass(frozen=True, eq=False)
class BandArray:
    """A band on the target's grid; slices of it are read and composed when they are taken."""

    name: str
    grid: GeoBox
    groups: int | None  # the length of the axis of groups of granules, None for no such axis
    images: tuple[Images, ...]
    resampling: str
    reduce: Reduce
    source: np.dtype[Any]  # of the images' values
    dtype: np.dtype[Any]
    nodata: Any  # what stands where there is nothing
    avoid_nodata: bool  # whether a value that comes out as `nodata` moves to the next
    attributes: Mapping[str, Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """(groups, y, x), or (y, x)."""
        return self.grid.shape.yx if self.groups is None else (self.groups, *self.grid.shape.yx)

    @property
    def ndim(self) -> int:
        """2 or 3."""
        return len(self.shape)

    def __repr__(self) -> str:
        shape = " × ".join(f"{length:,}" for length in self.shape)
        return f"<{self.name}: {shape} of {self.dtype}>"

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        return np.asarray(self[...], dtype=dtype)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Return a part of it, by integers and slices."""
        ranges, index = bounding_ranges(key, self.shape)
        *groups, rows, columns = ranges
        if not all(map(len, ranges)):
            return np.asarray(np.empty(tuple(map(len, ranges)), self.dtype)[index])
        window = self.grid[rows.start : rows.stop, columns.start : columns.stop]
        if not groups:
            return np.asarray(self.window(window, 0)[index])
        images = [self.window(window, group) for group in groups[0]]
        return np.asarray((images[0][None] if len(images) == 1 else np.stack(images))[index])

    def window(self, window: GeoBox, group: int) -> NDArray[Any]:
        """Return a window of the grid for one group of granules, of the window's shape."""
        windows = split_window_at_antimeridian(window)
        if len(windows) > 1 or windows[0] is not window:
            return np.concatenate([self.window(side, group) for side in windows], axis=1)
        height, width = window.shape
        images = self.images_in(window, group)
        nbytes = len(images) * height * width * self._composite_dtype.itemsize
        if self._stacks and nbytes > limits().stack_bytes and height * width > 1:
            halves = halve((slice(0, height), slice(0, width)))
            values = [self.window(window[half], group) for half in halves]
            return np.concatenate(values, axis=0 if height >= width else 1)
        request = self.request(window)
        pending = (kind.pending_tiles(number, request) for kind, number in images)
        return self._finish(composite(pending, (height, width), self._composite_dtype, self.reduce))

    def request(self, window: GeoBox) -> WindowRequest:
        """Return what images are asked for a window."""
        return WindowRequest(window, self.resampling, self._resampled_dtype)

    def images_in(self, window: GeoBox, group: int) -> list[tuple[Images, int]]:
        """Return the images that may touch a window, in the order in which they are composed."""
        touching: list[tuple[Images, int]] = []
        for images in self.images:
            numbers = images.touching(window)
            numbers = numbers[images.groups[numbers] == group]
            touching += [(images, number) for number in numbers.tolist()]
        touching.sort(key=lambda at: int(at[0].ranks[at[1]]), reverse=self.reduce == "last")
        return touching

    @property
    def _stacks(self) -> bool:
        """Whether all images of a window are in memory at once."""
        return callable(self.reduce) or self.reduce == "median"

    @property
    def _composite_dtype(self) -> np.dtype[Any]:
        """The data type in which images are composed."""
        if self._stacks:
            return self.source if self.resampling in SELECTING else self._resampled_dtype
        return self.dtype

    @property
    def _resampled_dtype(self) -> np.dtype[Any]:
        """The data type in which resampled values are wanted."""
        averages = self._stacks or self.reduce == "mean"
        return np.result_type(self.dtype, np.float64) if averages else self.dtype

    def _finish(self, image: Masked) -> NDArray[Any]:
        """Return a composite in the band's data type, with `nodata` where there is nothing."""
        values, valid = cast(image[0], self.dtype), image[1]
        selects = self.resampling in SELECTING and self.reduce in ("first", "last", "min", "max")
        if self.avoid_nodata and not (selects and self.dtype == self.source):
            step = 1 if self.nodata < np.iinfo(self.dtype).max else -1
            nearby = self.dtype.type(self.nodata + step)
            values = np.where(values == self.nodata, nearby, values)
        if valid is not None:
            values = np.where(valid, values, self.dtype.type(self.nodata))
        # A view into a cached chunk is not for the caller to write into.
        return values if values.flags.owndata else values.copy()


type Engine = Literal["dask", "cubed"]  # whose arrays the bands are

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


def split_window_at_antimeridian(window: GeoBox) -> list[GeoBox]:
    """Return the parts of a window in degrees, each moved to within ±180°, from left to right.

    Other windows are returned as they are. GDAL doesn't find everything for longitudes beyond.
    """
    crs, transform = window.crs, window.transform
    if crs is None or not crs.geographic or transform.b or transform.d:
        return [window]
    centres = transform.c + transform.a * (np.arange(window.shape[1]) + 0.5)
    turns = np.floor((centres + 180) / TURN)
    edges = [0, *(np.flatnonzero(np.diff(turns)) + 1).tolist(), window.shape[1]]
    if len(edges) == 2 and turns[0] == 0:
        return [window]
    return [
        Affine.translation(-TURN * turns[start], 0) * window[:, start:stop]
        for start, stop in pairwise(edges)
    ]


def bounding_ranges(
    key: Any, shape: tuple[int, ...]
) -> tuple[list[range], tuple[slice | int, ...]]:
    """Return the range of positions that an index needs along each axis, and the index in them."""
    ranges: list[range] = []
    index: list[slice | int] = []
    items: Any = expanded_indexer(key, len(shape))  # type: ignore[no-untyped-call]
    for item, length in zip(items, shape, strict=True):
        positions = range(length)[item]
        if isinstance(positions, int):
            ranges.append(range(positions, positions + 1))
            index.append(0)
        else:
            low, high = sorted((positions[0], positions[-1])) if positions else (0, -1)
            ranges.append(range(low, high + 1))
            index.append(slice(None, None, positions.step))
    return ranges, tuple(index)
