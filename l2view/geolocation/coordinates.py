"""Which arrays of granules are latitudes and longitudes, and how near they are to another."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2view.arrays.dtypes import native_dtype
from l2view.errors import QueryError
from l2view.geolocation.transforms import axes_transform
from l2view.granules.table import ArrayTable, GranuleTable
from l2view.stores.hierarchy import join
from l2view.text import join_names

LATITUDE = ("latitude", "lat", "north")
LONGITUDE = ("longitude", "lon", "east")
"""The standard name, a short one, and the side of the globe that units name."""

NAMES = {
    "lat": re.compile(r"[xtuvcgn]?lats?|latitudes?"),
    "lon": re.compile(r"[xtuvcgn]?lons?|[xtuvcgn]long|longitudes?"),
}
"""A word of the names of coordinates, as of ``nav_lat``, ``XLONG`` and ``lat_lowestmode``."""

OTHERS = frozenset({
    *("satellite", "subsatellite", "spacecraft", "instrument", "sensor", "subpoint", "sun"),
    *("solar", "moon", "bound", "bounds", "bnds", "bounding", "corner", "corners", "vertex"),
    *("vertices", "polygon", "min", "max", "range", "extent", "field", "start", "end", "error"),
    *("uncertainty", "std", "offset", "resolution", "step", "magnetic", "geomagnetic", "pole"),
    *("projection", "origin", "quality", "flag", "index", "count", "delta", "spacing", "size"),
})  # fmt: skip
"""Words of the names of latitudes and longitudes that are not those of cells."""

CELLS = frozenset({"fov", "pixel", "footprint", "cell"})
"""Words of the names of those of cells all the same, as of ``instrument_fov_latitude``."""

LEVELS = re.compile(
    r"(?:p?lev|level|layer|pressure|altitude|height|depth|elevation|band|channel|wavelength"
    r"|wavenumber|frequency|frequencie|corner|vertex|vertice|bnd|bound)s?"
)
"""A word of the names of other axes than those of cells, and of what lies along these."""

WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
DIRECTION = re.compile(r"(?:degrees?|deg|°)(north|n|east|e)")


def is_coordinate(array: ArrayTable, words: tuple[str, ...]) -> bool:
    """Whether numbers are `LATITUDE` or `LONGITUDE`, by the CF conventions or their name."""
    return coordinate_rank(array, words) is not None


def coordinate_rank(array: ArrayTable, words: tuple[str, ...]) -> int | None:
    """Return how surely an array is of latitudes, or longitudes: 0 the surest, None not at all.

    By its standard name or very name; by a word of its name; by units alone.
    """
    attributes, (name, short, side) = array.variants[0]["attributes"], words
    units = re.sub(r"[_\s]", "", str(attributes.get("units", "")).lower())
    match = DIRECTION.fullmatch(units)
    is_side = match is not None and side.startswith(match[1])
    if not is_side and units not in ("degrees", "degree", "deg", "°", ""):
        is_named = attributes.get("standard_name") == name
        return 0 if is_named and not units.startswith(("rad", "m", "km")) else None
    own = {word.lower() for word in WORDS.findall(basename(array.path))}
    if own & OTHERS and not own & CELLS:
        # Where the satellite stands is no place of the granule, whatever its standard name.
        return 2 if attributes.get("standard_name") == name and array.rank else None
    plain = (name, short, f"{short}s", f"{name}s")
    if attributes.get("standard_name") == name or basename(array.path).lower() in plain:
        return 0
    if any(NAMES[short].fullmatch(word) for word in own):
        return 1
    return 2 if is_side else None


def coordinates_of(table: GranuleTable, words: tuple[str, ...]) -> Iterator[ArrayTable]:
    """Yield the arrays of a profile that are latitudes, or longitudes, the surest first."""
    ranks = {
        path: coordinate_rank(array, words)
        for path, array in table.arrays.items()
        if native_dtype(array.variants[0]["data_type"]).kind in "iuf"
    }
    known = [(rank, path) for path, rank in ranks.items() if rank is not None]
    for _, path in sorted(known, key=lambda pair: pair[0]):
        yield table.arrays[path]


def sort_by_distance(arrays: Iterable[ArrayTable], path: str) -> list[ArrayTable]:
    """Return arrays, those nearest to another first; of different groups, those of like names."""
    group = parent(path)

    def rank(array: ArrayTable) -> tuple[tuple[int, int], int]:
        holder = parent(array.path)
        return distance(group, holder), -common_words(path, holder)

    return sorted(arrays, key=rank)


def named_coordinates(array: ArrayTable, table: GranuleTable) -> set[str]:
    """Return the paths that an array's attribute ``coordinates`` names, absolute ones too."""
    names = str(array.variants[0]["attributes"].get("coordinates", "")).split()
    paths = set()
    for name in names:
        groups = [""] if name.startswith("/") else ancestors(array.path)
        candidates = (join(group, name.strip("/")) for group in groups)
        paths |= {next((path for path in candidates if path in table.arrays), name)}
    return paths


