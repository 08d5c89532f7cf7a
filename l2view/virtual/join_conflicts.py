"""In what granules differ that are to be joined, for errors and warnings that name them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2view.arrays.cf import KIND, Packing, meaning_of
from l2view.errors import L2ViewWarning, warn
from l2view.granules.profile import with_leading_axis
from l2view.granules.table import ArrayTable, GranuleTable
from l2view.stores.hierarchy import JSON
from l2view.text import join_names
from l2view.virtual.granules import Granules
from l2view.virtual.join_shape import JoinOptions


def same_meaning(name: str, first: Any, second: Any) -> bool:
    """Return whether two values of an attribute in `MEANING` mean the same.

    Units are compared by UDUNITS' rules, where cf-xarray and pint are installed.
    """
    return first == second or (name == "units" and _same_units(str(first), str(second)))


def knows_units() -> bool:
    """Return whether two words for one unit can be told to be the same."""
    return find_spec("cf_xarray") is not None and find_spec("pint") is not None


@lru_cache(maxsize=256)
def _same_units(first: str, second: str) -> bool:
    if not knows_units():
        return False
    from cf_xarray.units import units  # of an extra

    try:
        return bool(units.Unit(first) == units.Unit(second))
    except Exception:  # pint raises what it likes for units that it doesn't know
        return False


@dataclass(frozen=True, eq=False)
class MemberArrays:
    """The arrays of n granules at one path that are to be joined.

    The `rows` are the granules, of shape (n,); `axis` is that along which their arrays are
    concatenated, None in a stack.
    """

    granules: Granules
    rows: NDArray[np.int64]
    table: ArrayTable
    axis: int | None

    def across(self, columns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the columns of the axes that the granules must agree in."""
        return columns if self.axis is None else np.delete(columns, self.axis, axis=1)

    def name(self, member: int) -> str:
        """Return the name of a granule."""
        return self.granules.name(int(self.rows[member]))

    def conflicts(self, options: JoinOptions) -> list[str]:
        """Return what keeps the arrays from being joined."""
        path, variants = self.table.path, self.table.variants
        meanings = [meaning_of(variant) for variant in variants]
        extra = ". Other words for the same unit are told with the extra l2view[units]"
        problems = [
            f"{conflict}, which no encoding makes the same; leave it out with variables="
            + (extra if name == "units" and not knows_units() else "")
            for name, conflict in self._attribute_conflicts(meanings, meanings, same_meaning)
        ]
        if options.ragged == "error":
            way = "" if options.layout == "concat" else ', or layout="concat" and dim='
            shapes, counts = np.unique(self.table.lengths, axis=0, return_counts=True)
            texts = [f"{tuple(s.tolist())} ({n})" for s, n in zip(shapes, counts, strict=True)]
            problems += [
                f'{conflict} (all: {join_names(texts, most=4)}); pass ragged="pad"{way}'
                for conflict in self._length_conflicts(self.table.lengths, "the shape")
            ]
        if options.encoding == "unify":
            return problems
        advice = '; pass encoding="unify"'
        packings = [Packing.of_document(variant) for variant in variants]
        encoded = [packing.to_zarr() for packing in packings]  # in which NaN is equal to NaN
        attributes = [packing.attributes for packing in packings]
        conflicts = self._attribute_conflicts(encoded, attributes, lambda _, a, b: bool(a == b))
        problems += [conflict + advice for _, conflict in conflicts]
        chunks = self._length_conflicts(self.table.chunk_shapes, "chunks of")
        problems += [conflict + advice for conflict in chunks]
        if self.axis is None and with_leading_axis(variants[0]["codecs"]) is None:
            codecs = join_names(codec["name"] for codec in variants[0]["codecs"])
            problems.append(
                f"{path} has codecs that may depend on the shape of a chunk ({codecs}){advice}"
            )
        return problems

    def warn_of_kinds(self) -> None:
        """Warn where the values are of different things, or lie in different CRSs."""
        for name in sorted(KIND):
            values = [variant["attributes"].get(name) for variant in self.table.variants]
            stated = [i for i, value in enumerate(values) if value is not None]
            for variant in stated:
                if values[variant] != values[stated[0]]:
                    conflict = self._attribute_conflict(name, values, stated[0], variant)
                    warn(f"{conflict}; they are joined all the same, cell by cell", L2ViewWarning)
                    break

    def _length_conflicts(self, columns: NDArray[np.int64], kind: str) -> Iterator[str]:
        """Yield a message where granules differ in lengths across the axis."""
        compared = self.across(columns)
        differing = np.flatnonzero((compared != compared[:1]).any(axis=1))
        if len(differing):
            member = int(differing[0])
            first, second = (tuple(columns[i].tolist()) for i in (0, member))
            yield (
                f"{self.table.path} has {kind} {first} in {self.name(0)} and {second} in "
                f"{self.name(member)}"
            )

    def _attribute_conflicts(
        self,
        compared: Sequence[JSON],
        shown: Sequence[Mapping[str, Any]],
        equal: Callable[[str, Any, Any], bool],
    ) -> Iterator[tuple[str, str]]:
        """Yield the attributes in which variants differ, each with a message of what they are."""
        for name in sorted({name for attributes in compared for name in attributes}):
            values = [attributes.get(name) for attributes in compared]
            for variant, value in enumerate(values):
                if not equal(name, values[0], value):
                    texts = [attributes.get(name) for attributes in shown]
                    yield name, self._attribute_conflict(name, texts, 0, variant)
                    break

    def _attribute_conflict(self, name: str, values: Sequence[Any], *variants: int) -> str:
        """Return a message on two variants' values, each with a granule that has it."""
        texts = []
        for variant in variants:
            member = int(np.flatnonzero(self.table.variant_index == variant)[0])
            value = "none" if values[variant] is None else repr(values[variant])
            texts.append(f"{value} in {self.name(member)}")
        return f"{self.table.path}: {name} is {' and '.join(texts)}"


def dimension_conflicts(granules: Granules, tables: Sequence[GranuleTable], dim: str) -> list[str]:
    """Return where arrays of one group of a granule have different lengths along a dimension."""
    problems = []
    for table in tables:
        first_of_group: dict[str, tuple[str, NDArray[np.int64]]] = {}
        for path, array in table.arrays.items():
            if dim not in array.dimensions:
                continue
            lengths = array.lengths[:, array.dimensions.index(dim)]
            group = path.rpartition("/")[0]
            sibling, expected = first_of_group.setdefault(group, (path, lengths))
            differing = np.flatnonzero(expected != lengths)
            if len(differing):
                name = granules.name(int(table.rows[differing[0]]))
                problems.append(
                    f"{path} and {sibling} have different lengths along {dim} in {name}; leave "
                    "one of them out with variables="
                )
    return problems
