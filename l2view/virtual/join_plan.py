"""The plan of joined granules: which of them go together, in what encoding, under which names.

It is made of what the layout tells of all granules together (`l2view.granules.table`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from zarr.core.sync import sync

from l2view.arrays.cf import BOUNDS, PACKING, RANGES, SCALING, TIMES, Packing, is_time, meaning_of
from l2view.arrays.dtypes import common_dtype, native_dtype
from l2view.arrays.encoding import ArrayEncoding
from l2view.errors import L2ViewWarning, MissingGranuleWarning, ShapeError, warn
from l2view.granules.profile import with_leading_axis
from l2view.granules.table import ArrayTable, GranuleTable, find_variants, shared_attributes
from l2view.stores.hierarchy import JSON, join, parents
from l2view.text import first_line, join_names, unknown_name
from l2view.virtual.fields import DIMENSION, free_name
from l2view.virtual.join_array import JoinedArray
from l2view.virtual.join_conflicts import MemberArrays, dimension_conflicts
from l2view.virtual.join_shape import JoinedGroup, JoinedView, JoinOptions, field_names
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
"""The fields by which groups of joined granules are named, the first that tells them apart."""

MAX_PROBLEMS = 6  # how many differences an error lists


def plan_join(tree: Tree, options: JoinOptions) -> JoinedView:
    """Plan how the granules of a tree are joined, reading none of their values.

    A `ShapeError` names granules that differ, in what, and what else can be done.
    """
    fields = tree.granules.fields
    if options.layout == "stack" and options.dim not in (None, DIMENSION, *fields):
        raise ShapeError(
            unknown_name("field", str(options.dim), fields)
            + ". A field that is left out by fields= can't be stacked over, and along a dimension "
            'of the arrays layout="concat" joins'
        )
    if options.layout == "concat" and options.dim is None:
        raise ShapeError('layout="concat" joins along a dimension of the arrays: name it with dim=')
    stored = sync(tree.tables())
    tables = [_select_variables(table, tree) for table in stored]
    warn_of_missing(tree, [table for table in stored if table.arrays])
    structures = _by_structure(tables, options)
    if tables and not structures:
        paths = join_names(sorted({path for table in stored for path in table.arrays}))
        raise ShapeError(f"no array matches variables={list(tree.variables or ())}: {paths}")
    if options.layout == "concat" and tree.granules and structures:
        _require_dimension(tree, structures, str(options.dim))
    planner = _Planner(tree, options)
    groups = [planner.group(members) for members in structures]
    planner.raise_problems()
    names = _group_names(tree, groups)
    joined = {name: value for name, value in asdict(options).items() if value is not None}
    description = {**tree.description, **joined}
    if len(groups) > 1:
        description["stacks"] = {
            name: {"granules": len(group.rows), "arrays": list(group.arrays)}
            for name, group in zip(names, groups, strict=True)
        }
    return JoinedView(tree, options, description, dict(zip(names, groups, strict=True)))


def _select_variables(table: GranuleTable, tree: Tree) -> GranuleTable:
    """Return the arrays that a view shows, the bounds of times with the units of the times."""
    arrays = dict(table.arrays)
    for path, array in table.arrays.items():
        for name in {v["attributes"].get(n) for v in array.variants for n in BOUNDS} - {None}:
            bounds = join(path.rpartition("/")[0], str(name))
            if bounds in arrays and bounds != path:
                arrays[bounds] = _with_time_units(arrays[bounds], array)
    return replace(table, arrays={p: a for p, a in arrays.items() if tree.shows(p)})


def _with_time_units(bounds: ArrayTable, times: ArrayTable) -> ArrayTable:
    """Return bounds with the units and calendar of their times, where they have none."""
    pairs, index = np.unique(
        np.stack([bounds.variant_index, times.variant_index], axis=1), axis=0, return_inverse=True
    )
    variants = []
    for bounds_variant, times_variant in pairs.tolist():
        variant = bounds.variants[bounds_variant]
        attributes = times.variants[times_variant]["attributes"]
        units = {n: attributes[n] for n in TIMES if n in attributes} if is_time(attributes) else {}
        variants.append({**variant, "attributes": units | variant["attributes"]})
    return replace(
        bounds, variants=tuple(variants), variant_index=index.reshape(-1).astype(np.int32)
    )


def warn_of_missing(tree: Tree, tables: Sequence[GranuleTable]) -> None:
    """Warn of the granules that have no arrays."""
    numbers = np.arange(len(tree.granules))
    missing = reduce(np.setdiff1d, (table.rows for table in tables), numbers)
    if len(missing):
        problem = f"have no arrays in {tree.description['collection']}, and are left out"
        warn(tree.granules.describe(missing, problem), MissingGranuleWarning)


def _by_structure(tables: Sequence[GranuleTable], options: JoinOptions) -> list[list[GranuleTable]]:
    """Return the tables with arrays, those together that are joined with one another."""
    compared = () if options.encoding == "unify" else ("data_type", "codecs", "fill_value")
    structures: dict[str, list[GranuleTable]] = {}
    for table in tables:
        structure = {
            path: [array.rank, array.dimensions, *(array.variants[0][name] for name in compared)]
            for path, array in sorted(table.arrays.items())
        }
        if structure:
            structures.setdefault(json.dumps(structure), []).append(table)
    return list(structures.values())


def _require_dimension(tree: Tree, structures: Sequence[Sequence[GranuleTable]], dim: str) -> None:
    """Raise where granules have no dimension of that name."""
    dimensions = [
        {name for array in members[0].arrays.values() for name in array.dimensions if name}
        for members in structures
    ]
    if not any(dim in dims for dims in dimensions):
        raise ShapeError(unknown_name("dimension", dim, sorted(set().union(*dimensions))))
    pairs = zip(structures, dimensions, strict=True)
    lacking = [t.rows for members, dims in pairs if dim not in dims for t in members]
    if lacking:
        rows = np.sort(np.concatenate(lacking))
        problem = tree.granules.describe(rows, f"have no dimension {dim}")
        raise ShapeError(f"{problem}; search without them, or name the arrays with variables=")


@dataclass(frozen=True, eq=False)
class _Planner:
    """Plans joined arrays, and collects what keeps granules from being joined."""

    tree: Tree
    options: JoinOptions
    problems: list[str] = field(default_factory=list)

    def raise_problems(self) -> None:
        """Raise an error of all problems, a few of them in full."""
        if not self.problems:
            return
        how = "stacked" if self.options.layout == "stack" else f"joined along {self.options.dim}"
        lines = self.problems[:MAX_PROBLEMS]
        if (more := len(self.problems) - MAX_PROBLEMS) > 0:
            lines.append(f"and {more} more")
        raise ShapeError(f"the granules can't be {how}:\n  " + "\n  ".join(lines))

    def group(self, members: Sequence[GranuleTable]) -> JoinedGroup:
        """Return the joined arrays of granules of one structure."""
        rows = np.concatenate([table.rows for table in members])
        order = np.argsort(rows, kind="stable")
        rows, paths = rows[order], members[0].arrays
        dimension = self._dimension(paths)
        if self.options.layout == "concat":
            dim = str(self.options.dim)
            self.problems.extend(dimension_conflicts(self.tree.granules, members, dim))
        arrays = {}
        for path in paths:
            table = _merge_arrays([table.arrays[path] for table in members], order)
            array = self._array(rows, table, dimension)
            if array is not None:
                arrays[path] = array
        attributes = _group_attributes(members, arrays)
        group = JoinedGroup(rows, arrays, attributes, dimension, self.tree)
        names = list(field_names(self.tree.granules.fields, group.names).values())
        for path, (name, _, is_axis) in group.sizes.items():
            if "/" not in path:
                names += [path, f"{name}_{dimension}"] if is_axis else [path]
        own = attributes.get("", {})
        coordinates = [*str(own.get("coordinates", "")).split(), *names]
        shown = " ".join(dict.fromkeys(name for name in coordinates if " " not in name))
        attributes[""] = {**own, "coordinates": shown}
        return group

    def _dimension(self, arrays: Mapping[str, ArrayTable]) -> str:
        """Return the name of the dimension with an element a granule."""
        fields, dim = self.tree.granules.fields, self.options.dim
        names = {n for array in arrays.values() for n in array.dimensions if n is not None}
        if self.options.layout != "stack" or dim is None or dim not in fields:
            return free_name(DIMENSION, {*fields, *names})
        if dim in names:
            self.problems.append(
                f'the arrays have a dimension "{dim}" already; layout="concat" joins along it'
            )
        elif dim in arrays:
            self.problems.append(
                f'there is an array "{dim}" besides the field; leave it out with variables=, or '
                "stack over another field"
            )
        return dim

    def _array(
        self, rows: NDArray[np.int64], table: ArrayTable, dimension: str
    ) -> JoinedArray | None:
        """Return the joined array of some granules' arrays, None where there are problems."""
        options, names = self.options, table.dimensions
        axis = None
        if options.layout == "concat" and options.dim in names:
            axis = names.index(options.dim)
            if names.count(options.dim) > 1:
                self.problems.append(
                    f"{table.path} has the dimension {options.dim} twice; leave it out with "
                    "variables="
                )
                return None
        members = MemberArrays(self.tree.granules, rows, table, axis)
        if conflicts := members.conflicts(options):
            self.problems.extend(conflicts)
            return None
        shape = table.lengths.max(axis=0, initial=0)
        if axis is not None:
            shape[axis] = table.lengths[:, axis].sum()
        compared = members.across(table.lengths)
        is_padded = bool((compared != compared[:1]).any())
        try:
            encoding = _choose_encoding(table, options, is_padded, in_stack=axis is None)
        except (ValueError, TypeError, OverflowError) as error:  # of NumPy's, zarr's and xarray's
            self.problems.append(
                f"{table.path} can't be brought into one encoding ({first_line(error)}); "
                "leave it out with variables="
            )
            return None
        members.warn_of_kinds()
        if is_padded and encoding.dtype.kind in "iub" and not encoding.has_missing:
            warn(
                f"{table.path} has no fill value of its own: {encoding.fill_value!r} stands "
                "for what isn't there, beyond the sizes of each granule that the view tells",
                L2ViewWarning,
            )
        return JoinedArray(
            rows,
            replace(table, attributes={}),
            encoding,
            _joined_attributes(table, encoding),
            names if axis is not None else (dimension, *names),
            tuple(shape.tolist()) if axis is not None else (len(rows), *shape.tolist()),
            _common_chunks(table, axis),
            axis,
        ).with_encodable_codecs()


