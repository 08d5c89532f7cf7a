"""The names of arrays' dimensions, where files don't say them or contradict themselves.

xarray opens a group where each name of a dimension stands for one length, in the group and those
below it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from l2view.geolocation.coordinates import ancestors
from l2view.geolocation.struct_metadata import Structure
from l2view.granules.references import ArrayReferences

PLACEHOLDER = re.compile(r"phony_dim_\d+")
"""What VirtualiZarr calls a dimension without a scale, by its axis."""

GRANULE = "granule"
"""The dimension of the fields of a search result, which lie above the granules in its tree."""

type Names = tuple[str | None, ...]


def name_dimensions(
    arrays: Sequence[ArrayReferences], structures: Sequence[Structure] = ()
) -> list[ArrayReferences]:
    """Return a file's arrays with a name for each dimension, of one length within its group.

    Names come from the file's scales, from the product's own lists (GPM's ``DimensionNames``,
    HDF-EOS5's ``StructMetadata``), or are made by length as h5netcdf makes them: ``phony_dim_0``,
    ``phony_dim_1``, … Where a name stands for several lengths, or for several axes of an array, the
    others get names of their own.

    Parameters
    ----------
    arrays
        A file's arrays.
    structures
        The swaths and grids of a file of HDF-EOS.
    """
    names = {array.path: _stored_names(array) for array in arrays}
    if any(None in axes for axes in names.values()):
        listed = {
            path: dimensions
            for structure in structures
            for path, _, dimensions in structure.paths()
        }
        names = {
            array.path: _listed_names(array, names[array.path], listed.get(array.path))
            for array in arrays
        }
        names = _names_by_length({array.path: array.shape for array in arrays}, names)
    return _reconcile(arrays, names)


def _given_names(array: ArrayReferences) -> list[str | None]:
    return array.document.get("dimension_names") or [None] * len(array.shape)


def _stored_names(array: ArrayReferences) -> Names:
    names = _given_names(array)
    return tuple(None if name is None or PLACEHOLDER.fullmatch(name) else name for name in names)


def _listed_names(array: ArrayReferences, stored: Names, listed: Names | None) -> Names:
    """Return the names that the product lists for an array, those stored without such a list."""
    attribute = array.document["attributes"].get("DimensionNames")
    if listed is None and isinstance(attribute, str):
        listed = tuple(name.strip() or None for name in attribute.split(","))
    usable = listed is not None and len(listed) == len(stored) == len(set(listed))
    return listed if listed is not None and usable and None in stored else stored


def _names_by_length(
    shapes: Mapping[str, tuple[int, ...]], names: Mapping[str, Names]
) -> dict[str, Names]:
    """Name what has no name by its length, as netCDF readers do.

    That is the group's dimension of that length, or two where an array has two. What a group
    lacks is numbered through the file, as h5netcdf does.
    """
    taken = {name for axes in names.values() for name in axes if name is not None}
    numbers = (name for n in count() if (name := f"phony_dim_{n}") not in taken)
    complete: dict[str, Names] = {}
    for _, paths in _by_group(names):
        known: defaultdict[int, list[str]] = defaultdict(list)
        for path in paths:
            for stored, length in zip(names[path], shapes[path], strict=True):
                if stored is not None and stored not in known[length]:
                    known[length].append(stored)
        for path in paths:
            free = {n: [x for x in known[n] if x not in names[path]] for n in set(shapes[path])}
            axes: list[str] = []
            for axis, length in zip(names[path], shapes[path], strict=True):
                if axis is None and not free[length]:
                    known[length].append(next(numbers))
                    free[length].append(known[length][-1])
                axes.append(free[length].pop(0) if axis is None else axis)
            complete[path] = tuple(axes)
    return complete


def _by_group(paths: Iterable[str]) -> list[tuple[str, list[str]]]:
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(paths):
        groups[path.rpartition("/")[0]].append(path)
    return sorted(groups.items(), key=lambda item: item[0].split("/"))


def _reconcile(
    arrays: Sequence[ArrayReferences], names: Mapping[str, Names]
) -> list[ArrayReferences]:
    """Return the arrays where each name has one length in a group and those that it lies in.

    No array has one twice: xarray can do next to nothing with what lies along one dimension twice.
    """
    by_path = {array.path: array for array in arrays}
    taken = {name for axes in names.values() for name in axes}
    # Of the groups gone through, with those above; in a tree the granules lie in a group of
    # their own dimension.
    lengths: dict[str, dict[Any, int]] = {"": {GRANULE: -1}}
    for group, paths in _by_group(names):
        own = dict(lengths[next(path for path in [group, *ancestors(group)] if path in lengths)])
        # A scalar's name is that of no dimension.
        own |= {path.rpartition("/")[2]: -1 for path in paths if not names[path]}
        lengths[group] = own
        renamed: dict[tuple[Any, int, int], str] = {}
        for path in paths:
            array = by_path[path]
            axes: list[Any] = []
            for axis, (name, length) in enumerate(zip(names[path], array.shape, strict=True)):
                key = name, length, names[path][:axis].count(name)
                is_free = own.setdefault(name, length) == length and name not in axes
                if not is_free and key not in renamed:
                    fresh = next(x for n in count(1) if (x := f"{name}_{n}") not in taken)
                    taken.add(fresh)
                    renamed[key] = fresh
                    own[fresh] = length
                axes.append(name if is_free else renamed[key])
            if axes != _given_names(array):
                document = {**array.document, "dimension_names": axes}
                by_path[path] = replace(array, document=document)
    return list(by_path.values())
