"""Granules as groups: a field holds the path of each granule's group or array."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from l2view.errors import FieldError, SkippedArrayWarning, UnsupportedArrayError, warn
from l2view.granules import Location, UnreadError
from l2view.granules.table import ArrayTable, GranuleTable, GroupTable, SourceArray, find_variants
from l2view.stores.hierarchy import JSON, Hierarchy, group_document, join, resolve
from l2view.text import unknown_name

type GranuleNodes = tuple[dict[str, JSON], dict[str, JSON]]
"""The documents of a granule's arrays by path, and the attributes of its groups."""

ALONE = "data"
"""The name of an array that is a granule, where other granules' arrays have other names."""

CONCURRENCY = 128  # the granules that are read at a time

LOCATIONS = ("group_path", "array_location", "path", "id")
"""Fields that are taken as a granule's path, the first that there is."""


class GroupsLayout:
    """Each granule is a group or an array of the source store.

    A granule that is one array is shown as a group with that array in it. The `field` holds the
    paths, which can't leave the store; without one the collection has no arrays.
    """

    def __init__(self, hierarchy: Hierarchy, field: str | None) -> None:
        self.hierarchy = hierarchy
        self.fields: tuple[str, ...] = () if field is None else (field,)
        self._unsupported: dict[str, str] = {}  # why granules that are one array have no v3 form

    @classmethod
    def of(cls, hierarchy: Hierarchy, fields: Sequence[str], location: str | None) -> Self:
        """Return the layout of a store with these fields, by the `location` that a caller names."""
        if location is not None and location not in fields:
            raise FieldError(unknown_name("field", location, fields))
        return cls(hierarchy, location or next((f for f in LOCATIONS if f in fields), None))

    async def document(self, location: Location, path: str) -> JSON | None:
        """Return the document of the node at `path` below the granule."""
        base, inside = _base(location), resolve(path)
        if base is None or inside is None:
            return None
        top = await self._top(base)
        if top is None or top["node_type"] == "group":
            return await self.hierarchy.document(join(base, inside)) if inside else top
        if not inside:
            return group_document({})
        return top if inside in (_name(base), ALONE) else None

    async def _top(self, base: str) -> JSON | None:
        """Return a granule's document; None where it isn't there, or an array without v3 form."""
        try:
            return await self.hierarchy.document(base)
        except UnsupportedArrayError as error:
            self._unsupported[base] = str(error)
            return None

    async def prefetch(self, nodes: Sequence[tuple[Location, str]]) -> None:
        """Read the documents of several nodes together."""
        bases = [(_base(location), path) for location, path in nodes]
        await self.hierarchy.prefetch([join(base, path) for base, path in bases if base])

    async def children(self, location: Location, path: str) -> list[str]:
        """Return the names directly below the group at `path`."""
        base, inside = _base(location), resolve(path)
        if base is None or inside is None:
            return []
        top = await self._top(base)
        if top is None:
            return []
        if top["node_type"] == "array":
            return [_name(base)] if not inside else []
        return await self.hierarchy.children(join(base, inside))

    def source_key(self, location: Location, path: str) -> str | None:
        """Return the source store's key for the key `path` below the granule."""
        base, inside = _base(location), resolve(path)
        if base is None or not inside:
            return None
        name, _, key = inside.partition("/")
        # Only a path that starts with the granule's own name may be that of an array.
        if name in (_name(base), ALONE):
            top = self.hierarchy.cached_document(base)
            if top is None:
                raise UnreadError(base)
            if top["node_type"] == "array":
                return self.hierarchy.key(join(base, key))
        return self.hierarchy.key(join(base, inside))

    async def tables(
        self, locations: Sequence[Location], relevant: frozenset[str]
    ) -> list[GranuleTable]:
        """Describe the arrays of many granules, profile by profile."""
        granules: dict[int, GranuleNodes] = {}
        arrays_alone: list[int] = []
        for start in range(0, len(locations), CONCURRENCY):
            batch = locations[start : start + CONCURRENCY]
            await self.prefetch([(location, "") for location in batch])
            nodes = await asyncio.gather(*(self._nodes(location) for location in batch))
            for row, (arrays, groups) in enumerate(nodes, start=start):
                if groups:
                    granules[row] = arrays, groups
                    top = self.hierarchy.cached_document(_base(locations[row]) or "")
                    if arrays and top is not None and top["node_type"] == "array":
                        arrays_alone.append(row)
        if len({path for row in arrays_alone for path in granules[row][0]}) > 1:
            for row in arrays_alone:
                (document,) = granules[row][0].values()
                granules[row] = ({ALONE: document}, granules[row][1])
        members: dict[str, list[int]] = {}
        for row, (arrays, _) in granules.items():
            members.setdefault(_signature(arrays), []).append(row)
        return [
            _granule_table(name, rows, [granules[row] for row in rows], relevant)
            for name, rows in members.items()
        ]

    async def _nodes(self, location: Location, path: str = "") -> GranuleNodes:
        document = await self.document(location, path)
        if document is None:
            return {}, {}
        if document["node_type"] == "array":
            grid = document["chunk_grid"]["name"]
            if grid != "regular":
                message = f"{_base(location)}/{path} is left out, for its chunk grid is {grid}"
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
            except UnsupportedArrayError as error:
                warn(f"{_base(location)}/{child} is left out: {error}", SkippedArrayWarning)
                continue
            arrays |= below[0]
            groups |= below[1]
        return arrays, groups

    async def sources(self, table: GranuleTable, path: str) -> AsyncIterator[SourceArray]:
        """Yield the array of each granule."""
        for member, location in enumerate(table.locations):
            try:
                source = self.source_key(location, path)
            except UnreadError:  # or read too long ago
                await self.document(location, "")
                source = self.source_key(location, path)
            if source is not None:
                yield SourceArray(source, None, np.array([member]))

    async def probes(self, location: Location) -> list[str] | None:
        """Return None: groups have no probes."""
        return None

    def missing(self, location: Location) -> str:
        """Explain why a granule has no document."""
        if not location:
            names = ", ".join(LOCATIONS)
            return f"meta has no field with paths ({names}); name another with location="
        path = location[0]
        if path is None:
            return f'its field "{self.fields[0]}" is NULL'
        if (base := _base(location)) is None:
            return f"{path!r} is not a path inside the store"
        if base in self._unsupported:
            return f"the array at {path!r} can't be shown: {self._unsupported[base]}"
        return f"there is no group or array at {path!r}"


