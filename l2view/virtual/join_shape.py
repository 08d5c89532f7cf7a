"""Granules joined into arrays: stacked along a new dimension, or concatenated along their own.

What is joined is planned once, when a view is opened (`l2view.virtual.join_plan`). Nothing of it
holds a value of the arrays.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import NDArray

from l2view.errors import QueryError
from l2view.granules.profile import split_chunk_key
from l2view.stores.composed import ChunkSource
from l2view.stores.hierarchy import JSON, OWN, group_document, join
from l2view.text import unknown_name
from l2view.virtual.fields import FieldArray, field_arrays, free_name, owner_array
from l2view.virtual.join_array import JoinedArray
from l2view.virtual.pickling import Compressed, field_state
from l2view.virtual.tree import Tree

type ShapeName = Literal["tree", "stack", "concat"]
"""A view's shape: granules as groups, stacked, or concatenated."""

type EncodingName = Literal["keep", "unify"]
"""What becomes of granules that are encoded in different ways: an error, or one encoding."""

type RaggedName = Literal["error", "pad"]
"""What becomes of granules of different shapes: an error, or the fill value beyond theirs."""


@dataclass(frozen=True)
class JoinOptions:
    """How granules are joined; `dim` is None for a new dimension of a stack."""

    layout: ShapeName
    dim: str | None = None
    encoding: EncodingName = "keep"
    ragged: RaggedName = "error"

    @classmethod
    def of(
        cls, layout: ShapeName, dim: str | None, encoding: EncodingName, ragged: RaggedName
    ) -> JoinOptions | None:
        """Check the options, and return None where each granule is to be a group.

        A `QueryError` says that there is no such layout, or the others have no use in it.
        """
        for name, value, type_ in (
            ("layout", layout, ShapeName),
            ("encoding", encoding, EncodingName),
            ("ragged", ragged, RaggedName),
        ):
            if value not in (choices := get_args(type_.__value__)):
                raise QueryError(unknown_name(f"{name}=", str(value), choices, f"{name}= takes"))
        if layout != "tree":
            return cls(layout, dim, encoding, ragged)
        if dim is not None or encoding != "keep" or ragged != "error":
            raise QueryError(
                'dim=, encoding= and ragged= say how granules are joined: pass layout="stack" or '
                '"concat" as well'
            )
        return None


@dataclass(frozen=True, eq=False)
class JoinedGroup:
    """The joined arrays of granules of one structure, by path."""

    rows: NDArray[np.int64]  # the granules, of shape (n,)
    arrays: Mapping[str, JoinedArray]
    groups: Mapping[str, JSON]  # the attributes of its groups, "" for its own
    dimension: str  # that has an element a granule
    tree: Tree

    def __getstate__(self) -> JSON:
        rows: Any = Compressed(self.rows)  # which the arrays hold as well, and travel once
        arrays = {path: replace(array, rows=rows) for path, array in self.arrays.items()}
        return field_state(self) | {"rows": rows, "arrays": arrays}

    @property
    def names(self) -> set[str]:
        """The names of the arrays and groups directly below, without the fields."""
        return {path.partition("/")[0] for path in (*self.arrays, *self.groups) if path}

    @cached_property
    def fields(self) -> dict[str, FieldArray]:
        """Arrays with a value for each granule, by path: the fields and the granules' sizes."""
        table = self.tree.granules.table
        if len(self.rows) != len(table):
            table = table.take(pa.array(self.rows))
        arrays = field_arrays(table, self.tree.field_attributes, self.dimension)
        names = field_names(list(arrays), self.names)
        result = {names[name]: array for name, array in arrays.items()}
        for path, (dimension, sizes, is_axis) in self.sizes.items():
            array = field_arrays(pa.table({path: pa.array(sizes)}), {}, self.dimension)[path]
            array.document["attributes"] |= {
                "long_name": f"number of {dimension} of each granule",
                **({"sample_dimension": dimension} if is_axis else {}),
            }
            result[path] = array
            owner = join(path.rpartition("/")[0], f"{dimension}_{self.dimension}")
            if is_axis and owner not in {*result, *self.arrays}:
                result[owner] = owner_array(sizes, dimension, self.dimension)
        return result

    @cached_property
    def sizes(self) -> dict[str, tuple[str, NDArray[np.int64], bool]]:
        """The granules' lengths along dimensions in which they may differ, by path.

        With the dimension's name, and whether granules are concatenated along it.
        """
        result: dict[str, tuple[str, NDArray[np.int64], bool]] = {}
        for path, array in self.arrays.items():
            dimensions = array.dimensions if array.axis is not None else array.dimensions[1:]
            shape = array.shape[len(array.shape) - len(dimensions) :]
            for axis, name in enumerate(dimensions):
                if name is None:
                    continue
                lengths = array.lengths[:, axis]
                size = join(path.rpartition("/")[0], f"{name}_size")
                reserved = {*self.tree.granules.fields, *self.arrays, *result}
                is_axis = axis == array.axis
                if size not in reserved and (is_axis or (lengths != shape[axis]).any()):
                    result[size] = (name, lengths, is_axis)
        return result

    def document(self, path: str) -> JSON | None:
        """Return the Zarr v3 document of the node at `path`, None where there is none."""
        if path in self.groups:
            return group_document(self.groups[path])
        array = self.arrays.get(path) or self.fields.get(path)
        return None if array is None else array.document

    def children(self, path: str) -> list[str]:
        """Return the names of the nodes directly below the group at `path`."""
        prefix = f"{path}/" if path else ""
        paths = [p for p in (*self.fields, *self.arrays, *self.groups) if p.startswith(prefix)]
        return list(dict.fromkeys(p[len(prefix) :].split("/", 1)[0] for p in paths if p))