def _group_attributes(members: Sequence[GranuleTable], arrays: Collection[str]) -> dict[str, JSON]:
    """Return the attributes that the granules' groups share, by path."""
    implied = {group for path in members[0].arrays for group in parents(path)}
    return {
        path: shared_attributes(
            [table.groups[path].attributes if path in table.groups else {} for table in members]
        )
        for path in [*members[0].groups, *sorted(implied - members[0].groups.keys())]
        if not path or any(array.startswith(f"{path}/") for array in arrays)
    }


def _joined_attributes(table: ArrayTable, encoding: ArrayEncoding) -> JSON:
    """Return the attributes that all granules share, and those of the encoding."""
    variants = [variant["attributes"] for variant in table.variants]
    packed = any(not attributes.keys().isdisjoint(SCALING) for attributes in variants)
    dropped = (PACKING | RANGES) if encoding.decoded and packed else PACKING
    if (encoding.decoded or is_time(table.attributes)) and any(map(is_time, variants)):
        dropped |= TIMES
    attributes = {n: value for n, value in table.attributes.items() if n not in dropped}
    # What means the same may be told in other words by some granules.
    meaning = meaning_of(table.variants[0])
    added = {name: value for name, value in meaning.items() if name not in attributes}
    return attributes | added | encoding.attributes


