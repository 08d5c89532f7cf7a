"""Which arrays of granules a band is: one, or several of different resolutions."""

from __future__ import annotations

import re
from collections import Counter
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
    basename,
    is_coordinate,
    is_overview,
    named_path,
    parent,
)
from l2view.geolocation.image_axes import image_axes
from l2view.geolocation.transforms import geotiff_transform
from l2view.granules.table import ArrayTable, GranuleTable
from l2view.stores.hierarchy import JSON, join, resolve
from l2view.text import join_names, unknown_name

type Bands = str | Sequence[str] | Mapping[str, str] | None
"""How bands are asked for: by paths or names, or by what each is to be called."""

TAKEN = frozenset({"x", "y", "time", "group", "spatial_ref"})  # names of a mosaic's coordinates

PICKED = re.compile(r"(?P<path>.+?)\[(?P<at>\s*-?\d+\s*(,\s*-?\d+\s*)*)\]")
"""A path with positions along the axes that aren't of the image."""


@dataclass(frozen=True)
class Band:
    """A band as it is asked for."""

    name: str  # what it is called in the mosaic
    path: str  # of the arrays below their granules, or their name alone
    picks: tuple[int, ...] | None = None  # positions along axes that aren't of the image


@dataclass(frozen=True, eq=False)
class Levels:
    """The arrays of one band of the granules of a profile."""

    table: GranuleTable
    arrays: tuple[ArrayTable, ...]  # one for each resolution, the finest first
    group: str | None  # of the granule, that says their resolutions
    assets: tuple[str, ...]  # what that group calls them
    axes: tuple[int, ...]  # those of the rows and columns; rows alone of a track
    picks: tuple[int, ...] = ()  # the positions along the other axes

    def shapes(self, level: int) -> NDArray[np.int64]:
        """Return the rows and columns of each granule's array that are shown, of shape (n, 2)."""
        array = self.arrays[level]
        return image_shapes(array.ends - array.begins, self.axes)

    def stored_shapes(self, level: int) -> NDArray[np.int64]:
        """Return the rows and columns of each granule's array, of shape (n, 2)."""
        return image_shapes(self.arrays[level].shapes, self.axes)


def image_shapes(shapes: NDArray[np.int64], axes: Sequence[int]) -> NDArray[np.int64]:
    """Return the rows and columns of arrays of some shapes; a track has one column."""
    lengths = shapes[:, list(axes)]
    if len(axes) == 2:
        return lengths
    return np.concatenate([lengths, np.ones_like(lengths)], axis=1)


type Shows = Callable[[str], bool]  # whether an array is one that the view shows, by its path


def resolve_bands(bands: Bands, tables: Sequence[GranuleTable], shows: Shows) -> tuple[Band, ...]:
    """Return the named bands; all that are images where none are named, by their shortest names.

    Raises
    ------
    QueryError
        Where they aren't named, or a granule has no images.
    """
    if bands is None:
        paths = dict.fromkeys(
            path
            for table in tables
            for path, image in images_of(table).items()
            if shows(path) and _has_one_image(image)
        )
        counts = Counter(map(basename, paths))
        if not paths:
            raise QueryError(
                "no granule of the view has an image, an array of numbers with rows and columns; "
                "name variables along a track, or of more axes, with bands="
            )
        return tuple(
            Band(path if counts[basename(path)] > 1 else basename(path), path) for path in paths
        )
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
    counts = Counter(band.name for band in resolved)
    if twice := sorted(name for name, count in counts.items() if count > 1):
        raise QueryError(
            f"several bands would be called {join_names(twice)}: name each, as in "
            'bands={"red": "a/red", "red_20m": "b/red"}'
        )
    return tuple(resolved)


def band_name(text: Any) -> str:
    """Return the default name of a band that is given by its path."""
    path, picks = _parse_path(text)
    name = basename(path.strip("/"))
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


def match_band(band: Band, tables: Sequence[GranuleTable], shows: Shows) -> list[Levels]:
    """Return the arrays of a band, profile by profile; those without it are left out."""
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


def images_of(table: GranuleTable) -> dict[str, Levels]:
    """Return the images of a profile. One of several resolutions goes by the path of its finest."""
    images = {
        path: levels_at(table, {"": path})
        for path, array in table.arrays.items()
        if _is_image(array)
    }
    pyramids: dict[str, Levels] = {}
    coarser: set[str] = set()
    for levels in (*_multiscales(images, table), *_tiff_overviews(images, table)):
        finest, *overviews = (array.path for array in levels.arrays)
        if overviews and finest not in pyramids and not coarser & {finest, *overviews}:
            pyramids[finest] = levels
            coarser |= set(overviews)
    return {
        path: pyramids.get(path, image) for path, image in images.items() if path not in coarser
    }


def levels_at(table: GranuleTable, assets: Mapping[str, str], group: str | None = None) -> Levels:
    """Return the arrays of one image, whose paths are given by asset, the finest first."""
    arrays = tuple(table.arrays[path] for path in assets.values())
    return Levels(table, arrays, group, tuple(assets), image_axes(arrays[0], table))


def _multiscales(images: Mapping[str, Levels], table: GranuleTable) -> Iterator[Levels]:
    """Yield the images below groups that declare levels, the innermost first.

    Levels are those that all granules name, and of which the images are like the largest.
    """
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
            sizes = {
                asset: np.prod(images[path].stored_shapes(0).max(axis=0, initial=0))
                for asset, path in assets.items()
            }
            ordered = sorted(assets, key=lambda asset: -sizes[asset])
            finest = images[assets[ordered[0]]]
            pyramid = {
                asset: assets[asset] for asset in ordered if _is_like(images[assets[asset]], finest)
            }
            yield levels_at(table, pyramid, group)


