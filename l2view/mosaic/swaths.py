"""The swaths of a band: which touch an output window, and what they give it.

A pixel takes the cell whose centre is nearest on the sphere, if it lies within that cell: a cell
reaches half-way to its neighbours' centres. Statistics are those of the cells whose centres lie in
a pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from pykdtree.kdtree import KDTree

from l2view.errors import QueryError
from l2view.geolocation.touching import corners_of
from l2view.mosaic import reading
from l2view.mosaic.overlaps import apply, mesh, project
from l2view.mosaic.rasters import Arrays
from l2view.mosaic.warp import Piece
from l2view.tables.arrays import StoredArray
from l2view.view.opener import GranuleOpener

DEGREES = CRS("EPSG:4326")

MARGIN = 0.25
"""By how many degrees a swath may reach beyond its footprint, which providers simplify."""

REACH = 1.001
"""By how much further a cell reaches than its farthest corner, against what rounding leaves."""

STATISTICS = frozenset({"average", "max", "med", "min", "mode", "q1", "q3", "rms", "sum"})
"""The resamplings that are statistics."""


@dataclass(frozen=True, eq=False)
class Swaths:
    """n swaths of a band.

    Attributes
    ----------
    opener
        Opens granules' arrays.
    token
        What tells this band from any other of this process.
    arrays, latitudes, longitudes
        The arrays of each profile, and those of their cells' centres in degrees.
    rows
        Their granules, of shape (n,).
    which
        The arrays of each, of shape (n,).
    members
        Which of those arrays it is, of shape (n,).
    footprints
        Their footprints in EPSG:4326, of shape (n,); None where nothing says where one lies.
    ranks
        The order in which they are composed, of shape (n,).
    groups
        The group of times of each, of shape (n,).
    """

    opener: GranuleOpener
    token: str
    arrays: tuple[Arrays, ...]
    latitudes: tuple[Arrays, ...]
    longitudes: tuple[Arrays, ...]
    rows: NDArray[np.int64]
    which: NDArray[np.int64]
    members: NDArray[np.int64]
    footprints: NDArray[Any]
    ranks: NDArray[np.int64]
    groups: NDArray[np.int64]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_index"}

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def _index(self) -> tuple[shapely.STRtree, NDArray[np.int64], NDArray[np.int64]]:
        """The R-tree of the footprints, whose each is, and the swaths that have none."""
        known = np.array([one is not None and not one.is_empty for one in self.footprints], bool)
        return (
            shapely.STRtree(self.footprints[known]),
            np.flatnonzero(known),
            np.flatnonzero(~known),
        )

    def touching(self, window: GeoBox) -> NDArray[np.int64]:
        """Return which swaths may touch an output window."""
        tree, whose, anywhere = self._index
        boxes = boxes_of(window)
        found = [whose[tree.query(box, predicate="intersects")] for box in boxes]
        return np.unique(np.concatenate([anywhere, *found]))

    def pieces(self, number: int, window: GeoBox, resampling: str) -> Iterator[Piece]:
        """Yield what a swath gives an output window.

        Raises
        ------
        ChunkError
            Where a chunk can't be read.
        """
        lat, lon = self._centres(number)
        centre, angle = circle_of(window)
        points = vectors(lat, lon)
        with np.errstate(invalid="ignore"):
            around = points @ centre >= np.cos(min(angle, np.pi))
        if not around.any():
            return
        rows, columns = _hull(around, 2)
        lat, lon = lat[rows, columns], lon[rows, columns]
        values, valid = self._read(number, range(*rows.indices(around.shape[0])), columns, around)
        points = points[rows, columns]
        reaches = reaches_of(lat, lon, points)
        picked, near = nearest(window, points, reaches)
        if not near.any():
            return
        there = near if valid is None else near & valid.ravel()[picked]
        found = values.ravel()[picked]
        if resampling != "nearest":
            found, there = _statistic(window, lat, lon, values, valid, resampling, found, there)
        some = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
        if not len(some[0]):
            return
        target = tuple(slice(int(one[0]), int(one[-1]) + 1) for one in some)
        yield Piece((target[0], target[1]), found[target], there[target])

    def stored(self, number: int) -> StoredArray:
        """Return the array of a swath."""
        return self._stored(self.arrays, number)

    def _stored(self, arrays: Sequence[Arrays], number: int) -> StoredArray:
        one = arrays[self.which[number]]
        row, member = int(self.rows[number]), int(self.members[number])
        return self.opener.stored(row, one.array, member, one.values)

    def _centres(self, number: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the latitudes and longitudes of a swath's cells, NaN where there are none."""
        key = (self.token, "centres", int(self.rows[number]), int(self.which[number]))
        kept = reading.CHUNKS.get(key)
        if kept is not None:
            return kept[0], kept[1]
        found = []
        for arrays in (self.latitudes, self.longitudes):
            stored, own = self._stored(arrays, number), arrays[self.which[number]]
            window = tuple(map(range, stored.shape))
            values, valid = stored.values.to_numpy(stored.stored(window))
            degrees = values.astype(np.float64)
            if valid is not None:
                degrees = np.where(valid, degrees, np.nan)
            found.append(degrees if len(own.axes) == 2 else degrees.reshape(-1))
        lat, lon = found
        if lat.ndim == 1:
            track = len(self.arrays[self.which[number]].axes) == 1
            lat, lon = (
                (lat[:, None], lon[:, None]) if track else np.meshgrid(lat, lon, indexing="ij")
            )
        else:
            lat, lon = (one.reshape(one.shape[-2:]) for one in (lat, lon))
        with np.errstate(invalid="ignore"):
            wrong = ~((np.abs(lat) <= 90) & (np.abs(lon) <= 360))
        lat, lon = np.where(wrong, np.nan, lat), np.where(wrong, np.nan, lon)
        reading.CHUNKS.put(key, (lat, lon), lat.nbytes + lon.nbytes)
        return lat, lon

    def _read(
        self, number: int, rows: range, columns: slice, around: NDArray[np.bool_]
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        arrays, stored = self.arrays[self.which[number]], self.stored(number)
        key = (self.token, int(self.which[number]), int(self.rows[number]))
        window = arrays.window(rows, range(*columns.indices(around.shape[1])))
        return stored.values.to_numpy(arrays.image(reading.read(stored, key, window)))


def vectors(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return points of the unit sphere, of shape (…, 3), for latitudes and longitudes."""
    y, x = np.radians(lat), np.radians(lon)
    return np.stack([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)], axis=-1)


def _on_the_globe(
    window: GeoBox, columns: NDArray[np.float64], rows: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return latitudes and longitudes of a window's pixels, NaN where it shows none."""
    assert window.crs is not None
    x, y = apply(window.transform, columns, rows)
    lon, lat = project(x, y, window.crs, DEGREES)
    with np.errstate(invalid="ignore"):
        known = np.isfinite(lon) & (np.abs(lat) <= 90 + 1e-9)
    return np.where(known, lat, np.nan), np.where(known, lon, np.nan)


def circle_of(window: GeoBox) -> tuple[NDArray[np.float64], float]:
    """Return a circle around a window: its centre on the unit sphere, and its angle in radians.

    It is somewhat larger, for the cells that reach into the window.
    """
    points = vectors(*_on_the_globe(window, *mesh(window))).reshape(-1, 3)
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return np.array([0.0, 0.0, 1.0]), 0.0
    centre = points.mean(axis=0)
    length = float(np.linalg.norm(centre))
    if length < 0.1:  # about as much on one side of the globe as on the other
        return np.array([0.0, 0.0, 1.0]), np.pi
    centre = centre / length
    angle = float(np.arccos(np.clip(points @ centre, -1, 1)).max())
    return centre, angle * 1.05 + np.radians(0.5)


def boxes_of(window: GeoBox) -> list[shapely.Geometry]:
    """Return boxes in degrees, within ±180°, that hold an output window and `MARGIN` around it."""
    lat, lon = _on_the_globe(window, *mesh(window))
    known = np.isfinite(lat)
    if not known.any():
        return []
    steps = [np.abs(np.diff(lat, axis=axis)) for axis in (0, 1)]
    bend = max(float(one[np.isfinite(one)].max(initial=0.0)) for one in steps) / 2
    south, north = lat[known].min() - bend - MARGIN, lat[known].max() + bend + MARGIN
    if north > 89 or south < -89:
        return [shapely.box(-180, max(south, -90), 180, min(north, 90))]
    wide = MARGIN / np.cos(np.radians(min(max(abs(south), abs(north)), 89.0)))
    around = np.unique((lon[known] + 180) % 360 - 180)
    gaps = np.diff(np.append(around, around[0] + 360))
    widest = int(gaps.argmax())
    west, east = around[(widest + 1) % len(around)], around[widest]
    width = (east - west) % 360 + 2 * wide
    if width >= 360 or gaps[widest] < 90:
        return [shapely.box(-180, south, 180, north)]
    west = (west - wide + 180) % 360 - 180
    east = west + width
    if east <= 180:
        return [shapely.box(west, south, east, north)]
    return [shapely.box(west, south, 180, north), shapely.box(-180, south, east - 360, north)]


def _hull(found: NDArray[np.bool_], more: int) -> tuple[slice, slice]:
    """Return the rows and columns that hold all that was found, and some more on each side."""
    sides = []
    for axis, length in ((1, found.shape[0]), (0, found.shape[1])):
        some = np.flatnonzero(found.any(axis=axis))
        sides.append(slice(max(int(some[0]) - more, 0), min(int(some[-1]) + 1 + more, length)))
    return sides[0], sides[1]


def reaches_of(
    lat: NDArray[np.float64], lon: NDArray[np.float64], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return how far each cell reaches from its centre, as chords of the unit sphere."""
    corners = vectors(*corners_of(lat, lon))
    found = np.zeros(lat.shape)
    for rows, columns in ((0, 0), (0, 1), (1, 0), (1, 1)):
        height, width = lat.shape
        corner = corners[rows : rows + height, columns : columns + width]
        found = np.fmax(found, np.linalg.norm(corner - points, axis=-1))
    return found * REACH


def nearest(
    window: GeoBox, points: NDArray[np.float64], reaches: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the nearest cell of each pixel of a window, and whether the pixel lies in it.

    Parameters
    ----------
    window
        The output window.
    points
        The cells' centres on the unit sphere, of shape (rows, columns, 3).
    reaches
        How far each reaches, of shape (rows, columns).

    Returns
    -------
    cells
        Numbers of cells in C order, of the window's shape.
    near
        Of the same shape.
    """
    height, width = window.shape
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    pixels = vectors(*_on_the_globe(window, columns, rows)).reshape(-1, 3)
    flat = points.reshape(-1, 3)
    cells = np.flatnonzero(np.isfinite(flat).all(axis=1))
    asked = np.flatnonzero(np.isfinite(pixels).all(axis=1))
    found = np.zeros(height * width, dtype=np.int64)
    near = np.zeros(height * width, dtype=bool)
    if len(cells) and len(asked):
        own = reaches.ravel()[cells]
        tree = KDTree(np.ascontiguousarray(flat[cells]))
        far, which = tree.query(
            np.ascontiguousarray(pixels[asked]), k=1, distance_upper_bound=float(own.max())
        )
        there = np.isfinite(far) & (which < len(cells))
        which = np.where(there, which, 0).astype(np.int64)
        found[asked] = cells[which]
        near[asked] = there & (far <= own[which])
    return found.reshape(height, width), near.reshape(height, width)


def require_statistic(resampling: str) -> None:
    """Raise where swaths can't be resampled so.

    Raises
    ------
    QueryError
        Saying how they can.
    """
    if resampling != "nearest" and resampling not in STATISTICS:
        raise QueryError(
            f'swaths have no rows and columns to interpolate along, as resampling="{resampling}" '
            f'would: take "nearest", or a statistic of the cells in a pixel, of '
            f"{', '.join(sorted(STATISTICS))}"
        )


def _statistic(
    window: GeoBox,
    lat: NDArray[np.float64],
    lon: NDArray[np.float64],
    values: NDArray[Any],
    valid: NDArray[np.bool_] | None,
    resampling: str,
    found: NDArray[Any],
    there: NDArray[np.bool_],
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return statistics of the cells in pixels; `found` where no centre lies in one."""
    height, width = window.shape
    known = np.isfinite(lat) & np.isfinite(lon)
    known &= True if valid is None else valid
    assert window.crs is not None
    x, y = project(lon[known], lat[known], DEGREES, window.crs)
    column, row = apply(~window.transform, x, y)
    if window.crs.geographic:
        column = column + np.round((width / 2 - column) / _turn(window)) * _turn(window)
    with np.errstate(invalid="ignore"):
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    pixels = row[inside].astype(np.int64) * width + column[inside].astype(np.int64)
    own = values[known][inside]
    if not len(own):
        return found, there
    order = np.lexsort((own, pixels))
    pixels, own = pixels[order], own[order]
    starts = np.flatnonzero(np.diff(pixels, prepend=-1))
    made = statistic_of(own, starts, resampling)
    at = np.unravel_index(pixels[starts], (height, width))
    result = found.astype(np.result_type(found, made))
    result[at] = made
    full = there.copy()
    full[at] = True
    return result, full


def _turn(window: GeoBox) -> float:
    """Return the pixels of a whole turn of longitude."""
    return abs(360.0 / window.transform.a)


def statistic_of(values: NDArray[Any], starts: NDArray[np.int64], resampling: str) -> NDArray[Any]:
    """Return a statistic of groups of values, each in ascending order.

    Parameters
    ----------
    values
        Of shape (n,), group by group.
    starts
        Where each group begins, of shape (groups,).
    resampling
        One of `STATISTICS`.
    """
    counts = np.diff(np.append(starts, len(values)))
    ends = starts + counts
    match resampling:
        case "min":
            return values[starts]
        case "max":
            return values[ends - 1]
        case "sum":
            kept = np.result_type(values, np.int64) if values.dtype.kind in "iub" else np.float64
            return np.add.reduceat(values.astype(kept), starts)
        case "average":
            return np.asarray(np.add.reduceat(values.astype(np.float64), starts) / counts)
        case "rms":
            squares = np.square(values.astype(np.float64))
            return np.sqrt(np.add.reduceat(squares, starts) / counts)
        case "mode":
            return _mode(values, starts, counts)
    part = {"q1": 0.25, "med": 0.5, "q3": 0.75}[resampling]
    at = starts + (counts - 1) * part
    low, high = np.floor(at).astype(np.int64), np.ceil(at).astype(np.int64)
    weight = at - low
    return np.asarray(values[low] * (1 - weight) + values[high] * weight)


def _mode(
    values: NDArray[Any], starts: NDArray[np.int64], counts: NDArray[np.int64]
) -> NDArray[Any]:
    """Return the value that most often comes in each group, the least of several."""
    group = np.repeat(np.arange(len(starts)), counts)
    begins = np.flatnonzero(
        np.append(True, (values[1:] != values[:-1]) | (group[1:] != group[:-1]))
    )
    times = np.diff(np.append(begins, len(values)))
    order = np.lexsort((-times, group[begins]))
    first = np.flatnonzero(np.diff(group[begins][order], prepend=-1))
    return values[begins[order[first]]]
