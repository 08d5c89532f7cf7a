"""Which arrays of granules a band is: one, or several of different resolutions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2view.arrays.cf import is_time
from l2view.arrays.dtypes import native_dtype
from l2view.errors import QueryError
from l2view.geolocation.coordinates import (
    LATITUDE,
    LONGITUDE,
    axes_of_image,
    is_overview,
    says_coordinate,
)
from l2view.geolocation.geotiff import is_placed
from l2view.granules.inventory import ArrayInventory, Inventory
from l2view.stores.hierarchy import JSON, join, resolve
from l2view.text import join_names, unknown_name

type Bands = str | Sequence[str] | Mapping[str, str] | None
"""How bands are asked for: by paths or names, or by what each is to be called."""

NORTH = frozenset({"y", "lat", "latitude", "northing", "yc", "projection_y_coordinate"})
EAST = frozenset({"x", "lon", "longitude", "easting", "xc", "projection_x_coordinate"})
"""Names of dimensions, and standard names of their coordinates, along which y and x grow."""

TAKEN = frozenset({"x", "y", "time", "group", "spatial_ref"})
"""Names of a mosaic's coordinates."""

PICKED = re.compile(r"(?P<path>.+?)\[(?P<at>\s*-?\d+\s*(,\s*-?\d+\s*)*)\]")
"""A path with positions along the axes that aren't of the image."""


@dataclass(frozen=True)
class Band:
    """A band as it is asked for.

    Attributes
    ----------
    name
        What it is called in the mosaic.
    path
        The arrays' path below their granules, or their name alone.
    picks
        The positions along the axes that aren't of the image, None where they are of length 1.
    """

    name: str
    path: str
    picks: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class Levels:
    """The arrays of one band of the granules of a profile.

    Attributes
    ----------
    inventory
        The granules.
    arrays
        One for each resolution, the finest first.
    group
        The group of the granule that says their resolutions, None where there is but one.
    assets
        What that group calls them.
    axes
        Those of the rows and columns; rows alone of a track.
    picks
        The positions along the other axes.
    """

    inventory: Inventory
    arrays: tuple[ArrayInventory, ...]
    group: str | None
    assets: tuple[str, ...]
    axes: tuple[int, ...]
    picks: tuple[int, ...]

    def shapes(self, level: int) -> NDArray[np.int64]:
        """Return the rows and columns of each granule's array, of shape (n, 2)."""
        array = self.arrays[level]
        return image_shapes(array.ends - array.begins, self.axes)


def image_shapes(shapes: NDArray[np.int64], axes: Sequence[int]) -> NDArray[np.int64]:
    """Return the rows and columns of arrays of some shapes; a track has one column."""
    found = shapes[:, list(axes)]
    return found if len(axes) == 2 else np.concatenate([found, np.ones_like(found)], axis=1)


type Shows = Callable[[str], bool]
"""Whether an array is one that the view shows, by its path."""


def asked(bands: Bands, inventories: Sequence[Inventory], shows: Shows) -> tuple[Band, ...]:
    """Return the bands that are asked for; all that are images where none are named.

    Raises
    ------
    QueryError
        Where they aren't named, or a granule has no images.
    """
    if bands is None:
        known = [
            path
            for one in inventories
            for path in _groups_of_levels(one)
            if shows(path) and _has_one_image(one.arrays[path], one)
        ]
        names = _names(list(dict.fromkeys(known)))
        if not names:
            raise QueryError(
                "no granule of the view has an image, an array of numbers with rows and columns; "
                "name variables along a track, or of more axes, with bands="
            )
        return tuple(Band(name, path) for name, path in names.items())
    if isinstance(bands, str):
        bands = [bands]
    if not isinstance(bands, Sequence | Mapping):
        raise QueryError(
            f"bands={bands!r} are no paths: a text, a list of them, or a mapping of names to paths"
        )
    pairs = (
        bands.items() if isinstance(bands, Mapping) else [(band_name(one), one) for one in bands]
    )
    made = [_band(name, said) for name, said in pairs]
    if not made:
        raise QueryError("bands= names no band")
    again = {one.name for one in made if sum(other.name == one.name for other in made) > 1}
    if again:
        raise QueryError(
            f"several bands would be called {join_names(sorted(again))}: name each, as in "
            'bands={"red": "a/red", "red_20m": "b/red"}'
        )
    return tuple(made)


