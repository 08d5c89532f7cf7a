"""In what granules differ that shall be joined, for errors and warnings that name them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2view.arrays.cf import KIND, Packing, meaning_of
from l2view.errors import L2ViewWarning, warn
from l2view.granules.inventory import Inventory
from l2view.granules.profile import with_leading_axis
from l2view.text import join_names
from l2view.virtual.join_array import Parts
from l2view.virtual.join_shape import Joining
from l2view.virtual.tree import Tree

UNTOLD = ". Other words for the same unit are told with the extra l2view[units]"


def same_meaning(name: str, one: Any, other: Any) -> bool:
    """Return whether two values of an attribute in `MEANING` say the same.

    Units are compared by UDUNITS' rules, where cf-xarray and pint are installed.
    """
    return one == other or (name == "units" and _same_units(str(one), str(other)))


def knows_units() -> bool:
    """Return whether two words for one unit can be told to be the same."""
    return find_spec("cf_xarray") is not None and find_spec("pint") is not None


@lru_cache(maxsize=256)
def _same_units(one: str, other: str) -> bool:
    if not knows_units():
        return False
    from cf_xarray.units import units  # of an extra

    try:
        return bool(units.Unit(one) == units.Unit(other))
    except Exception:  # pint raises what it likes for units that it doesn't know
        return False


def differences(tree: Tree, joining: Joining, parts: Parts, axis: int | None) -> list[str]:
    """Return in what the granules differ that can't be joined so."""
    problems = []
    told = [meaning_of(variant) for variant in parts.variants]
    for name in sorted({name for said in told for name in said}):
        values = [said.get(name) for said in told]
        other = next(
            (i for i, v in enumerate(values) if not same_meaning(name, values[0], v)), None
        )
        if other is not None:
            problems.append(
                _differ(tree, parts, name, values, other)
                + ", which no encoding makes the same; leave it out with variables="
                + (UNTOLD if name == "units" and not knows_units() else "")
            )
    lengths = np.delete(parts.lengths, axis, axis=1) if axis is not None else parts.lengths
    if joining.ragged == "error" and (lengths != lengths[:1]).any():
        other = int(np.flatnonzero((lengths != lengths[:1]).any(axis=1))[0])
        kinds, counts = np.unique(parts.lengths, axis=0, return_counts=True)
        shapes = [f"{tuple(k.tolist())} ({c})" for k, c in zip(kinds, counts, strict=True)]
        problems.append(
            f"{parts.path} has the shape {tuple(parts.lengths[0].tolist())} in "
            f"{_name(tree, parts, 0)} and {tuple(parts.lengths[other].tolist())} in "
            f'{_name(tree, parts, other)} (all: {join_names(shapes, most=4)}); pass ragged="pad"'
            + ("" if joining.layout == "concat" else ', or layout="concat" and dim=')
        )
    if joining.encoding == "unify":
        return problems
    way = '; pass encoding="unify"'
    packings = [Packing.of_document(variant) for variant in parts.variants]
    encoded = [packing.to_zarr() for packing in packings]  # in which NaN is equal to NaN
    for name in sorted({name for attributes in encoded for name in attributes}):
        first = encoded[0].get(name)
        other = next((i for i, own in enumerate(encoded) if own.get(name) != first), None)
        if other is not None:
            values = [packing.attributes.get(name) for packing in packings]
            problems.append(_differ(tree, parts, name, values, other) + way)
    chunks = np.delete(parts.chunk_shapes, axis, axis=1) if axis is not None else parts.chunk_shapes
    if (chunks != chunks[:1]).any():
        other = int(np.flatnonzero((chunks != chunks[:1]).any(axis=1))[0])
        problems.append(
            f"{parts.path} has chunks of {tuple(parts.chunk_shapes[0].tolist())} in "
            f"{_name(tree, parts, 0)} and {tuple(parts.chunk_shapes[other].tolist())} in "
            f"{_name(tree, parts, other)}{way}"
        )
    if axis is None and with_leading_axis(parts.variants[0]["codecs"]) is None:
        codecs = join_names(codec["name"] for codec in parts.variants[0]["codecs"])
        problems.append(
            f"{parts.path} has codecs that may depend on the shape of a chunk ({codecs}){way}"
        )
    return problems


def warn_of_kinds(tree: Tree, parts: Parts) -> None:
    """Warn where the values of granules are of different things, or lie in different CRSs."""
    for name in sorted(KIND):
        values = [variant["attributes"].get(name) for variant in parts.variants]
        known = [i for i, value in enumerate(values) if value is not None]
        other = next((i for i in known if values[i] != values[known[0]]), None)
        if other is not None:
            differ = _differ(tree, parts, name, values, other, known[0])
            warn(f"{differ}; they are joined all the same, cell by cell", L2ViewWarning)


def conflicts(tree: Tree, members: Sequence[Inventory], dim: str) -> list[str]:
    """Return where arrays of one group of a granule have different lengths along a dimension."""
    problems = []
    for one in members:
        known: dict[str, tuple[str, NDArray[np.int64]]] = {}
        for path, array in one.arrays.items():
            if dim not in array.dimensions:
                continue
            axis = array.dimensions.index(dim)
            lengths = (array.ends - array.begins)[:, axis]
            other, mine = known.setdefault(path.rpartition("/")[0], (path, lengths))
            differing = np.flatnonzero(mine != lengths)
            if len(differing):
                name = tree.granules.name(int(one.rows[differing[0]]))
                problems.append(
                    f"{path} and {other} have different lengths along {dim} in {name}; leave one "
                    "of them out with variables="
                )
    return problems


def _differ(
    tree: Tree, parts: Parts, name: str, values: Sequence[Any], other: int, one: int = 0
) -> str:
    """Say what two variants have for an attribute, each with a granule that has it."""
    members = [int(np.flatnonzero(parts.which == i)[0]) for i in (one, other)]
    said = [
        f"{'none' if value is None else repr(value)} in {_name(tree, parts, member)}"
        for value, member in zip((values[one], values[other]), members, strict=True)
    ]
    return f"{parts.path}: {name} is {said[0]} and {said[1]}"


def _name(tree: Tree, parts: Parts, member: int) -> str:
    return tree.granules.name(int(parts.rows[member]))
