"""Which part of each of a granule's arrays touches a place: one window for each dimension.

Arrays and coordinates along the same dimension can't disagree then. A dimension's window holds
whatever touches the place of each georeference along it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import shapely

from l2view.geolocation.coordinates import (
    are_levels,
    basename,
    common_words,
    distance,
    named_coordinates,
    parent,
)
from l2view.geolocation.dimensions import Dimension, GranuleDimensions, matching_axes
from l2view.geolocation.granule import Georeference, LocatedGranule
from l2view.geolocation.ragged import Ragged, cut_ragged, ragged_arrays
from l2view.geolocation.tie_points import cut_tie_points, declared_tie_points, unshared_ties
from l2view.geolocation.windows import NOTHING, Window, georeference_windows, union
from l2view.text import join_names


@dataclass(frozen=True)
class GranuleWindows:
    """What of a granule touches a place, along its dimensions."""

    dimensions: Mapping[str, tuple[Dimension, ...]]  # of each array, by path
    windows: Mapping[Dimension, Window]  # all of a dimension is shown without any
    linked: frozenset[Dimension]  # whose windows depend on those of others
    notes: tuple[str, ...]  # what is shown whole for want of a declaration

    def of_arrays(self) -> dict[str, tuple[Window, ...]]:
        """Return the windows of the arrays that have any, by path."""
        return {
            path: tuple(self.windows.get(axis, (0, axis.length)) for axis in axes)
            for path, axes in self.dimensions.items()
            if not self.windows.keys().isdisjoint(axes)
        }


@dataclass(frozen=True, eq=False)
class Located:
    """A georeference, and the dimensions of its granule along which it lies."""

    georeference: Georeference
    axes: tuple[Dimension, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """The arrays that hold it."""
        return self.georeference.coordinates or (self.georeference.path,)


type Notes = dict[str, list[Dimension]]
"""Why some dimensions aren't cut."""


def granule_windows(
    granule: LocatedGranule, place: shapely.Geometry, named: tuple[str, str] | None = None
) -> GranuleWindows | None:
    """Return the windows of a granule's arrays that touch a place.

    None where nothing says where the granule lies. The place is in EPSG:4326, within ±180° of
    longitude; `named` are the paths of latitudes and longitudes that aren't found.
    """
    dimensions = GranuleDimensions(granule.arrays)
    located = _located(granule, dimensions, named)
    if not located:
        return None
    uncut = _link_arrays(granule, dimensions, located)
    doubtful = {dimensions.resolve(axis) for axes in uncut.values() for axis in axes}
    located = [own for own in located if doubtful.isdisjoint(map(dimensions.resolve, own.axes))]
    tie_points = declared_tie_points(granule, dimensions)
    ragged = list(ragged_arrays(granule, dimensions))
    windows: dict[Dimension, Window] = {}
    for member in located:
        touching = georeference_windows(granule, member.georeference, place)
        for axis, window in zip(map(dimensions.resolve, member.axes), touching, strict=True):
            windows[axis] = union(windows.get(axis, NOTHING), window)
    windows |= cut_tie_points(windows, tie_points)
    uncut |= _possible_ties(granule, dimensions, located, windows) | _indexed(ragged, windows)
    windows = cut_ragged(windows, ragged)
    linked = [{own.ties, own.data} for own in tie_points]
    linked += [{own.instances, own.samples} for own in ragged if own.ends is not None]
    excluded = {dimensions.resolve(axis) for axes in uncut.values() for axis in axes}
    while more := {axis for axes in linked if axes & excluded for axis in axes - excluded}:
        excluded |= more
    return GranuleWindows(
        {path: tuple(map(dimensions.resolve, axes)) for path, axes in dimensions.by_array.items()},
        {axis: window for axis, window in windows.items() if axis not in excluded},
        frozenset(axis for axes in linked for axis in axes),
        tuple(filter(None, uncut)),
    )


def _located(
    granule: LocatedGranule, dimensions: GranuleDimensions, named: tuple[str, str] | None
) -> list[Located]:
    """Return what says where a granule lies; links images with the coordinates that they have."""

    def of_pair(pair: Georeference) -> Located:
        latitudes, longitudes = (dimensions.by_array[path] for path in pair.coordinates or ())
        if len(latitudes) == 1 and len(pair.dimensions) == 2:
            return Located(pair, latitudes + longitudes)
        _link(dimensions, latitudes, longitudes)
        return Located(pair, latitudes[-2:])

    pairs = granule.pairs() if named is None else filter(None, [granule.pair(*named)])
    by_paths = {pair.coordinates: of_pair(pair) for pair in pairs}
    by_axes: dict[tuple[Dimension, ...], Located] = {}
    for image in granule.images():
        axes = tuple(dimensions.by_array[image.path][axis] for axis in granule.axes(image.path))
        paths = image.coordinates
        if paths is None:
            by_axes.setdefault(axes, Located(image, axes))
        elif named is None:
            if paths not in by_paths and (pair := granule.pair(*paths)) is not None:
                by_paths[paths] = of_pair(pair)
            if paths in by_paths and len(by_paths[paths].axes) == len(axes):
                _link(dimensions, by_paths[paths].axes, axes)
    return [*by_paths.values(), *by_axes.values()]