def band_name(said: Any) -> str:
    """Return what a band is called that is named by its path alone."""
    path, picks = _split(said)
    name = path.strip("/").rpartition("/")[2]
    return name if picks is None else "_".join([name, *map(str, picks)])


def _split(said: Any) -> tuple[str, tuple[int, ...] | None]:
    if not isinstance(said, str) or not said:
        raise QueryError(f"a band is named by a path or name, not by {said!r}")
    match = PICKED.fullmatch(said)
    if match is None:
        return said, None
    return match["path"], tuple(int(one) for one in match["at"].split(","))


def _band(name: Any, said: Any) -> Band:
    path, picks = _split(said)
    if not isinstance(name, str) or not name:
        raise QueryError(f"a band is called by a text, not by {name!r}")
    if name in TAKEN:
        raise QueryError(
            f'no band can be called "{name}", as a coordinate of the mosaic is: name it, as in '
            f'bands={{"my_{name}": "{path}"}}'
        )
    return Band(name, path, picks)


def _names(paths: Sequence[str]) -> dict[str, str]:
    """Return paths by their last parts, or by the whole where these aren't alone."""
    last = [path.rpartition("/")[2] for path in paths]
    return {
        path if last.count(name) > 1 else name: path for name, path in zip(last, paths, strict=True)
    }


def found(band: Band, inventories: Sequence[Inventory], shows: Shows) -> list[Levels]:
    """Return the arrays of a band, profile by profile; those without it are left out.

    Raises
    ------
    QueryError
        Where no granule has it, or its arrays are no images.
    """
    parts = []
    for inventory in inventories:
        levels = _groups_of_levels(inventory)
        path = _path(band.path, levels, inventory)
        if path is not None and shows(path):
            parts.append(_levels(band, path, levels, inventory))
    if not parts:
        known = dict.fromkeys(
            path
            for one in inventories
            for path in _groups_of_levels(one) or one.arrays
            if shows(path)
        )
        raise QueryError(unknown_name("band", band.path, known))
    return parts


def _groups_of_levels(inventory: Inventory) -> dict[str, tuple[str | None, dict[str, str]]]:
    """Return the images of a profile by path, each with its group of levels and their assets.

    An image of several resolutions is known by the path of its finest.
    """
    images = {path: array for path, array in inventory.arrays.items() if _is_image(array)}
    levels: dict[str, tuple[str | None, dict[str, str]]] = {}
    coarser: set[str] = set()
    for group in sorted(inventory.groups, key=lambda path: -path.count("/")):
        assets = _assets(inventory, group)
        below: dict[str, dict[str, str]] = {}
        for asset in assets:
            at = join(group, asset)
            if at in images:
                below.setdefault("", {})[asset] = at
            for path in images:
                if path.startswith(f"{at}/"):
                    below.setdefault(path.removeprefix(f"{at}/"), {})[asset] = path
        for some in below.values():
            alike = _finest_first(some, images, inventory)
            paths = list(alike.values())
            if len(paths) > 1 and not coarser & set(paths) and paths[0] not in levels:
                levels[paths[0]] = (group, alike)
                coarser |= set(paths[1:])
    for first, alike in _tiffs(images, inventory):
        if first not in levels and not coarser & set(alike.values()):
            levels[first] = (None, alike)
            coarser |= set(alike.values()) - {first}
    return {path: levels.get(path, (None, {"": path})) for path in images if path not in coarser}


