"""The plan of joined granules: which of them go together, in what form, under which names.

It is made of what the layout tells of all granules together (`l2view.granules.inventory`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from zarr.core.sync import sync

from l2view.arrays.cf import (
    BOUNDS,
    PACKING,
    RANGES,
    SCALING,
    TIMES,
    Packing,
    is_time,
    meaning_of,
)
from l2view.arrays.dtypes import common_dtype, native_dtype
from l2view.arrays.encoding import ArrayEncoding
from l2view.errors import L2ViewWarning, MissingGranuleWarning, ShapeError, warn
from l2view.granules.inventory import ArrayInventory, Inventory, shared_attributes
from l2view.granules.profile import with_leading_axis
from l2view.stores.hierarchy import JSON, join
from l2view.text import first_line, join_names, unknown_name
from l2view.virtual.fields import DIMENSION, free_name
from l2view.virtual.join_array import JoinedArray, Parts
from l2view.virtual.join_conflicts import conflicts, differences, warn_of_kinds
from l2view.virtual.join_shape import Joined, Joining, Stack, field_names
from l2view.virtual.tree import Tree

TITLES = (
    "collection",
    "product",
    "product_type",
    "platform",
    "instrument",
    "product_version",
    "title",
    "profile",
)
"""The fields by which stacks are named, the first that tells them apart."""

SHOWN = 6
"""How many differences an error tells."""


def joined(tree: Tree, joining: Joining) -> Joined:
    """Return the granules of a tree, joined.

    Parameters
    ----------
    tree
        The granules.
    joining
        How they shall be joined.

    Raises
    ------
    ShapeError
        Where they can't be: saying which granules differ in what, and what else can be done.
    """
    names = tree.granules.fields
    if joining.layout == "stack" and joining.dim not in (None, DIMENSION, *names):
        raise ShapeError(
            unknown_name("field", str(joining.dim), names)
            + ". A field that is left out by fields= can't be stacked over, and along a dimension "
            'of the arrays layout="concat" joins'
        )
    if joining.layout == "concat" and joining.dim is None:
        raise ShapeError('layout="concat" joins along a dimension of the arrays: name it with dim=')
    granules = tree.granules
    found = sync(tree.inventories())
    shown = [_shown(one, tree) for one, _ in found]
    _warn_of_missing(tree, shown)
    merged = _merged(shown, joining)
    if shown and not merged:
        has = sorted({path for one, _ in found for path in one.arrays})
        raise ShapeError(
            f"no array matches variables={list(tree.variables or ())}: {join_names(has)}"
        )
    if joining.layout == "concat" and granules and merged:
        _check_dimension(tree, merged, str(joining.dim))
    problems: list[str] = []
    stacks = [_stack(tree, joining, members, problems) for members in merged]
    if problems:
        raise ShapeError(_told(problems, joining))
    names = _titles(tree, stacks)
    description = {
        **tree.description,
        "layout": joining.layout,
        **({"dim": joining.dim} if joining.dim is not None else {}),
        "encoding": joining.encoding,
        "ragged": joining.ragged,
    }
    if len(stacks) > 1:
        description["stacks"] = {
            name: _described(stack) for name, stack in zip(names, stacks, strict=True)
        }
    return Joined(tree, joining, description, dict(zip(names, stacks, strict=True)))


def _shown(inventory: Inventory, tree: Tree) -> Inventory:
    """Return what is shown of an inventory, the bounds of times told as the times are."""
    arrays = dict(inventory.arrays)
    for path, array in inventory.arrays.items():
        for named in {v["attributes"].get(n) for v in array.variants for n in BOUNDS} - {None}:
            other = join(path.rpartition("/")[0], str(named))
            if other in arrays and other != path:
                arrays[other] = _as_times(arrays[other], array)
    shown = {path: array for path, array in arrays.items() if tree.shows(path)}
    return Inventory(inventory.name, inventory.rows, shown, inventory.groups)


def _as_times(bounds: ArrayInventory, times: ArrayInventory) -> ArrayInventory:
    """Return bounds with the units and calendar of their times, where they have none."""
    pairs, which = np.unique(
        np.stack([bounds.variant_index, times.variant_index], axis=1), axis=0, return_inverse=True
    )
    variants = []
    for own, other in pairs.tolist():
        variant, said = bounds.variants[own], times.variants[other]["attributes"]
        added = {name: said[name] for name in TIMES if name in said} if is_time(said) else {}
        variants.append({**variant, "attributes": added | variant["attributes"]})
    return replace(
        bounds, variants=tuple(variants), variant_index=which.reshape(-1).astype(np.int32)
    )


def _warn_of_missing(tree: Tree, inventories: Sequence[Inventory]) -> None:
    there = np.zeros(len(tree.granules), dtype=bool)
    for one in inventories:
        there[one.rows] = True
    missing = np.flatnonzero(~there)
    if len(missing):
        text = (
            f"{len(missing)} of {len(there)} granules have no arrays in "
            f"{tree.description['collection']} and are left out: {tree.granules.some(missing)}"
        )
        warn(text, MissingGranuleWarning)


def _merged(inventories: Sequence[Inventory], joining: Joining) -> list[list[Inventory]]:
    """Return the inventories that are joined with one another."""
    groups: dict[str, list[Inventory]] = {}
    for one in inventories:
        if not one.arrays:
            continue
        told = {}
        for path, array in sorted(one.arrays.items()):
            variant = array.variants[0]
            kept = () if joining.encoding == "unify" else ("data_type", "codecs", "fill_value")
            told[path] = [array.rank, array.dimensions, *(variant[name] for name in kept)]
        groups.setdefault(json.dumps(told), []).append(one)
    return list(groups.values())


def _check_dimension(tree: Tree, merged: Sequence[Sequence[Inventory]], dim: str) -> None:
    each = [
        {name for array in members[0].arrays.values() for name in array.dimensions if name}
        for members in merged
    ]
    if not any(dim in names for names in each):
        raise ShapeError(unknown_name("dimension", dim, sorted(set().union(*each))))
    without = [m for m, names in zip(merged, each, strict=True) if dim not in names]
    if without:
        rows = np.concatenate([one.rows for members in without for one in members])
        names = tree.granules.some(np.sort(rows))
        raise ShapeError(
            f"{len(rows)} of the granules have no dimension {dim} ({names}); search "
            "without them, or name the arrays with variables="
        )


def _stack(
    tree: Tree, joining: Joining, members: Sequence[Inventory], problems: list[str]
) -> Stack:
    """Return the joined arrays of granules of one structure; say what keeps them from it."""
    rows = np.concatenate([one.rows for one in members])
    order = np.argsort(rows, kind="stable")
    taken = {
        name
        for array in members[0].arrays.values()
        for name in array.dimensions
        if name is not None
    }
    dimension = _dimension(tree, joining, taken, members[0].arrays, problems)
    if joining.layout == "concat":
        problems.extend(conflicts(tree, members, str(joining.dim)))
    arrays = {}
    for path in members[0].arrays:
        parts = _parts([one.arrays[path] for one in members], rows, order)
        shared = _in_all(one.arrays[path].attributes for one in members)
        array = _array(tree, joining, parts, shared, dimension, problems)
        if array is not None:
            arrays[path] = array
    groups: dict[str, JSON] = {
        path: _in_all(one.groups[path].attributes if path in one.groups else {} for one in members)
        for path in members[0].groups
    }
    for path in members[0].arrays:
        parents = path.split("/")[:-1]
        for end in range(1, len(parents) + 1):
            groups.setdefault("/".join(parents[:end]), {})
    groups = {p: said for p, said in groups.items() if not p or _holds(p, arrays)}
    stack = Stack(rows[order], arrays, groups, dimension, tree)
    names = list(field_names(tree.granules.fields, stack.taken).values())
    for path, (name, _, along) in stack.sizes.items():
        if "/" not in path:
            names += [path, f"{name}_{dimension}"] if along else [path]
    groups[""] = _with_coordinates(groups.get("", {}), names)
    return stack


def _in_all(attributes: Iterable[JSON]) -> JSON:
    """Return the attributes that are the same in all."""
    shared: JSON | None = None
    for one in attributes:
        shared = shared_attributes(shared, one)
    return shared or {}


def _holds(group: str, arrays: Iterable[str]) -> bool:
    return any(path.startswith(f"{group}/") for path in arrays)


def _dimension(
    tree: Tree, joining: Joining, taken: set[str], paths: Collection[str], problems: list[str]
) -> str:
    """Return the name of the dimension with an element a granule."""
    fields = tree.granules.fields
    if joining.layout == "stack" and joining.dim is not None and joining.dim in fields:
        if joining.dim in taken:
            problems.append(
                f'the arrays have a dimension "{joining.dim}" already; '
                f'layout="concat" joins along it'
            )
        elif joining.dim in paths:
            problems.append(
                f'there is an array "{joining.dim}" besides the field; leave it out with '
                "variables=, or stack over another field"
            )
        return joining.dim
    return free_name(DIMENSION, {*fields, *taken})


def _parts(
    arrays: Sequence[ArrayInventory], rows: NDArray[np.int64], order: NDArray[np.int64]
) -> Parts:
    """Return the arrays of several inventories as one, in the order of the granules."""
    variants: dict[str, JSON] = {}
    which = []
    for array in arrays:
        numbers = []
        for variant in array.variants:
            text = json.dumps(variant, sort_keys=True)
            variants.setdefault(text, variant)
            numbers.append(list(variants).index(text))
        which.append(np.array(numbers, dtype=np.int32)[array.variant_index])
    shapes, chunk_shapes, starts, stops = (
        np.concatenate([getattr(array, name) for array in arrays])[order]
        for name in ("shapes", "chunk_shapes", "begins", "ends")
    )
    return Parts(
        path=arrays[0].path,
        rows=rows[order],
        variants=tuple(variants.values()),
        which=np.concatenate(which)[order],
        shapes=shapes,
        chunk_shapes=chunk_shapes,
        starts=starts,
        stops=stops,
    )


def _array(
    tree: Tree,
    joining: Joining,
    parts: Parts,
    attributes: JSON,
    dimension: str,
    problems: list[str],
) -> JoinedArray | None:
    """Return the joined array of some parts; None, and why, where they can't be joined."""
    names = parts.variants[0].get("dimension_names") or (None,) * parts.rank
    axis = None
    if joining.layout == "concat" and joining.dim in names:
        axis = names.index(joining.dim)
        if names.count(joining.dim) > 1:
            problems.append(
                f"{parts.path} has the dimension {joining.dim} twice; leave it out with variables="
            )
            return None
    if trouble := differences(tree, joining, parts, axis):
        problems.extend(trouble)
        return None
    lengths = parts.lengths
    sizes = lengths.max(axis=0, initial=0)
    if axis is not None:
        sizes[axis] = lengths[:, axis].sum()
    others = np.delete(lengths, axis, axis=1) if axis is not None else lengths
    padded = bool((others != others[:1]).any())
    chunks = _common_chunks(parts, axis)
    try:
        form = _form(parts, joining, padded, lift=axis is None)
    except (ValueError, TypeError, OverflowError) as error:  # of NumPy's, zarr's and xarray's
        problems.append(
            f"{parts.path} can't be brought into one encoding ({first_line(error)}); leave it "
            "out with variables="
        )
        return None
    warn_of_kinds(tree, parts)
    dropped = (PACKING | RANGES) if form.decoded and _is_packed(parts) else PACKING
    if form.decoded or is_time(attributes):
        dropped |= TIMES if any(is_time(v["attributes"]) for v in parts.variants) else frozenset()
    kept = {name: said for name, said in attributes.items() if name not in dropped}
    for name, said in meaning_of(parts.variants[0]).items():
        kept.setdefault(name, said)  # told in other words elsewhere
    if padded and form.dtype.kind in "iub" and not form.has_missing:
        warn(
            f"{parts.path} has no fill value of its own: {form.fill_value!r} stands for what "
            "isn't there, beyond the sizes of each granule that the view tells",
            L2ViewWarning,
        )
    array = JoinedArray(
        parts=parts,
        form=form,
        attributes=kept | form.attributes,
        dimensions=tuple(names) if axis is not None else (dimension, *names),
        shape=tuple(sizes.tolist()) if axis is not None else (len(parts.rows), *sizes.tolist()),
        chunk_shape=chunks,
        axis=axis,
    )
    return array.unsharded


