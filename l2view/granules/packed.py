"""Granules packed by profile: one array of the store for an array of all of them.

A granule is a profile and a slot. Its own shapes, chunk shapes and attributes lie beside the
packed arrays, in blocks of slots; a block is read when a granule in it is first asked for.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import zarr.api.asynchronous as zarr_async
from numpy.typing import NDArray
from zarr import AsyncArray, AsyncGroup

from l2view.cache import RecentCache
from l2view.granules import Location, UnreadError
from l2view.granules.profile import (
    DEFAULT_KEYS,
    Profile,
    apply_patch,
    decode_floats,
    own_path,
    packed_path,
    split_chunk_key,
)
from l2view.granules.table import ArrayTable, GranuleTable, GroupTable, SourceArray, find_variants
from l2view.stores.hierarchy import JSON, Hierarchy, group_document, resolve

BLOCKS = 64  # the blocks of slots that a layout remembers

# The arrays that describe a profile's slots, those that are read together.
DESCRIPTION = ("shapes", "chunk_shapes", "attributes")
PROBES = ("probes",)


@dataclass(frozen=True)
class StoredProfile:
    """A profile as it lies in the store, with arrays that have a row a slot.

    ``shapes`` and ``chunk_shapes`` are of shape (slots, `Profile.width`); ``attributes`` are
    patches by path, and ``probes`` keys of chunks that lie in all files of a granule together,
    as JSON.
    """

    name: str
    profile: Profile
    attributes: dict[str, JSON]  # by path; the slots' patches are of these
    arrays: dict[str, AsyncArray[Any]]

    @cached_property
    def slots(self) -> int:
        """The number of slots."""
        return int(self.arrays["attributes"].shape[0])

    @cached_property
    def block(self) -> int:
        """The slots in a block."""
        return int(self.arrays["attributes"].chunks[0])


class PackedLayout:
    """Each granule is a slot of its profile's packed arrays."""

    fields: tuple[str, ...] = ("profile", "slot")

    def __init__(self, hierarchy: Hierarchy) -> None:
        self.hierarchy = hierarchy
        self._profiles: dict[str, StoredProfile] = {}
        self._blocks: RecentCache[tuple[str, int, tuple[str, ...]], list[Any]] = RecentCache(BLOCKS)

    def __getstate__(self) -> JSON:
        return {"hierarchy": self.hierarchy}

    def __setstate__(self, state: JSON) -> None:
        self.__init__(state["hierarchy"])  # type: ignore[misc]

    async def document(self, location: Location, path: str) -> JSON | None:
        """Return the document of the node at `path` below the granule."""
        inside, granule = resolve(path), await self._granule(location)
        if inside is None or granule is None:
            return None
        profile = granule[0].profile
        template = profile.array(inside)
        if template is None and not profile.is_group(inside):
            return None
        shapes, chunk_shapes, text = await self._slot_values(*granule, DESCRIPTION)
        patch = _patches(str(text)).get(inside, {})
        attributes = apply_patch(granule[0].attributes.get(inside, {}), patch)
        if template is None:
            return group_document(attributes)
        columns = profile.columns[inside]
        return template.granule_document(
            shapes[columns].tolist(), chunk_shapes[columns].tolist(), attributes
        )

    async def prefetch(self, nodes: Sequence[tuple[Location, str]]) -> None:
        """Read the blocks of several granules together."""
        slots = [_slot(location) for location, _ in nodes]
        await asyncio.gather(*map(self._profile, sorted({slot[0] for slot in slots if slot})))
        blocks = {}
        for name, slot in filter(None, slots):
            stored = self._profiles.get(name)
            if stored is not None and slot < stored.slots:
                blocks[name, slot // stored.block] = stored, slot
        await asyncio.gather(*(self._slot_values(*block, DESCRIPTION) for block in blocks.values()))

    async def children(self, location: Location, path: str) -> list[str]:
        """Return the names directly below the group at `path`."""
        inside, granule = resolve(path), await self._granule(location)
        return [] if inside is None or granule is None else granule[0].profile.children(inside)

    def source_key(self, location: Location, path: str) -> str | None:
        """Return the key of the packed array's chunk for the granule's key `path`."""
        name_and_slot, inside = _slot(location), resolve(path)
        if name_and_slot is None or not inside:
            return None
        name, slot = name_and_slot
        if name not in self._profiles:
            raise UnreadError(name)
        array_path, chunk = split_chunk_key(inside)
        array, (_, *indices) = self._profiles[name].profile.array(array_path), chunk.split("/")
        if array is None or len(indices) != array.rank or not all(map(str.isdigit, indices)):
            return None
        packed = "/".join([array_path, "c", str(slot), *indices])
        return self.hierarchy.key(packed_path(name, packed))

    async def tables(
        self, locations: Sequence[Location], relevant: frozenset[str]
    ) -> list[GranuleTable]:
        """Describe the arrays of many granules, profile by profile."""
        members: dict[str, list[tuple[int, int]]] = {}
        for row, location in enumerate(locations):
            if (name_and_slot := _slot(location)) is not None:
                members.setdefault(name_and_slot[0], []).append((row, name_and_slot[1]))
        tables = []
        for name, rows_and_slots in members.items():
            if (stored := await self._profile(name)) is not None:
                rows, slots = np.array(rows_and_slots, dtype=np.int64).T
                exists = slots < stored.slots
                if exists.any():
                    tables.append(
                        await _granule_table(stored, rows[exists], slots[exists], relevant)
                    )
        return tables

    async def sources(self, table: GranuleTable, path: str) -> AsyncIterator[SourceArray]:
        """Yield the packed array with the chunks of the array at `path`."""
        slots = np.array([location[1] for location in table.locations], dtype=np.int64)
        source = self.hierarchy.key(packed_path(table.name, path))
        yield SourceArray(source, slots, np.arange(len(slots)))

    async def probes(self, location: Location) -> list[str] | None:
        """Return keys below the granule of chunks that lie in all of its files together."""
        granule = await self._granule(location)
        if granule is None:
            return None
        (text,) = await self._slot_values(*granule, PROBES)
        keys: list[str] = json.loads(str(text))
        return keys

    def missing(self, location: Location) -> str:
        """Explain why a granule has no document."""
        if _slot(location) is None:
            return f"its fields profile and slot are {location!r}"
        return f"there is no slot {location[1]} of the profile {location[0]}"

    async def _granule(self, location: Location) -> tuple[StoredProfile, int] | None:
        """Return the profile and slot of a granule, None where there is none."""
        if (name_and_slot := _slot(location)) is None:
            return None
        name, slot = name_and_slot
        stored = await self._profile(name)
        return None if stored is None or slot >= stored.slots else (stored, slot)

    async def _profile(self, name: str) -> StoredProfile | None:
        if name not in self._profiles:
            try:
                group = await zarr_async.open_group(
                    self.hierarchy.store, path=self.hierarchy.key(own_path(name)), mode="r"
                )
            except FileNotFoundError:  # what isn't there yet may be there later
                return None
            names = (*DESCRIPTION, *PROBES)
            arrays = await asyncio.gather(*map(group.getitem, names))
            if any(isinstance(array, AsyncGroup) for array in arrays):
                return None
            self._profiles[name] = StoredProfile(
                name,
                Profile.from_json(group.attrs["profile"]),
                decode_floats(group.attrs["attributes"]),
                dict(zip(names, arrays, strict=True)),  # type: ignore[arg-type]
            )
        return self._profiles[name]

    async def _slot_values(
        self, stored: StoredProfile, slot: int, names: tuple[str, ...]
    ) -> list[Any]:
        """Return what arrays with a row a slot have for one."""
        number, row = divmod(slot, stored.block)
        key = (stored.name, number, names)
        if (block := self._blocks.get(key)) is None:
            slots = slice(number * stored.block, (number + 1) * stored.block)
            values = await asyncio.gather(*(stored.arrays[name].getitem(slots) for name in names))
            block = list(map(np.asarray, values))
            self._blocks.put(key, block)
        return [column[row] for column in block]


async def _granule_table(
    stored: StoredProfile,
    rows: NDArray[np.int64],
    slots: NDArray[np.int64],
    relevant: frozenset[str],
) -> GranuleTable:
    """Return the table of some slots of a profile."""
    profile = stored.profile
    ordered, inverse = np.unique(slots, return_inverse=True)
    columns = await asyncio.gather(
        *(stored.arrays[name].get_orthogonal_selection((ordered,)) for name in DESCRIPTION)
    )
    shapes, chunk_shapes, texts = (np.asarray(values)[inverse] for values in columns)
    groups = ("", *profile.groups)
    changed: dict[str, dict[int, JSON]] = {path: {} for path in (*groups, *profile.columns)}
    for member, text in enumerate(texts.tolist()):
        patches: JSON = decode_floats(json.loads(text))
        for path in patches.keys() & changed.keys():
            changed[path][member] = patches[path]

    def documents(path: str, shared: JSON) -> tuple[Iterator[JSON], NDArray[np.int32]]:
        """Yield the node's different documents, also return the index of each granule's."""
        distinct: dict[str, JSON] = {} if len(changed[path]) == len(rows) else {"": {}}
        numbers = {text: number for number, text in enumerate(distinct)}
        index = np.zeros(len(rows), dtype=np.int32)
        for member, patch in changed[path].items():
            text = json.dumps(patch, sort_keys=True)
            distinct.setdefault(text, patch)
            index[member] = numbers.setdefault(text, len(numbers))
        base = stored.attributes.get(path, {})
        patched = (apply_patch(base, patch) for patch in distinct.values())
        return ({**shared, "attributes": attributes} for attributes in patched), index

    arrays = {}
    for array in profile.arrays:
        shared = {**array.document, "chunk_key_encoding": DEFAULT_KEYS}
        variants, index, attributes = find_variants(*documents(array.path, shared), relevant)
        own = profile.columns[array.path]
        arrays[array.path] = ArrayTable(
            array.path, variants, index, shapes[:, own], chunk_shapes[:, own], attributes
        )
    group_tables = {path: GroupTable.of(*documents(path, {}), relevant) for path in groups}
    return GranuleTable(stored.name, rows, arrays, group_tables)


@lru_cache(maxsize=256)
def _patches(text: str) -> JSON:
    """Return a slot's patches by path; all documents of a granule are read one after another."""
    patches: JSON = decode_floats(json.loads(text))
    return patches


def _slot(location: Location) -> tuple[str, int] | None:
    """Return a granule's profile and slot, None where it has none."""
    if len(location) != 2:
        return None
    name, slot = location
    if not isinstance(name, str) or not isinstance(slot, int) or slot < 0:
        return None
    return (name, slot) if name and resolve(name) == name and "/" not in name else None
