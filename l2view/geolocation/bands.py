"""Which arrays of granules a band is: one, or several of different resolutions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2view.arrays.cf import is_time
from l2view.arrays.dtypes import native_dtype
from l2view.errors import QueryError
from l2view.geolocation.coordinates import (
    LATITUDE,
    LONGITUDE,
    ancestors,
    is_coordinate,
    is_overview,
    last_axes,
    parent,
)
from l2view.geolocation.transforms import geotiff_transform
from l2view.granules.table import ArrayTable, GranuleTable
from l2view.stores.hierarchy import JSON, join, resolve
from l2view.text import join_names, unknown_name

type Bands = str | Sequence[str] | Mapping[str, str] | None
"""How bands are asked for: by paths or names, or by what each is to be called."""

NORTH = frozenset({"y", "lat", "latitude", "northing", "yc"}) | {
    f"projection_y_{quantity}" for quantity in ("coordinate", "angular_coordinate")
}
EAST = frozenset({"x", "lon", "longitude", "easting", "xc"}) | {
    f"projection_x_{quantity}" for quantity in ("coordinate", "angular_coordinate")
}
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
    table
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

    table: GranuleTable
    arrays: tuple[ArrayTable, ...]
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
    lengths = shapes[:, list(axes)]
    if len(axes) == 2:
        return lengths
    return np.concatenate([lengths, np.ones_like(lengths)], axis=1)


type Shows = Callable[[str], bool]
"""Whether an array is one that the view shows, by its path."""

type Images = Mapping[str, tuple[str | None, dict[str, str]]]
"""The images of a profile by path, each with its group of levels and their paths by asset."""


def resolve_bands(bands: Bands, tables: Sequence[GranuleTable], shows: Shows) -> tuple[Band, ...]:
    """Return the named bands; all that are images where none are named.

    Raises
    ------
    QueryError
        Where they aren't named, or a granule has no images.
    """
    if bands is None:
        paths = [
            path
            for table in tables
            for path in images_of(table)
            if shows(path) and _has_one_image(table.arrays[path], table)
        ]
        names = _shortest_names(list(dict.fromkeys(paths)))
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
        bands.items() if isinstance(bands, Mapping) else [(band_name(text), text) for text in bands]
    )
    resolved = [_parse_band(name, text) for name, text in pairs]
    if not resolved:
        raise QueryError("bands= names no band")
    names_given = [band.name for band in resolved]
    twice = sorted({name for name in names_given if names_given.count(name) > 1})
    if twice:
        raise QueryError(
            f"several bands would be called {join_names(twice)}: name each, as in "
            'bands={"red": "a/red", "red_20m": "b/red"}'
        )
    return tuple(resolved)


def band_name(text: Any) -> str:
    """Return the default name of a band that is given by its path."""
    path, picks = _parse_path(text)
    name = path.strip("/").rpartition("/")[2]
    return name if picks is None else "_".join([name, *map(str, picks)])


def _parse_path(text: Any) -> tuple[str, tuple[int, ...] | None]:
    if not isinstance(text, str) or not text:
        raise QueryError(f"a band is named by a path or name, not by {text!r}")
    match = PICKED.fullmatch(text)
    if match is None:
        return text, None
    return match["path"], tuple(int(number) for number in match["at"].split(","))


def _parse_band(name: Any, text: Any) -> Band:
    path, picks = _parse_path(text)
    if not isinstance(name, str) or not name:
        raise QueryError(f"a band is called by a text, not by {name!r}")
    if name in TAKEN:
        raise QueryError(
            f'no band can be called "{name}", as a coordinate of the mosaic is: name it, as in '
            f'bands={{"my_{name}": "{path}"}}'
        )
    return Band(name, path, picks)


def _shortest_names(paths: Sequence[str]) -> dict[str, str]:
    """Return paths by their last parts, or by the full path where these aren't unique."""
    names = [path.rpartition("/")[2] for path in paths]
    return {
        path if names.count(name) > 1 else name: path
        for name, path in zip(names, paths, strict=True)
    }


def match_band(band: Band, tables: Sequence[GranuleTable], shows: Shows) -> list[Levels]:
    """Return the arrays of a band, profile by profile; those without it are left out.

    Raises
    ------
    QueryError
        Where no granule has it, or its arrays are no images.
    """
    matches = []
    for table in tables:
        images = images_of(table)
        path = _match_path(band.path, images, table)
        if path is not None and shows(path):
            matches.append(_levels_of_band(band, path, images, table))
    if not matches:
        candidates = dict.fromkeys(
            path for table in tables for path in images_of(table) or table.arrays if shows(path)
        )
        raise QueryError(unknown_name("band", band.path, candidates))
    return matches


