"""Granules joined into arrays: side by side in a stack, or end to end.

What is joined is planned once, when a view is opened (`l2view.virtual.join_plan`). Nothing of it
holds a value of the arrays.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import NDArray

from l2view.errors import QueryError
from l2view.stores.composed import ChunkSource
from l2view.stores.hierarchy import JSON, join
from l2view.text import unknown_name
from l2view.virtual.attributes import OWN
from l2view.virtual.fields import FieldArray, field_arrays, free_name, owner_array
from l2view.virtual.join_array import JoinedArray
from l2view.virtual.pickling import array_of, array_state
from l2view.virtual.tree import Tree

type ShapeName = Literal["tree", "stack", "concat"]
"""A view's shape: granules as groups, side by side, or end to end."""

type EncodingName = Literal["keep", "unify"]
"""What becomes of granules that are encoded in different ways: an error, or one encoding."""

type RaggedName = Literal["error", "pad"]
"""What becomes of granules of different shapes: an error, or the fill value beyond theirs."""

NO_ROWS = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Joining:
    """How granules shall be joined.

    Attributes
    ----------
    layout
        Side by side or end to end.
    dim
        The dimension along which; None for one of its own in a stack.
    encoding, ragged
        What becomes of those that differ.
    """

    layout: ShapeName
    dim: str | None = None
    encoding: EncodingName = "keep"
    ragged: RaggedName = "error"

    @classmethod
    def of(
        cls, layout: ShapeName, dim: str | None, encoding: EncodingName, ragged: RaggedName
    ) -> Joining | None:
        """Return how granules shall be joined, None where each is to be a group.

        Raises
        ------
        QueryError
            Where there is no such layout, or what the others say has no use in it.
        """
        for name, value, known in (
            ("layout", layout, get_args(ShapeName.__value__)),
            ("encoding", encoding, get_args(EncodingName.__value__)),
            ("ragged", ragged, get_args(RaggedName.__value__)),
        ):
            if value not in known:
                raise QueryError(unknown_name(f"{name}=", str(value), known, f"{name}= takes"))
        if layout != "tree":
            return cls(layout, dim, encoding, ragged)
        if dim is not None or encoding != "keep" or ragged != "error":
            raise QueryError(
                'dim=, encoding= and ragged= say how granules are joined: pass layout="stack" or '
                '"concat" as well'
            )
        return None


@dataclass(frozen=True, eq=False)
class Stack:
    """The joined arrays of granules of one structure.

    Attributes
    ----------
    rows
        The granules, of shape (n,).
    arrays
        By path.
    groups
        The attributes of its groups, by path; ``""`` for its own.
    dimension
        The name of the dimension with an element a granule.
    tree
        The granules of the view.
    """

    rows: NDArray[np.int64]
    arrays: Mapping[str, JoinedArray]
    groups: Mapping[str, JSON]
    dimension: str
    tree: Tree

    def __getstate__(self) -> JSON:
        kept = {one.name: getattr(self, one.name) for one in fields(self)}
        # The arrays' parts hold the same rows, which are told once.
        parts = {path: replace(a.parts, rows=NO_ROWS) for path, a in self.arrays.items()}
        arrays = {path: replace(a, parts=parts[path]) for path, a in self.arrays.items()}
        return kept | {"rows": array_state(self.rows), "arrays": arrays}

    def __setstate__(self, state: JSON) -> None:
        rows = array_of(state["rows"])
        arrays = {
            path: replace(array, parts=replace(array.parts, rows=rows))
            for path, array in state["arrays"].items()
        }
        self.__dict__.update(state | {"rows": rows, "arrays": arrays})

    @property
    def taken(self) -> set[str]:
        """The names of the arrays and groups directly below."""
        return {path.partition("/")[0] for path in (*self.arrays, *self.groups) if path}

    @cached_property
    def fields(self) -> dict[str, FieldArray]:
        """Arrays of a value a granule, by path: the fields, and how much each granule has."""
        table = self.tree.granules.table
        if len(self.rows) != len(table):
            table = table.take(pa.array(self.rows))
        found = field_arrays(table, self.tree.field_attributes, self.dimension)
        names = field_names(list(found), self.taken)
        named = {names[name]: array for name, array in found.items()}
        for path, (dimension, sizes, ragged) in self.sizes.items():
            array = field_arrays(pa.table({path: pa.array(sizes)}), {}, self.dimension)[path]
            array.document["attributes"] |= {
                "long_name": f"number of {dimension} of each granule",
                **({"sample_dimension": dimension} if ragged else {}),
            }
            named[path] = array
            owners = join(path.rpartition("/")[0], f"{dimension}_{self.dimension}")
            if ragged and owners not in {*named, *self.arrays}:
                named[owners] = owner_array(sizes, dimension, self.dimension)
        return named

    @cached_property
    def sizes(self) -> dict[str, tuple[str, NDArray[np.int64], bool]]:
        """How much each granule has along a dimension in which they may differ, by path.

        With the dimension's name, and whether granules lie end to end along it.
        """
        found: dict[str, tuple[str, NDArray[np.int64], bool]] = {}
        for path, array in self.arrays.items():
            own = array.dimensions if array.axis is not None else array.dimensions[1:]
            shape = array.shape[len(array.shape) - len(own) :]
            for axis, name in enumerate(own):
                if name is None:
                    continue
                lengths = array.parts.lengths[:, axis]
                size = join(path.rpartition("/")[0], f"{name}_size")
                taken = {*self.tree.granules.fields, *self.arrays, *found}
                along = axis == array.axis
                if size not in taken and (along or (lengths != shape[axis]).any()):
                    found[size] = (name, lengths, along)
        return found

    def document(self, path: str) -> JSON | None:
        """Return the Zarr v3 document of the node at `path`, None where there is none."""
        if path in self.groups:
            return {"zarr_format": 3, "node_type": "group", "attributes": self.groups[path]}
        found = self.arrays.get(path) or self.fields.get(path)
        return None if found is None else found.document

    def names(self, path: str) -> list[str]:
        """Return the names of the nodes directly below the group at `path`."""
        prefix = f"{path}/" if path else ""
        inside = [p for p in (*self.fields, *self.arrays, *self.groups) if p.startswith(prefix)]
        return list(dict.fromkeys(p[len(prefix) :].split("/", 1)[0] for p in inside if p))