def _merge_arrays(arrays: Sequence[ArrayTable], order: NDArray[np.intp]) -> ArrayTable:
    """Return the arrays of several tables as one, in the order of the granules."""
    offsets = np.cumsum([0, *(len(array.variants) for array in arrays)]).tolist()
    indices = [array.variant_index + n for array, n in zip(arrays, offsets[:-1], strict=True)]
    documents = [variant for array in arrays for variant in array.variants]
    variants, index, _ = find_variants(documents, np.concatenate(indices)[order])
    columns: Any = {
        name: np.concatenate([getattr(array, name) for array in arrays])[order]
        for name in ("shapes", "chunk_shapes", "starts", "stops")
        if getattr(arrays[0], name) is not None
    }
    shared = shared_attributes([array.attributes for array in arrays])
    return replace(arrays[0], variants=variants, variant_index=index, attributes=shared, **columns)


def _common_chunks(table: ArrayTable, axis: int | None) -> tuple[int, ...]:
    """Return the chunk shape that most granules have, the larger of two that come as often."""
    if table.rank == 0 or not len(table.shapes):
        return (1,) * table.rank
    chunks = table.chunk_shapes.copy()
    if axis is not None:
        chunks[:, axis] = 1
    shapes, counts = np.unique(chunks, axis=0, return_counts=True)
    volumes = shapes.astype(np.float64).prod(axis=1)
    best = max(range(len(shapes)), key=lambda i: (counts[i], volumes[i]))
    return tuple(max(length, 1) for length in shapes[best].tolist())


