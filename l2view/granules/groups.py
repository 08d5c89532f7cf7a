"""Granules as groups: a field holds the path of each granule's group or array."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from l2view.errors import FieldError, SkippedArrayWarning, UnsupportedArrayError, warn
from l2view.granules import Location, UnreadError
from l2view.granules.inventory import ArrayInventory, Inventory, SourceArray, Variants
from l2view.stores.hierarchy import JSON, Hierarchy, join, resolve
from l2view.text import unknown_name

type Nodes = tuple[dict[str, JSON], dict[str, JSON]]
"""The documents of a granule's arrays by path, and the attributes of its groups."""

ALONE = "data"
"""What an array that is a granule is called beside others, whatever its own name."""

CONCURRENCY = 128
"""How many granules are read at a time."""

LOCATIONS = ("group_path", "array_location", "path", "id")
"""Fields that are taken as a granule's path, the first that there is."""


def location_field(names: Sequence[str], named: str | None = None) -> str | None:
    """Return the field that holds the paths of granules, None where there is none.

    Raises
    ------
    FieldError
        Where `named` is no field.
    """
    if named is not None:
        if named not in names:
            raise FieldError(unknown_name("field", named, names))
        return named
    return next((name for name in LOCATIONS if name in names), None)


class GroupsLayout:
    """Each granule is a group or an array of the source store.

    A granule that is one array is shown as a group with that array in it.

    Parameters
    ----------
    hierarchy
        The source store. Paths are taken from its root and can't leave it.
    field
        The field with the paths, None where the collection has no arrays.
    """

    def __init__(self, hierarchy: Hierarchy, field: str | None) -> None:
        self.hierarchy = hierarchy
        self.fields: tuple[str, ...] = () if field is None else (field,)

    async def document(self, location: Location, path: str) -> JSON | None:
        """Return the document of the node at `path` below the granule."""
        base, inside = _resolved(location), resolve(path)
        if base is None or inside is None:
            return None
        top = await self.hierarchy.document(base)
        if top is None or top["node_type"] == "group":
            return await self.hierarchy.document(join(base, inside)) if inside else top
        if not inside:
            return {"zarr_format": 3, "node_type": "group", "attributes": {}}
        return top if inside in (_name(base), ALONE) else None

    async def prefetch(self, nodes: Sequence[tuple[Location, str]]) -> None:
        """Read the documents of several nodes together."""
        bases = [(_resolved(location), path) for location, path in nodes]
        await self.hierarchy.prefetch([join(base, path) for base, path in bases if base])

    async def children(self, location: Location, path: str) -> list[str]:
        """Return the names directly below the group at `path`."""
        base, inside = _resolved(location), resolve(path)
        if base is None or inside is None:
            return []
        top = await self.hierarchy.document(base)
        if top is None:
            return []
        if top["node_type"] == "array":
            return [_name(base)] if not inside else []
        return await self.hierarchy.children(join(base, inside))

    def source_key(self, location: Location, path: str) -> str | None:
        """Return the source store's key for the key `path` below the granule."""
        base, inside = _resolved(location), resolve(path)
        if base is None or not inside:
            return None
        name, _, rest = inside.partition("/")
        # Only a path that starts with the granule's own name may be that of an array.
        if name in (_name(base), ALONE):
            top = self.hierarchy.remembered(base)
            if top is None:
                raise UnreadError(base)
            if top["node_type"] == "array":
                return self.hierarchy.key(join(base, rest))
        return self.hierarchy.key(join(base, inside))

    async def inventory(
        self, locations: Sequence[Location], relevant: frozenset[str]
    ) -> list[Inventory]:
        """Return what the arrays of many granules are, profile by profile."""
        found: dict[int, Nodes] = {}
        alone: list[int] = []
        for first in range(0, len(locations), CONCURRENCY):
            some = locations[first : first + CONCURRENCY]
            await self.prefetch([(location, "") for location in some])
            nodes = await asyncio.gather(*(self._nodes(location) for location in some))
            found |= {row: one for row, one in enumerate(nodes, start=first) if one[1]}
            ends = range(first, first + len(some))
            alone += [row for row in ends if row in found and self._is_array(locations[row])]
        alone = [row for row in alone if found[row][0]]
        if len({path for row in alone for path in found[row][0]}) > 1:
            for row in alone:
                arrays, groups = found[row]
                (document,) = arrays.values()
                found[row] = ({ALONE: document}, groups)
        members: dict[str, list[tuple[int, Nodes]]] = {}
        for row, one in found.items():
            members.setdefault(_signature(one[0]), []).append((row, one))
        return [_taken(name, nodes, relevant) for name, nodes in members.items()]

    def _is_array(self, location: Location) -> bool:
        """Return whether a granule whose document was read lately is an array."""
        top = self.hierarchy.remembered(_resolved(location) or "")
        return top is not None and top["node_type"] == "array"

    async def _nodes(self, location: Location, path: str = "") -> Nodes:
        """Return the documents of a granule's arrays, and its groups' attributes, by path."""
        document = await self.document(location, path)
        if document is None:
            return {}, {}
        if document["node_type"] == "array":
            grid = document["chunk_grid"]["name"]
            if grid != "regular":
                base = _resolved(location)
                message = f"{base}/{path} is left out, for its chunk grid is {grid}"
                warn(message, SkippedArrayWarning)
                return {}, {}
            return {path: document}, {}
        arrays: dict[str, JSON] = {}
        groups: dict[str, JSON] = {path: document.get("attributes") or {}}
        children = [join(path, name) for name in await self.children(location, path)]
        await self.prefetch([(location, child) for child in children])
        for child in children:
            try:
                below = await self._nodes(location, child)
            except UnsupportedArrayError:  # left out of every view, with a warning of its own
                continue
            arrays |= below[0]
            groups |= below[1]
        return arrays, groups

    def sources(
        self, inventory: Inventory, locations: Sequence[Location], path: str
    ) -> Iterator[SourceArray]:
        """Yield the array of each granule."""
        for member, location in enumerate(locations):
            source = self.source_key(location, path)
            if source is not None:
                yield SourceArray(source, None, np.array([member]))

    async def probes(self, location: Location) -> list[str] | None:
        """Return None: groups don't say."""
        return None

    def missing(self, location: Location) -> str:
        """Say what is not in the store."""
        if not location:
            names = ", ".join(LOCATIONS)
            return f"meta has no field with paths ({names}); name another with location="
        path = location[0]
        if path is None:
            return f'its field "{self.fields[0]}" is NULL'
        if _resolved(location) is None:
            return f"{path!r} is not a path inside the store"
        return f"there is no group or array at {path!r}"