def _is_packed(parts: Parts) -> bool:
    return any(not variant["attributes"].keys().isdisjoint(SCALING) for variant in parts.variants)


def _told(problems: Sequence[str], joining: Joining) -> str:
    """Return what an error says of all differences, a few of them in whole."""
    how = "stacked" if joining.layout == "stack" else f"joined along {joining.dim}"
    more = len(problems) - SHOWN
    lines = [*problems[:SHOWN], *([f"and {more} more"] if more > 0 else [])]
    return f"the granules can't be {how}:\n  " + "\n  ".join(lines)


def _common_chunks(parts: Parts, axis: int | None) -> tuple[int, ...]:
    """Return the chunk shape that most parts have, the larger of two that come as often."""
    if parts.rank == 0 or not len(parts.rows):
        return (1,) * parts.rank
    chunks = parts.chunk_shapes.copy()
    if axis is not None:
        chunks[:, axis] = 1
    kinds, counts = np.unique(chunks, axis=0, return_counts=True)
    volumes = kinds.astype(np.float64).prod(axis=1)
    best = max(range(len(kinds)), key=lambda i: (counts[i], volumes[i]))
    return tuple(max(length, 1) for length in kinds[best].tolist())


def _form(parts: Parts, joining: Joining, padded: bool, lift: bool) -> ArrayEncoding:
    """Return the form in which the values of some parts are given."""
    weights = np.bincount(parts.which, minlength=len(parts.variants))
    variants = [v for v, weight in zip(parts.variants, weights, strict=True) if weight]
    first = parts.variants[int(np.argmax(weights))]
    alike = all(
        variant["data_type"] == first["data_type"]
        and Packing.of_document(variant) == Packing.of_document(first)
        for variant in variants
    )
    if alike and not (padded and joining.encoding == "unify" and _needs_missing(first)):
        codecs = _common_codecs(parts.variants, weights, lift)
        plain = ArrayEncoding.of_values(native_dtype(first["data_type"]))
        return ArrayEncoding.stored(first, codecs or plain.codecs, padded=padded)
    dtype = common_dtype([Packing.of_document(variant).decoded_dtype for variant in variants])
    plain = ArrayEncoding.of_values(dtype)
    passing = np.array(
        [
            weight
            if Packing.of_document(v).is_identity and v["data_type"] == plain.data_type
            else 0
            for v, weight in zip(parts.variants, weights, strict=True)
        ]
    )
    return ArrayEncoding.of_values(dtype, _common_codecs(parts.variants, passing, lift))


