"""Which dimensions of a granule's arrays are one and the same, so that a crop cuts them alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import zarr

from l2view.geolocation.coordinates import ancestors, are_levels, are_named, parent

UNNAMED = "axis -"  # how the names begin that dimensions without one have here


class Dimension(NamedTuple):
    """A dimension, as netCDF has them: of a group, and known by name in the groups below."""

    group: str  # the topmost that has it; the array itself, if the dimension has no name
    name: str
    length: int

    @property
    def is_named(self) -> bool:
        """Whether its name wasn't made up."""
        return are_named([self.name]) and not self.name.startswith(UNNAMED)


class GranuleDimensions:
    """The dimensions of a granule's arrays, of which several may be linked: they are the same."""

    def __init__(self, arrays: Mapping[str, zarr.Array[Any]]) -> None:
        groups: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
        names = {path: dimension_names(array) for path, array in arrays.items()}
        for path, array in arrays.items():
            for key in zip(names[path], array.shape, strict=True):
                groups[key].add(parent(path))

        def dimension(path: str, name: str, length: int) -> Dimension:
            is_named = are_named([name])
            # Of axes of one length no name that a reader makes up says which is which.
            if name.startswith(UNNAMED) or (not is_named and arrays[path].shape.count(length) > 1):
                return Dimension(path, name, length)
            # Such names hold within their group alone.
            above = ancestors(path) if is_named else [parent(path)]
            top = [group for group in above if group in groups[name, length]][-1]
            return Dimension(top, name, length)

        self.by_array: dict[str, tuple[Dimension, ...]] = {
            path: tuple(dimension(path, *key) for key in zip(names[path], array.shape, strict=True))
            for path, array in arrays.items()
        }
        self._links: dict[Dimension, Dimension] = {}

    def __iter__(self) -> Iterator[Dimension]:
        """Iterate over all dimensions."""
        return iter({axis: None for axes in self.by_array.values() for axis in axes})

    def resolve(self, dimension: Dimension) -> Dimension:
        """Return the one of linked dimensions that stands for all of them."""
        while dimension in self._links:
            dimension = self._links[dimension]
        return dimension

    def link(self, first: Dimension, other: Dimension) -> None:
        """Say that two dimensions, of one length, are the same."""
        first, other = self.resolve(first), self.resolve(other)
        if first != other:
            self._links[other] = first


def dimension_names(array: zarr.Array[Any]) -> list[str]:
    """Return the names of an array's dimensions, made up where it has none."""
    names = array.metadata.dimension_names or (None,) * array.ndim  # type: ignore[union-attr]
    return [f"{UNNAMED}{array.ndim - axis}" if n is None else n for axis, n in enumerate(names)]


def matching_axes(
    axes: Sequence[Dimension], located: Sequence[Dimension]
) -> list[tuple[Dimension, Dimension]]:
    """Return the dimensions of an array with those of coordinates that may be the same.

    By name and length; where names are made up, by the lengths of all of the coordinates'
    dimensions, at each place where they stand.
    """
    lengths = {axis.name: axis.length for axis in axes if axis.is_named}
    if any(lengths.get(other.name, other.length) != other.length for other in located):
        return []
    matches = [(a, other) for a in axes for other in located if a.is_named and a[1:] == other[1:]]
    if matches or all(dimension.is_named for dimension in (*axes, *located)):
        return matches
    sizes = [other.length for other in located]
    if max(sizes) < 2:
        return []
    places = [axes[start:][: len(sizes)] for start in range(len(axes) - len(sizes) + 1)]
    return [
        pair
        for place in places
        if [axis.length for axis in place] == sizes
        and not any(axis.is_named and are_levels(axis.name) for axis in place)
        for pair in zip(place, located, strict=True)
    ]