def images_of(table: GranuleTable) -> Images:
    """Return the images of a profile. One of several resolutions goes by the path of its finest."""
    images = {path: array for path, array in table.arrays.items() if _is_image(array)}
    levels: dict[str, tuple[str | None, dict[str, str]]] = {}
    coarser: set[str] = set()
    for group in sorted(table.groups, key=lambda path: -path.count("/")):
        below: dict[str, dict[str, str]] = {}
        for asset in _assets(table, group):
            at = join(group, asset)
            if at in images:
                below.setdefault("", {})[asset] = at
            for path in images:
                if path.startswith(f"{at}/"):
                    below.setdefault(path.removeprefix(f"{at}/"), {})[asset] = path
        for assets in below.values():
            pyramid = _finest_first(assets, images, table)
            paths = list(pyramid.values())
            if len(paths) > 1 and not coarser & set(paths) and paths[0] not in levels:
                levels[paths[0]] = (group, pyramid)
                coarser |= set(paths[1:])
    for full, pyramid in _tiff_overviews(images, table):
        if full not in levels and not coarser & set(pyramid.values()):
            levels[full] = (None, pyramid)
            coarser |= set(pyramid.values()) - {full}
    return {path: levels.get(path, (None, {"": path})) for path in images if path not in coarser}


def _tiff_overviews(
    images: Mapping[str, ArrayTable], table: GranuleTable
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the full images of TIFFs, with their overviews.

    They are numbered, and the full one alone says where it lies (TIFF 6.0, NewSubfileType, and
    OGC 19-008r4). An image may be a group of one array that is called as the group is.
    """
    numbered: dict[tuple[str, bool], dict[int, str]] = {}
    for path in images:
        group, name = parent(path), path.rpartition("/")[2]
        if name.isdigit():
            nested = group.rpartition("/")[2] == name
            numbered.setdefault((parent(group) if nested else group, nested), {})[int(name)] = path
    for paths in numbered.values():
        full = images.get(paths.get(0, ""))
        if full is None or not _has_geotiff_keys(full):
            continue
        full_shapes = full.shapes[:, list(image_axes(full, table))]
        pyramid = {"0": paths[0]}
        for number in sorted(paths.keys() - {0}):
            array = images[paths[number]]
            shapes = array.shapes[:, list(image_axes(array, table))]
            if (
                array.rank == full.rank
                and not any(_is_mask(variant["attributes"]) for variant in array.variants)
                and array.variants[0]["data_type"] == full.variants[0]["data_type"]
                and not _has_geotiff_keys(array)
                and all(map(is_overview, shapes.tolist(), full_shapes.tolist()))
                and (shapes < full_shapes).all()
            ):
                pyramid[str(number)] = paths[number]
        if len(pyramid) > 1:
            yield paths[0], pyramid


def _has_geotiff_keys(array: ArrayTable) -> bool:
    return any(geotiff_transform(variant["attributes"]) is not None for variant in array.variants)


def _is_mask(attributes: JSON) -> bool:
    """Whether a TIFF's image is the mask of another (TIFF 6.0, 8)."""
    kind = attributes.get("new_subfile_type")
    masks = isinstance(kind, int) and bool(kind & 4)
    return masks or attributes.get("photometric_interpretation") == 4


def _assets(table: GranuleTable, group: str) -> list[str]:
    """Return the assets of a group's levels, of those that all granules name."""
    names = [
        dict.fromkeys(str(entry["asset"]) for entry in layout_of(variant))
        for variant in table.groups[group].variants
    ]
    return (
        [name for name in names[0] if all(name in variant_names for variant_names in names)]
        if names
        else []
    )


def layout_of(attributes: JSON) -> list[JSON]:
    """Return the levels that attributes declare (the convention multiscales for Zarr)."""
    multiscales = attributes.get("multiscales")
    layout = multiscales.get("layout") if isinstance(multiscales, dict) else None
    if not isinstance(layout, list | tuple):
        return []
    return [
        entry for entry in layout if isinstance(entry, dict) and isinstance(entry.get("asset"), str)
    ]


def _finest_first(
    assets: Mapping[str, str], images: Mapping[str, ArrayTable], table: GranuleTable
) -> dict[str, str]:
    """Return images from the largest to the smallest, of those that are like the largest."""

    def size(path: str) -> int:
        array = images[path]
        return int(np.prod(array.shapes[:, list(image_axes(array, table))].max(axis=0, initial=0)))

    ordered = sorted(assets.items(), key=lambda item: -size(item[1]))
    finest = images[ordered[0][1]]
    return {
        asset: path
        for asset, path in ordered
        if images[path].rank == finest.rank
        and images[path].variants[0]["data_type"] == finest.variants[0]["data_type"]
    }


def _has_one_image(array: ArrayTable, table: GranuleTable) -> bool:
    """Whether an array has no axes beside rows and columns, but for those of length 1."""
    others = [axis for axis in range(array.rank) if axis not in image_axes(array, table)]
    return bool((array.shapes[:, others] == 1).all())


def _is_image(array: ArrayTable) -> bool:
    """Whether an array's values are numbers along two axes, and not coordinates."""
    attributes, name = array.variants[0]["attributes"], array.path.rpartition("/")[2]
    kind = native_dtype(array.variants[0]["data_type"]).kind
    return (
        array.rank >= 2
        and kind in "iufb"
        and not is_time(attributes)
        and not any(is_coordinate(attributes, name, words) for words in (LATITUDE, LONGITUDE))
    )


def image_axes(array: ArrayTable, table: GranuleTable) -> tuple[int, ...]:
    """Return the axes of an array's rows and columns; of a track that of its points.

    They are those that ``spatial:dimensions`` names (the convention spatial for Zarr), those whose
    coordinates or names say that they go north and east, else the last two, but for one of bands.
    """
    names = array.variants[0]["attributes"].get("spatial:dimensions")
    if isinstance(names, list) and len(names) == 2 and set(names) <= set(array.dimensions):
        rows, columns = (array.dimensions.index(name) for name in names)
        return (rows, columns)
    if array.rank < 2:
        return (0,)
    axes = []
    for words in (NORTH, EAST):
        candidates = [
            axis
            for axis, name in enumerate(array.dimensions)
            if name is not None and _points_to(name, array, table, words)
        ]
        if len(candidates) == 1:
            axes.append(candidates[0])
    return (axes[0], axes[1]) if len(axes) == 2 else last_axes(array.dimensions)


def _points_to(
    dimension: str, array: ArrayTable, table: GranuleTable, words: frozenset[str]
) -> bool:
    """Whether a dimension, or the coordinate that is called so, points to the north or east."""
    for group in ancestors(array.path):
        coordinate = table.arrays.get(join(group, dimension))
        if coordinate is not None and coordinate.rank == 1:
            name = coordinate.variants[0]["attributes"].get("standard_name")
            if isinstance(name, str) and name in NORTH | EAST:
                return name in words
            break
    return dimension.lower() in words


def _match_path(name: str, images: Images, table: GranuleTable) -> str | None:
    """Return the path of a band's image or array, None where a profile has none.

    Raises
    ------
    QueryError
        Where several are called so.
    """
    path = resolve(name)
    if path is not None and path in table.arrays:
        return path
    if path is not None and path in table.groups:
        finest = [image for image, (group, _) in images.items() if group == path]
        if len(finest) == 1:
            return finest[0]
    matches = [image for image in images if image.rpartition("/")[2] == name]
    matches = matches or [
        candidate for candidate in table.arrays if candidate.rpartition("/")[2] == name
    ]
    if len(matches) > 1:
        raise QueryError(
            f'several bands are called "{name}": name one by its path, of {join_names(matches)}'
        )
    return matches[0] if matches else None


def _levels_of_band(band: Band, path: str, images: Images, table: GranuleTable) -> Levels:
    """Return a band of the granules of a profile: from what is named on to what is coarser.

    Raises
    ------
    QueryError
        Where its arrays aren't images.
    """
    group: str | None = None
    assets = {"": path}
    for holder, levels in images.values():
        if path in levels.values():
            group = holder
            coarser = list(levels)[list(levels.values()).index(path) :]
            assets = {name: levels[name] for name in coarser}
    finest = table.arrays[path]
    dtype = native_dtype(finest.variants[0]["data_type"])
    if dtype.kind not in "iufb" or finest.rank == 0:
        raise QueryError(
            f'"{band.path}" is of {dtype} and {finest.rank} dimensions: a band has numbers along '
            "two of them"
        )
    levels_found = levels_at(table, group, assets)
    return replace(levels_found, picks=_picks(band, finest, levels_found.axes))


def levels_at(table: GranuleTable, group: str | None, assets: Mapping[str, str]) -> Levels:
    """Return the arrays of one image, by asset, the finest first."""
    arrays = tuple(table.arrays[path] for path in assets.values())
    return Levels(table, arrays, group, tuple(assets), image_axes(arrays[0], table), ())


def all_levels(table: GranuleTable) -> Iterator[Levels]:
    """Yield all images of a profile, each with its levels."""
    for group, assets in images_of(table).values():
        yield levels_at(table, group, assets)


def _picks(band: Band, array: ArrayTable, axes: Sequence[int]) -> tuple[int, ...]:
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
            sizes = ", ".join(f"{n} ({length})" for n, length in zip(names, lengths, strict=True))
            zeros = ",".join("0" * len(others))
            raise QueryError(
                f'"{array.path}" has more than rows and columns: {sizes}. Name what to show, as in '
                f'bands={{"{band.name}": "{array.path}[{zeros}]"}}'
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