def _signature(arrays: Mapping[str, JSON]) -> str:
    """Return a name for granules with the same arrays, but for shapes and attributes."""
    names = ("data_type", "codecs", "fill_value", "dimension_names", "chunk_key_encoding")
    shared = {
        path: [len(document["shape"]), *(document.get(name) for name in names)]
        for path, document in sorted(arrays.items())
    }
    return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:16]


def _granule_table(
    name: str, rows: Sequence[int], granules: Sequence[GranuleNodes], relevant: frozenset[str]
) -> GranuleTable:
    """Return the table of granules with one signature."""

    def lengths(values: Sequence[Sequence[int]]) -> NDArray[np.int64]:
        return np.array(values, dtype=np.int64).reshape(len(rows), -1)

    members = np.arange(len(rows), dtype=np.int32)
    groups = {}
    for path in granules[0][1]:
        attributes = [{"attributes": nodes.get(path, {})} for _, nodes in granules]
        groups[path] = GroupTable.of(attributes, members, relevant)
    arrays = {}
    for path in granules[0][0]:
        documents = [nodes[path] for nodes, _ in granules]
        variants, index, shared = find_variants(documents, members, relevant)
        shapes = lengths([document["shape"] for document in documents])
        chunks = [d["chunk_grid"]["configuration"]["chunk_shape"] for d in documents]
        arrays[path] = ArrayTable(path, variants, index, shapes, lengths(chunks), shared)
    return GranuleTable(name, np.array(rows, dtype=np.int64), arrays, groups)


def _base(location: Location) -> str | None:
    """Return a granule's path, None where it has none inside the store."""
    if not location or not isinstance(location[0], str):
        return None
    return resolve(location[0]) or None


def _name(path: str) -> str:
    return path.rpartition("/")[2]