def _needs_missing(variant: JSON) -> bool:
    """Return whether only its values, and no stored number, can say that nothing is there."""
    packing = Packing.of_document(variant)
    return packing.missing_scalar is None and packing.decoded_dtype.kind not in "iubUSTO"


def _common_codecs(
    variants: Sequence[JSON], weights: NDArray[np.int64], lift: bool
) -> list[JSON] | None:
    """Return the codecs that most granules have, None where none can be taken."""
    counted: Counter[str] = Counter()
    for variant, weight in zip(variants, weights.tolist(), strict=True):
        if weight and (not lift or with_leading_axis(variant["codecs"]) is not None):
            counted[json.dumps(variant["codecs"])] += weight
    return json.loads(counted.most_common(1)[0][0]) if counted else None


def _with_coordinates(attributes: JSON, names: Sequence[str]) -> JSON:
    """Return a group's attributes that say which of its arrays are coordinates."""
    known = str(attributes.get("coordinates", "")).split()
    plain = [name for name in names if " " not in name]
    return {**attributes, "coordinates": " ".join(dict.fromkeys([*known, *plain]))}


def _titles(tree: Tree, stacks: Sequence[Stack]) -> list[str]:
    """Return a name for each stack, ``""`` for one alone."""
    if len(stacks) == 1:
        return [""]
    for field in TITLES:
        if field not in tree.granules.fields:
            continue
        column = tree.granules.table.column(field)
        values = [set(column.take(pa.array(stack.rows)).unique().to_pylist()) for stack in stacks]
        names = [str(next(iter(one))).replace("/", "_") if len(one) == 1 else "" for one in values]
        usable = all(name and not name.startswith((".", "__")) for name in names)
        if usable and len(set(names)) == len(names):
            return names
    return [f"stack_{number}" for number in range(len(stacks))]


def _described(stack: Stack) -> JSON:
    """Return what the root says of one of several stacks."""
    return {"granules": len(stack.rows), "arrays": list(stack.arrays)}