def _signature(arrays: Mapping[str, JSON]) -> str:
    """Return a name for granules whose arrays are told alike, but for shapes and attributes."""
    kept = ("data_type", "codecs", "fill_value", "dimension_names", "chunk_key_encoding")
    told = {
        path: [len(document["shape"]), *(document.get(name) for name in kept)]
        for path, document in sorted(arrays.items())
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def _taken(name: str, members: Sequence[tuple[int, Nodes]], relevant: frozenset[str]) -> Inventory:
    """Return the inventory of granules that are told alike."""
    rows = np.array([row for row, _ in members], dtype=np.int64)
    groups = {}
    for path in members[0][1][1]:
        said = Variants(relevant)
        own = [(row, nodes[1].get(path, {})) for row, (_, nodes) in enumerate(members)]
        groups[path] = said.group(said.numbers(len(own), own, lambda one: {"attributes": one}))
    arrays = {}
    for path in members[0][1][0]:
        documents = [nodes[path] for _, (nodes, _) in members]
        variants = Variants(relevant)
        numbers = [
            variants.number(
                json.dumps([document["attributes"], document["codecs"]], sort_keys=True),
                partial(dict, document),
            )
            for document in documents
        ]
        grids = [document["chunk_grid"]["configuration"]["chunk_shape"] for document in documents]
        shapes = [document["shape"] for document in documents]
        arrays[path] = ArrayInventory(
            path,
            tuple(variants.documents.values()),
            np.array(numbers, dtype=np.int32),
            np.array(shapes, dtype=np.int64).reshape(len(members), -1),
            np.array(grids, dtype=np.int64).reshape(len(members), -1),
            variants.shared or {},
        )
    return Inventory(name, rows, arrays, groups)


def _resolved(location: Location) -> str | None:
    if not location or not isinstance(location[0], str):
        return None
    return resolve(location[0]) or None


def _name(path: str) -> str:
    return path.rpartition("/")[2]