def _tiffs(
    images: Mapping[str, ArrayInventory], inventory: Inventory
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the full images of TIFFs, with their overviews.

    They are numbered, and the full one alone says where it lies (TIFF 6.0, NewSubfileType, and
    OGC 19-008r4). An image may be a group of one array that is called as the group is.
    """
    numbered: dict[tuple[str, bool], dict[int, str]] = {}
    for path in images:
        group, _, name = path.rpartition("/")
        if name.isdigit():
            nested = group.rpartition("/")[2] == name
            above = group.rpartition("/")[0] if nested else group
            numbered.setdefault((above, nested), {})[int(name)] = path
    for some in numbered.values():
        full = images.get(some.get(0, ""))
        if full is None or not any(is_placed(one["attributes"]) for one in full.variants):
            continue
        own = full.shapes[:, list(axes_of(full, inventory))]
        alike = {"0": some[0]}
        for number in sorted(some.keys() - {0}):
            array = images[some[number]]
            shapes = array.shapes[:, list(axes_of(array, inventory))]
            if (
                array.rank == full.rank
                and not any(_is_mask(one["attributes"]) for one in array.variants)
                and array.variants[0]["data_type"] == full.variants[0]["data_type"]
                and not any(is_placed(one["attributes"]) for one in array.variants)
                and all(map(is_overview, map(tuple, shapes.tolist()), map(tuple, own.tolist())))
                and (shapes < own).all()
            ):
                alike[str(number)] = some[number]
        if len(alike) > 1:
            yield some[0], alike


def _is_mask(said: JSON) -> bool:
    """Return whether a TIFF's image is one of which pixels there are (TIFF 6.0, 8)."""
    kind, photometric = said.get("new_subfile_type"), said.get("photometric_interpretation")
    return (isinstance(kind, int) and bool(kind & 4)) or photometric == 4


def _assets(inventory: Inventory, group: str) -> list[str]:
    """Return the assets of a group's levels, of those that all granules name."""
    found: dict[str, None] | None = None
    for said in inventory.groups[group].variants:
        names = dict.fromkeys(str(one["asset"]) for one in layout_of(said))
        found = names if found is None else {name: None for name in found if name in names}
    return list(found or ())


def layout_of(said: JSON) -> list[JSON]:
    """Return the levels that attributes tell of (the convention multiscales for Zarr)."""
    told = said.get("multiscales")
    layout = told.get("layout") if isinstance(told, dict) else None
    if not isinstance(layout, list | tuple):
        return []
    return [one for one in layout if isinstance(one, dict) and isinstance(one.get("asset"), str)]


def _finest_first(
    some: Mapping[str, str], images: Mapping[str, ArrayInventory], inventory: Inventory
) -> dict[str, str]:
    """Return images from the largest to the smallest, of those that are like the largest."""

    def size(path: str) -> int:
        array = images[path]
        return int(np.prod(array.shapes[:, list(axes_of(array, inventory))].max(axis=0, initial=0)))

    ordered = sorted(some.items(), key=lambda one: -size(one[1]))
    first = images[ordered[0][1]]
    return {
        asset: path
        for asset, path in ordered
        if images[path].rank == first.rank
        and images[path].variants[0]["data_type"] == first.variants[0]["data_type"]
    }


def _has_one_image(array: ArrayInventory, inventory: Inventory) -> bool:
    """Return whether an array has no axes beside rows and columns, but for those of length 1."""
    others = [axis for axis in range(array.rank) if axis not in axes_of(array, inventory)]
    return bool((array.shapes[:, others] == 1).all())


def _is_image(array: ArrayInventory) -> bool:
    """Return whether an array's values are numbers along two axes, and not coordinates."""
    attributes, name = array.variants[0]["attributes"], array.path.rpartition("/")[2]
    kind = native_dtype(array.variants[0]["data_type"]).kind
    return (
        array.rank >= 2
        and kind in "iufb"
        and not is_time(attributes)
        and not any(says_coordinate(attributes, name, *words) for words in (LATITUDE, LONGITUDE))
    )


def axes_of(array: ArrayInventory, inventory: Inventory) -> tuple[int, ...]:
    """Return the axes of an array's rows and columns; of a track that of its points.

    They are those that ``spatial:dimensions`` names (the convention spatial for Zarr), those whose
    coordinates or names say that they go north and east, else the last two, but for one of bands.
    """
    said = array.variants[0]["attributes"].get("spatial:dimensions")
    if isinstance(said, list) and len(said) == 2 and set(said) <= set(array.dimensions):
        rows, columns = (array.dimensions.index(name) for name in said)
        return (rows, columns)
    if array.rank < 2:
        return (0,)
    found = []
    for words in (NORTH, EAST):
        axes = [
            axis
            for axis, name in enumerate(array.dimensions)
            if name is not None and _goes(name, array, inventory, words)
        ]
        if len(axes) == 1:
            found.append(axes[0])
    return (found[0], found[1]) if len(found) == 2 else axes_of_image(array.dimensions)


def _goes(
    dimension: str, array: ArrayInventory, inventory: Inventory, words: frozenset[str]
) -> bool:
    """Return whether a dimension, or the coordinate that is called so, goes in a direction."""
    for group in ancestors(array.path):
        other = inventory.arrays.get(join(group, dimension))
        if other is not None and other.rank == 1:
            said = other.variants[0]["attributes"].get("standard_name")
            if isinstance(said, str) and said in NORTH | EAST:
                return said in words
            break
    return dimension.lower() in words


def _path(asked: str, levels: Mapping[str, Any], inventory: Inventory) -> str | None:
    """Return which image or array of a profile a band is, None where it has none.

    Raises
    ------
    QueryError
        Where several are called so.
    """
    path = resolve(asked)
    if path is not None and path in inventory.arrays:
        return path
    if path is not None and path in inventory.groups:
        own = [one for one, (group, _) in levels.items() if group == path]
        if len(own) == 1:
            return own[0]
    named = [one for one in levels if one.rpartition("/")[2] == asked]
    named = named or [one for one in inventory.arrays if one.rpartition("/")[2] == asked]
    if len(named) > 1:
        raise QueryError(
            f'several bands are called "{asked}": name one by its path, of {join_names(named)}'
        )
    return named[0] if named else None


def _levels(
    band: Band,
    path: str,
    levels: Mapping[str, tuple[str | None, dict[str, str]]],
    inventory: Inventory,
) -> Levels:
    """Return a band of the granules of a profile: from what is named on to what is coarser.

    Raises
    ------
    QueryError
        Where its arrays aren't images.
    """
    group: str | None = None
    assets = {"": path}
    for holder, some in levels.values():
        names = list(some)
        if path in some.values():
            group = holder
            assets = {name: some[name] for name in names[list(some.values()).index(path) :]}
    arrays = tuple(inventory.arrays[one] for one in assets.values())
    first = arrays[0]
    dtype = native_dtype(first.variants[0]["data_type"])
    if dtype.kind not in "iufb" or first.rank == 0:
        raise QueryError(
            f'"{band.path}" is of {dtype} and {first.rank} dimensions: a band has numbers along '
            "two of them"
        )
    axes = axes_of(first, inventory)
    return Levels(inventory, arrays, group, tuple(assets), axes, _picks(band, first, axes))


def _picks(band: Band, array: ArrayInventory, axes: Sequence[int]) -> tuple[int, ...]:
    """Return the positions along the axes that aren't of the image.

    Raises
    ------
    QueryError
        Where they aren't said, or aren't there.
    """
    others = [axis for axis in range(array.rank) if axis not in axes]
    lengths: list[int] = array.shapes[:, others].min(axis=0, initial=2**62).tolist()
    names = [array.dimensions[axis] or f"axis {axis}" for axis in others]
    if band.picks is None:
        if any(array.shapes[:, axis].max(initial=1) > 1 for axis in others):
            told = ", ".join(f"{n} ({length})" for n, length in zip(names, lengths, strict=True))
            first = ",".join("0" * len(others))
            raise QueryError(
                f'"{array.path}" has more than rows and columns: {told}. Name what to show, as in '
                f'bands={{"{band.name}": "{array.path}[{first}]"}}'
            )
        return (0,) * len(others)
    if len(band.picks) != len(others):
        raise QueryError(
            f'"{band.path}{list(band.picks)}" names {len(band.picks)} positions, and '
            f'"{array.path}" has {len(others)} dimensions beside rows and columns'
        )
    for name, at, length in zip(names, band.picks, lengths, strict=True):
        if not -length <= at < length:
            raise QueryError(f'there is no {at} along {name} of "{array.path}", of {length}')
    return tuple(at % length for at, length in zip(band.picks, lengths, strict=True))


def coordinates_of(
    inventory: Inventory, words: tuple[str, str, str]
) -> Iterator[tuple[str, ArrayInventory]]:
    """Yield the arrays of a profile that are latitudes, or longitudes, by path."""
    for path, array in inventory.arrays.items():
        kind = native_dtype(array.variants[0]["data_type"]).kind
        attributes = array.variants[0]["attributes"]
        if kind in "iuf" and says_coordinate(attributes, path.rpartition("/")[2], *words):
            yield path, array


def ancestors(path: str) -> Iterable[str]:
    """Return the groups that hold an array, the nearest first.

    Examples
    --------
    >>> list(ancestors("a/b/c"))
    ['a/b', 'a', '']
    """
    found = []
    while path:
        path = path.rpartition("/")[0]
        found.append(path)
    return found