def _choose_encoding(
    table: ArrayTable, options: JoinOptions, is_padded: bool, in_stack: bool
) -> ArrayEncoding:
    """Return the encoding that lets most chunks pass unchanged."""
    weights = np.bincount(table.variant_index, minlength=len(table.variants))
    packings = [Packing.of_document(variant) for variant in table.variants]
    weighted = list(zip(table.variants, packings, weights.tolist(), strict=True))
    common, packing, _ = weighted[int(np.argmax(weights))]
    same_numbers = all(
        variant["data_type"] == common["data_type"] and own == packing
        for variant, own, weight in weighted
        if weight
    )
    # Without one, only a value and no stored number can say that nothing is there.
    has_missing = packing.missing_scalar is not None or packing.decoded_dtype.kind in "iubUSTO"
    if same_numbers and (has_missing or not (is_padded and options.encoding == "unify")):
        codecs = _common_codecs([(variant, n) for variant, _, n in weighted], in_stack)
        codecs = codecs or ArrayEncoding.of_values(native_dtype(common["data_type"])).codecs
        return ArrayEncoding.of_variant(common, codecs, padded=is_padded)
    dtype = common_dtype([own.decoded_dtype for _, own, weight in weighted if weight])
    data_type = ArrayEncoding.of_values(dtype).data_type
    unchanged = [
        (variant, weight)
        for variant, own, weight in weighted
        if own.is_identity and variant["data_type"] == data_type
    ]
    return ArrayEncoding.of_values(dtype, _common_codecs(unchanged, in_stack))


def _common_codecs(weighted: Sequence[tuple[JSON, int]], in_stack: bool) -> Sequence[JSON] | None:
    """Return the codecs that most granules have, None where none are usable."""
    counts: Counter[str] = Counter()
    for variant, weight in weighted:
        if weight and (not in_stack or with_leading_axis(variant["codecs"]) is not None):
            counts[json.dumps(variant["codecs"])] += weight
    codecs: Sequence[JSON] | None = json.loads(counts.most_common(1)[0][0]) if counts else None
    return codecs


def _group_names(tree: Tree, groups: Sequence[JoinedGroup]) -> list[str]:
    """Return a name for each group of joined arrays, ``""`` for a single one."""
    if len(groups) == 1:
        return [""]
    for title in TITLES:
        if title not in tree.granules.fields:
            continue
        column = tree.granules.table.column(title)
        values = [column.take(pa.array(group.rows)).unique().to_pylist() for group in groups]
        names = [str(v[0]).replace("/", "_") if len(v) == 1 else "" for v in values]
        usable = all(name and not name.startswith((".", "__")) for name in names)
        if usable and len(set(names)) == len(names):
            return names
    return [f"stack_{number}" for number in range(len(groups))]