def coordinate_pairs(
    table: GranuleTable, rank: int | None = None
) -> Iterator[tuple[ArrayTable, ArrayTable]]:
    """Yield the latitudes and longitudes of each group, the granule's own first.

    Several pairs of a group are told apart by their dimensions: of those that have the same, the
    surest counts, and those that an attribute ``coordinates`` names. Scalars are yielded for
    `rank` 0 alone.
    """
    named = {path for array in table.arrays.values() for path in named_coordinates(array, table)}
    groups: dict[str, tuple[list[ArrayTable], list[ArrayTable]]] = {}
    for axis, words in enumerate((LATITUDE, LONGITUDE)):
        for array in coordinates_of(table, words):
            if array.shapes.prod(axis=1).all() and (array.rank == 0) == (rank == 0):
                groups.setdefault(parent(array.path), ([], []))[axis].append(array)
    for group in sorted(groups, key=lambda path: (len(ancestors(path)), path)):
        latitudes, longitudes = groups[group]
        pairs: dict[Any, tuple[ArrayTable, ArrayTable]] = {}
        for latitude in latitudes:
            alike = [
                longitude
                for longitude in longitudes
                if latitude.dimensions == longitude.dimensions
                and np.array_equal(latitude.shapes, longitude.shapes)
            ]
            key: tuple[Any, ...] = (latitude.dimensions, latitude.shapes.tobytes())
            if key in pairs and latitude.path in named:
                key = (*key, latitude.path)
            # "event_lat" belongs to "event_lon", wherever "group_lon" stands.
            alike.sort(key=lambda longitude: _stem(longitude.path) != _stem(latitude.path))
            if alike and key not in pairs:
                pairs[key] = latitude, alike[0]
        if pairs:
            yield from pairs.values()
        elif latitudes and longitudes and latitudes[0].rank == longitudes[0].rank == 1:
            yield latitudes[0], longitudes[0]


def _stem(path: str) -> str:
    """Return an array's name without what says latitude or longitude."""
    return re.sub(r"latitude|longitude|lat|long?", "", basename(path).lower())


def are_axes(
    latitude: ArrayTable,
    longitude: ArrayTable,
    lat: NDArray[np.float64],
    lon: NDArray[np.float64],
) -> bool:
    """Whether two 1-D arrays are the axes of a grid, and not the points of a track.

    Where their dimensions have no names, even steps tell: the grid's rectangle then holds what
    would be the track.
    """
    names = latitude.dimensions[0], longitude.dimensions[0]
    if any(are_named([name]) for name in names):
        return names[0] != names[1]
    return lat.shape != lon.shape or axes_transform(lat, np.unwrap(lon, period=360)) is not None


def are_named(names: Sequence[str | None]) -> bool:
    """Whether all dimensions have names, and not ones that formats make up for want of some."""
    return all(name is not None and not name.startswith("phony_dim") for name in names)


def are_levels(name: str) -> bool:
    """Whether names say that numbers are levels, or bands, by `LEVELS`.

    Examples
    --------
    >>> are_levels("nPressureLevels"), are_levels("along_track")
    (True, False)
    """
    return any(LEVELS.fullmatch(word.lower()) for word in WORDS.findall(name))


def named_path(name: str, paths: Iterable[str], kind: str) -> str | None:
    """Return the path that is called so, None where none is; a `QueryError` names several."""
    named = [path for path in paths if basename(path) == name]
    if len(named) > 1:
        raise QueryError(
            f'several {kind} are called "{name}": name one by its path, of {join_names(named)}'
        )
    return named[0] if named else None


def basename(path: str) -> str:
    """Return the name of an array or group, without the groups that hold it."""
    return path.rpartition("/")[2]


def parent(path: str) -> str:
    """Return the path of the group that holds an array."""
    return path.rpartition("/")[0]


def ancestors(path: str) -> list[str]:
    """Return the groups that hold an array, the nearest first.

    Examples
    --------
    >>> ancestors("a/b/c")
    ['a/b', 'a', '']
    """
    groups = []
    while path:
        path = parent(path)
        groups.append(path)
    return groups


def distance(group: str, holder: str) -> tuple[int, int]:
    """Return how far a group of coordinates is from an array's group: those above are near.

    Examples
    --------
    >>> distance("a/b", "a") < distance("a/b", "") < distance("a/b", "a/c") < distance("a/b", "c")
    True
    """
    above, below = {group, *ancestors(group)}, {holder, *ancestors(holder)}
    return (0 if holder in above else 1, len(above ^ below))


def common_words(path: str, other: str) -> int:
    """Return how many words the paths of two arrays share.

    Examples
    --------
    >>> common_words("data/range_20_ku", "lat_20_ku")
    2
    """
    words, others = (set(re.split(r"[\W_]+", text.lower())) for text in (path, other))
    return len(words & others)


def is_overview(shape: Sequence[int], full: Sequence[int]) -> bool:
    """Whether an image is as wide as high as another, but for what rounding leaves."""
    if tuple(shape) == tuple(full):
        return True
    factors = [large / small for large, small in zip(full, shape, strict=True) if small]
    if len(factors) < 2 or min(factors) <= 1:
        return False
    off = max(abs(large / max(factors) - small) for large, small in zip(full, shape, strict=True))
    return off <= 1 and max(factors) / min(factors) < 1.5