class Joined:
    """A view whose granules are joined into arrays.

    Parameters
    ----------
    tree
        The granules.
    joining
        How they are joined.
    description
        What the root's attribute ``l2view`` says.
    stacks
        The joined arrays by the name of their group, ``""`` where they are the root's.
    """

    def __init__(
        self, tree: Tree, joining: Joining, description: JSON, stacks: Mapping[str, Stack]
    ) -> None:
        self.tree = tree
        self.joining = joining
        self.description = description
        self.stacks = dict(stacks)
        arrays = [array for stack in stacks.values() for array in stack.arrays.values()]
        if any(array.axis is not None and not array.is_regular for array in arrays):
            # zarr reads such arrays only where this is on, also in another process.
            zarr.config.set({"array.rectilinear_chunks": True})

    def __getstate__(self) -> JSON:
        names = ["tree", "joining", "description", "stacks"]
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: JSON) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Joined)
            and self.tree == other.tree
            and self.description == other.description
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def root(self) -> JSON:
        """The document of the root group."""
        attributes = self.stacks[""].groups[""] if "" in self.stacks else {}
        attributes = {**attributes, OWN: self.description}
        return {"zarr_format": 3, "node_type": "group", "attributes": attributes}

    @property
    def members(self) -> int:
        """The number of nodes directly below the root."""
        return len(self._names(""))

    @property
    def paths(self) -> list[str]:
        """The paths of all joined arrays and fields."""
        return [
            join(name, path)
            for name, stack in self.stacks.items()
            for path in (*stack.arrays, *stack.fields)
        ]

    async def load(self, path: str) -> None:
        """Read the fields again, where `path` is neither a group nor a joined array."""
        stack, inner = self._inside(path)
        if stack is not None and not {inner, split(inner)[0]} & {*stack.groups, *stack.arrays}:
            await self.tree.granules.load()

    async def document(self, path: str) -> JSON | None:
        """Return the Zarr v3 document of the node at `path`, None where there is none."""
        if not path:
            return self.root
        await self.load(path)
        stack, inner = self._inside(path)
        return None if stack is None else stack.document(inner)

    async def documents(self, paths: Sequence[str]) -> list[JSON | None]:
        """Return the documents of the nodes at `paths`."""
        return [await self.document(path) for path in paths]

    async def names(self, path: str) -> list[str]:
        """Return the names of the nodes directly below the group at `path`."""
        await self.tree.granules.load()
        return self._names(path)

    def _names(self, path: str) -> list[str]:
        if not path and "" not in self.stacks:
            return list(self.stacks)
        stack, inner = self._inside(path)
        return [] if stack is None else stack.names(inner)

    def _inside(self, path: str) -> tuple[Stack | None, str]:
        """Return the stack that `path` is in, and the path below it."""
        if "" in self.stacks:
            return self.stacks[""], path
        name, _, inner = path.partition("/")
        return self.stacks.get(name), inner

    def find(self, key: str) -> ChunkSource:
        """Return where the chunk at `key` comes from."""
        stack, inner = self._inside(key)
        path, rest = split(inner)
        if stack is None:
            return None
        if (array := stack.arrays.get(path)) is not None:
            return array.find(self.tree.reader, rest)
        field = stack.fields.get(path)
        return None if field is None else field.chunk_at(rest)

    async def chunk_keys(self, path: str) -> AsyncIterator[str]:
        """Yield the keys of the chunks that there are of the array at `path`."""
        stack, inner = self._inside(path)
        if stack is None:
            return
        if (array := stack.arrays.get(inner)) is not None:
            async for key in array.keys(self.tree.reader):
                yield f"{path}/{key}"
        elif (field := stack.fields.get(inner)) is not None:
            for key in field.keys:
                yield f"{path}/{key}"


def split(key: str) -> tuple[str, str]:
    """Return the path of the array that a chunk's key is of, and the key below it.

    Examples
    --------
    >>> split("data/sst/c/0/1"), split("orbit/c")
    (('data/sst', 'c/0/1'), ('orbit', 'c'))
    """
    path, found, rest = key.rpartition("/c/")
    if not found and key.endswith("/c"):
        return key.removesuffix("/c"), "c"
    return path, f"c/{rest}"


def field_names(fields: Sequence[str], taken: Collection[str]) -> dict[str, str]:
    """Return what fields are called beside the joined arrays and groups.

    Examples
    --------
    >>> field_names(["id", "time"], ["time", "granule_time"])
    {'id': 'id', 'time': 'granule_time_'}
    """
    known = {*taken, *fields}
    return {
        name: name if name not in taken else free_name(f"granule_{name}", known) for name in fields
    }