@dataclass(frozen=True, eq=False)
class JoinedView:
    """The shape of a view whose granules are joined into arrays.

    The joined groups are by name, ``""`` for one whose arrays are the root's.
    """

    tree: Tree
    options: JoinOptions
    description: JSON
    joined_groups: Mapping[str, JoinedGroup]

    def __post_init__(self) -> None:
        arrays = [a for group in self.joined_groups.values() for a in group.arrays.values()]
        if not all(array.is_regular for array in arrays):
            # zarr reads such arrays only where this is on, also in another process.
            zarr.config.set({"array.rectilinear_chunks": True})

    def __setstate__(self, state: JSON) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, JoinedView):
            return False
        return self.tree == other.tree and self.description == other.description

    __hash__ = None  # type: ignore[assignment]

    @property
    def root(self) -> JSON:
        """The document of the root group."""
        group = self.joined_groups.get("")
        attributes = {**(group.groups[""] if group else {}), OWN: self.description}
        return group_document(attributes)

    @property
    def members(self) -> int:
        """The number of nodes directly below the root."""
        return len(self._children(""))

    @property
    def paths(self) -> list[str]:
        """The paths of all joined arrays and fields."""
        return [
            join(name, path)
            for name, group in self.joined_groups.items()
            for path in (*group.arrays, *group.fields)
        ]

    async def load(self, path: str) -> None:
        """Read the fields again, where `path` is neither a group nor a joined array."""
        group, inner = self._group_of(path)
        if group and not {inner, split_chunk_key(inner)[0]} & {*group.groups, *group.arrays}:
            await self.tree.granules.load()

    async def document(self, path: str) -> JSON | None:
        """Return the Zarr v3 document of the node at `path`, None where there is none."""
        if not path:
            return self.root
        await self.load(path)
        group, inner = self._group_of(path)
        return None if group is None else group.document(inner)

    async def documents(self, paths: Sequence[str]) -> list[JSON | None]:
        """Return the documents of the nodes at `paths`."""
        return [await self.document(path) for path in paths]

    async def names(self, path: str) -> list[str]:
        """Return the names of the nodes directly below the group at `path`."""
        await self.tree.granules.load()
        return self._children(path)

    def _children(self, path: str) -> list[str]:
        if not path and "" not in self.joined_groups:
            return list(self.joined_groups)
        group, inner = self._group_of(path)
        return [] if group is None else group.children(inner)

    def _group_of(self, path: str) -> tuple[JoinedGroup | None, str]:
        """Return the group that `path` is in, and the path below it."""
        if "" in self.joined_groups:
            return self.joined_groups[""], path
        name, _, inner = path.partition("/")
        return self.joined_groups.get(name), inner

    def find(self, key: str) -> ChunkSource:
        """Return where the chunk at `key` comes from."""
        group, inner = self._group_of(key)
        if group is None:
            return None
        path, chunk = split_chunk_key(inner)
        if (array := group.arrays.get(path)) is not None:
            return array.find(self.tree.reader, chunk)
        return group.fields[path].chunk_at(chunk) if path in group.fields else None


def field_names(fields: Sequence[str], reserved: Collection[str]) -> dict[str, str]:
    """Return the names of fields beside joined arrays and groups.

    Examples
    --------
    >>> field_names(["id", "time"], ["time", "granule_time"])
    {'id': 'id', 'time': 'granule_time_'}
    """
    names = {*reserved, *fields}
    return {
        name: name if name not in reserved else free_name(f"granule_{name}", names)
        for name in fields
    }