def _assets(table: GranuleTable, group: str) -> list[str]:
    """Return the assets of a group's levels, of those that all granules name."""
    names = [
        dict.fromkeys(str(entry["asset"]) for entry in layout_of(variant))
        for variant in table.groups[group].variants
    ]
    return [name for name in names[0] if all(name in others for others in names)] if names else []


def layout_of(attributes: JSON) -> list[JSON]:
    """Return the levels that attributes declare (the convention multiscales for Zarr)."""
    multiscales = attributes.get("multiscales")
    layout = multiscales.get("layout") if isinstance(multiscales, dict) else None
    if not isinstance(layout, list | tuple):
        return []
    entries = (entry for entry in layout if isinstance(entry, dict))
    return [entry for entry in entries if isinstance(entry.get("asset"), str)]


def _tiff_overviews(images: Mapping[str, Levels], table: GranuleTable) -> Iterator[Levels]:
    """Yield the full images of TIFFs, with their overviews, by number.

    They are numbered, and the full one alone says where it lies (TIFF 6.0, NewSubfileType, and
    OGC 19-008r4). An image may be a group of one array that is called as the group is.
    """
    numbered: dict[tuple[str, bool], dict[int, str]] = {}
    for path in images:
        group, name = parent(path), basename(path)
        if name.isdigit():
            nested = basename(group) == name
            numbered.setdefault((parent(group) if nested else group, nested), {})[int(name)] = path
    for paths in numbered.values():
        full = images.get(paths.get(0, ""))
        if full is None or not _has_geotiff_keys(full):
            continue
        full_shapes = full.stored_shapes(0)
        pyramid = {"0": paths[0]}
        for number in sorted(paths.keys() - {0}):
            image = images[paths[number]]
            shapes = image.stored_shapes(0)
            if (
                _is_like(image, full)
                and not _has_geotiff_keys(image)
                and all(map(is_overview, shapes.tolist(), full_shapes.tolist()))
                and (shapes < full_shapes).all()
            ):
                pyramid[str(number)] = paths[number]
        yield levels_at(table, pyramid)


def _is_like(image: Levels, other: Levels) -> bool:
    a, b = image.arrays[0], other.arrays[0]
    return a.rank == b.rank and bool(a.variants[0]["data_type"] == b.variants[0]["data_type"])


def _has_geotiff_keys(image: Levels) -> bool:
    variants = image.arrays[0].variants
    return any(geotiff_transform(variant["attributes"]) is not None for variant in variants)


def is_mask(attributes: JSON) -> bool:
    """Whether a TIFF's image is the mask of another (TIFF 6.0, 8)."""
    kind = attributes.get("new_subfile_type")
    masks = isinstance(kind, int) and bool(kind & 4)
    return masks or attributes.get("photometric_interpretation") == 4


def _has_one_image(image: Levels) -> bool:
    """Whether an array of real numbers has no axes beside rows and columns that are longer."""
    array = image.arrays[0]
    others = [axis for axis in range(array.rank) if axis not in image.axes]
    is_real = native_dtype(array.variants[0]["data_type"]).kind != "c"
    return is_real and bool((array.shapes[:, others] == 1).all())


def _is_image(array: ArrayTable) -> bool:
    """Whether an array's values are numbers along two axes, and neither coordinates nor a mask."""
    variant = array.variants[0]
    return (
        array.rank >= 2
        and native_dtype(variant["data_type"]).kind in "iufcb"
        and not is_time(variant["attributes"])
        and not any(is_coordinate(array, words) for words in (LATITUDE, LONGITUDE))
        and not all(is_mask(variant["attributes"]) for variant in array.variants)
    )


def _match_path(name: str, images: Mapping[str, Levels], table: GranuleTable) -> str | None:
    """Return the path of a band's image or array, None where a profile has none."""
    path = resolve(name)
    if path is not None and path in table.arrays:
        return path
    if path is not None and path in table.groups:
        finest = [image for image, levels in images.items() if levels.group == path]
        if len(finest) == 1:
            return finest[0]
    return named_path(name, images, "bands") or named_path(name, table.arrays, "bands")


def _levels_of_band(
    band: Band, path: str, images: Mapping[str, Levels], table: GranuleTable
) -> Levels:
    """Return a band of the granules of a profile: from what is named on to what is coarser."""
    pyramid = levels_at(table, {"": path})
    for levels in images.values():
        paths = [array.path for array in levels.arrays]
        if path in paths:
            assets = dict(zip(levels.assets, paths, strict=True))
            coarser = dict(list(assets.items())[paths.index(path) :])
            pyramid = levels_at(table, coarser, levels.group)
    finest = table.arrays[path]
    dtype = native_dtype(finest.variants[0]["data_type"])
    if dtype.kind not in "iufb" or finest.rank == 0:
        raise QueryError(
            f'"{band.path}" is of {dtype} and {finest.rank} dimensions: a band has numbers along '
            "two of them"
        )
    return replace(pyramid, picks=_picks(band, finest, pyramid.axes))


def _picks(band: Band, array: ArrayTable, axes: Sequence[int]) -> tuple[int, ...]:
    """Return the positions along the axes that aren't of the image."""
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