def _link(
    dimensions: GranuleDimensions, axes: Sequence[Dimension], others: Sequence[Dimension]
) -> None:
    for axis, other in zip(axes, others, strict=True):
        dimensions.link(axis, other)


def _link_arrays(
    granule: LocatedGranule, dimensions: GranuleDimensions, located: Sequence[Located]
) -> Notes:
    """Link the dimensions of arrays with those of the georeferences that they belong to.

    An array belongs to those that its attribute ``coordinates`` names, or that share most of its
    dimensions, then to the nearest, then to those whose names are alike. Where there are no names,
    lengths that say several things are notes.
    """
    have_place = {axis for member in located for axis in member.axes}
    uncut: Notes = {}
    for path, axes in dimensions.by_array.items():
        may_be_levels = _may_be_levels(granule, path, axes)
        if have_place.issuperset(axes) and not may_be_levels:
            continue
        named = named_coordinates(granule.table.arrays[path], granule.table)
        candidates = []
        for member in located:
            if matches := matching_axes(axes, member.axes):
                rank = (
                    named.isdisjoint(member.paths),
                    -len(matches),
                    distance(parent(path), parent(member.paths[0])),
                    -common_words(path, "/".join(member.paths)),
                )
                candidates.append((rank, matches, member))
        counts = Counter(rank for rank, _, _ in candidates)
        ranks: dict[Dimension, tuple[object, ...]] = {}
        for rank, matches, member in sorted(candidates, key=lambda candidate: candidate[0]):
            if any(ranks.get(axis, rank) != rank for axis, _ in matches):
                continue
            ranks |= dict.fromkeys((axis for axis, _ in matches), rank)
            by_length = not all(axis.is_named for axis, _ in matches)
            is_doubtful = len(matches) > len(member.axes) or (may_be_levels and rank[0])
            if by_length and (is_doubtful or counts[rank] > 1):
                note = f"nothing but lengths says whether {path} lies along {member.paths[0]}: "
                axes_in_doubt = [other for _, other in matches] if is_doubtful else []
                uncut[note + "shown whole"] = axes_in_doubt
                continue
            for axis, other in matches:
                dimensions.link(other, axis)
    return uncut


def _may_be_levels(granule: LocatedGranule, path: str, axes: Sequence[Dimension]) -> bool:
    """Whether an array along a dimension without a name may be levels, or bands."""
    array = granule.arrays[path]
    if array.ndim != 1 or axes[0].is_named or array.dtype.kind not in "iuf":
        return False
    names = (basename(path), array.attrs.get("standard_name"), array.attrs.get("long_name"))
    if not are_levels(" ".join(map(str, names))):
        return False
    steps = np.diff(granule.values(path))
    return bool((steps > 0).all() or (steps < 0).all())


def _possible_ties(
    granule: LocatedGranule,
    dimensions: GranuleDimensions,
    located: Sequence[Located],
    windows: Mapping[Dimension, Window],
) -> Notes:
    """Return the dimensions of what may be tie points of data; nothing declares it."""
    data: dict[str, list[str]] = {}
    uncut: dict[str, list[Dimension]] = {}
    tracks = {dimensions.resolve(own.axes[0]) for own in located if len(own.axes) == 1}
    swaths = [own for own in located if own.georeference.coordinates and len(own.axes) == 2]
    for path in granule.image_paths:
        axes = [dimensions.resolve(axis) for axis in dimensions.by_array[path]]
        has_place = not tracks.isdisjoint(axes)
        if has_place or windows.keys() >= {axes[axis] for axis in granule.axes(path)}:
            continue
        for swath in sorted(swaths, key=lambda own: distance(parent(path), parent(own.paths[0]))):
            ties = [dimensions.resolve(axis) for axis in swath.axes]
            pairs = combinations(axes, 2)
            if unshared := [axis for pair in pairs for axis in unshared_ties(ties, pair)]:
                data.setdefault(swath.paths[0], []).append(path)
                uncut.setdefault(swath.paths[0], []).extend(unshared)
                break
    return {
        f"{join_names(paths)} may lie between the tie points of {swath}, but no attribute declares "
        "how: all are shown whole there": uncut[swath]
        for swath, paths in data.items()
    }


def _indexed(ragged: Sequence[Ragged], windows: Mapping[Dimension, Window]) -> Notes:
    """Return the instances that samples name by their position, and what can't be cut with them."""
    uncut: Notes = {}
    for own in ragged:
        if own.ends is None:
            # The positions stay true; samples without a place of their own go by these.
            note = f"{own.path} names positions along {own.instances.name}, which are shown whole"
            is_noted = own.instances in windows and own.samples not in windows
            uncut.setdefault(note if is_noted else "", []).append(own.instances)
        elif own.ends[-1] != own.samples.length or (np.diff(own.ends) < 0).any():
            note = f"{own.path} doesn't count the {own.samples.name} that there are"
            uncut.setdefault(f"{note}: shown whole", []).extend((own.instances, own.samples))
    return uncut
