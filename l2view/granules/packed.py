"""Granules packed by profile: one array of the store for an array of all of them.

A granule is a profile and a slot. Its own shapes, chunk shapes and attributes lie beside the
packed arrays, in blocks of slots; a block is read when a granule in it is first asked for.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import zarr.api.asynchronous as zarr_async
from numpy.typing import NDArray
from zarr import AsyncArray, AsyncGroup

from l2view.granules import Location, UnreadError
from l2view.granules.profile import (
    DEFAULT_KEYS,
    ArrayTemplate,
    Profile,
    apply_patch,
    decode_floats,
    own_path,
    packed_path,
)
from l2view.granules.table import (
    ArrayTable,
    GranuleTable,
    GroupTable,
    SourceArray,
    Variants,
)
from l2view.stores.hierarchy import JSON, Hierarchy, RecentCache, group_document, resolve

BLOCKS = 64
"""The blocks of slots that a layout remembers."""


@dataclass(frozen=True)
class SlotBlock:
    """What differs between the granules of a block of slots.

    Shapes are of shape (slots, `Profile.width`); attributes are patches by path, as JSON.
    """

    shapes: NDArray[np.int64]
    chunk_shapes: NDArray[np.int64]
    attributes: NDArray[Any]


@dataclass(frozen=True)
class StoredProfile:
    """A profile as it lies in the store.

    Attributes
    ----------
    attributes
        By path; what the slots' patches are of.
    arrays
        ``shapes``, ``chunk_shapes`` and ``attributes``, with a row a slot.
    probes
        Keys of chunks that lie in all files of a granule together, as JSON, with a row a slot.
    """

    profile: Profile
    attributes: dict[str, JSON]
    arrays: tuple[AsyncArray[Any], AsyncArray[Any], AsyncArray[Any]]
    probes: AsyncArray[Any]

    @property
    def slots(self) -> int:
        """The number of slots."""
        return int(self.arrays[2].shape[0])

    @property
    def block(self) -> int:
        """The slots in a block."""
        return int(self.arrays[2].chunks[0])

    def block_slice(self, number: int) -> slice:
        """Return the slots of a block."""
        return slice(number * self.block, (number + 1) * self.block)


class PackedLayout:
    """Each granule is a slot of its profile's packed arrays."""

    fields: tuple[str, ...] = ("profile", "slot")

    def __init__(self, hierarchy: Hierarchy) -> None:
        self.hierarchy = hierarchy
        self._profiles: dict[str, StoredProfile] = {}
        self._blocks: RecentCache[tuple[str, int], SlotBlock] = RecentCache(BLOCKS)
        self._probes: RecentCache[tuple[str, int], NDArray[Any]] = RecentCache(BLOCKS)

    def __getstate__(self) -> JSON:
        return {"hierarchy": self.hierarchy}

    def __setstate__(self, state: JSON) -> None:
        self.__init__(state["hierarchy"])  # type: ignore[misc]

    async def document(self, location: Location, path: str) -> JSON | None:
        """Return the document of the node at `path` below the granule."""
        inside, granule = resolve(path), await self._granule(location)
        if inside is None or granule is None:
            return None
        stored, block, row = granule
        template = stored.profile.array(inside)
        if template is None and not stored.profile.is_group(inside):
            return None
        patch = _patches(str(block.attributes[row])).get(inside, {})
        attributes = apply_patch(stored.attributes.get(inside, {}), patch)
        if template is None:
            return group_document(attributes)
        columns = stored.profile.columns[inside]
        return template.granule_document(
            block.shapes[row, columns].tolist(),
            block.chunk_shapes[row, columns].tolist(),
            attributes,
        )

    async def prefetch(self, nodes: Sequence[tuple[Location, str]]) -> None:
        """Read the blocks of several granules together."""
        slots = {slot for location, _ in nodes if (slot := _slot(location)) is not None}
        names = sorted({name for name, _ in slots})
        profiles = await asyncio.gather(*map(self._profile, names))
        stored = {name: p for name, p in zip(names, profiles, strict=True) if p is not None}
        blocks = {
            (name, slot // stored[name].block)
            for name, slot in slots
            if name in stored and slot < stored[name].slots
        }
        await asyncio.gather(
            *(self._block(stored[name], name, number) for name, number in sorted(blocks))
        )

    async def children(self, location: Location, path: str) -> list[str]:
        """Return the names directly below the group at `path`."""
        inside, granule = resolve(path), await self._granule(location)
        if inside is None or granule is None or granule[0].profile.array(inside) is not None:
            return []
        return granule[0].profile.children(inside)

    def source_key(self, location: Location, path: str) -> str | None:
        """Return the key of the packed array's chunk for the granule's key `path`."""
        name_and_slot, inside = _slot(location), resolve(path)
        if name_and_slot is None or not inside:
            return None
        name, slot = name_and_slot
        if name not in self._profiles:
            raise UnreadError(name)
        array_and_key = self._profiles[name].profile.array_of_key(inside)
        if array_and_key is None:
            return None
        array, key = array_and_key
        separator, *indices = key.split("/")
        if separator != "c" or len(indices) != array.rank or not all(map(str.isdigit, indices)):
            return None
        chunk = "/".join([array.path, "c", str(slot), *indices])
        return self.hierarchy.key(packed_path(name, chunk))

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
            stored = await self._profile(name)
            if stored is None:
                continue
            rows, slots = np.array(rows_and_slots, dtype=np.int64).T
            exists = slots < stored.slots
            if exists.any():
                tables.append(
                    await _granule_table(name, stored, rows[exists], slots[exists], relevant)
                )
        return tables

    def sources(
        self, table: GranuleTable, locations: Sequence[Location], path: str
    ) -> Iterator[SourceArray]:
        """Yield the packed array with the chunks of the array at `path`."""
        slots = np.array([location[1] for location in locations], dtype=np.int64)
        source = self.hierarchy.key(packed_path(table.name, path))
        yield SourceArray(source, slots, np.arange(len(slots)))

    async def probes(self, location: Location) -> list[str] | None:
        """Return keys below the granule of chunks that lie in all of its files together."""
        name_and_slot = _slot(location)
        stored = None if name_and_slot is None else await self._profile(name_and_slot[0])
        if name_and_slot is None or stored is None:
            return None
        name, slot = name_and_slot
        if slot >= stored.probes.shape[0]:
            return None
        number, row = divmod(slot, stored.block)
        texts = self._probes.get((name, number))
        if texts is None:
            texts = np.asarray(await stored.probes.getitem(stored.block_slice(number)))
            self._probes.put((name, number), texts)
        keys: list[str] = json.loads(str(texts[row]))
        return keys

    def missing(self, location: Location) -> str:
        """Explain why a granule has no document."""
        if _slot(location) is None:
            return f"its fields profile and slot are {location!r}"
        return f"there is no slot {location[1]} of the profile {location[0]}"

    async def _granule(self, location: Location) -> tuple[StoredProfile, SlotBlock, int] | None:
        """Return the profile of a granule, its block of slots, and its row there."""
        name_and_slot = _slot(location)
        if name_and_slot is None:
            return None
        name, slot = name_and_slot
        stored = await self._profile(name)
        if stored is None or slot >= stored.slots:
            return None
        number, row = divmod(slot, stored.block)
        return stored, await self._block(stored, name, number), row

    async def _profile(self, name: str) -> StoredProfile | None:
        if name not in self._profiles:
            stored = await read_profile(self.hierarchy, name)
            if stored is None:  # what isn't there yet may be there later
                return None
            self._profiles[name] = stored
        return self._profiles[name]

    async def _block(self, stored: StoredProfile, name: str, number: int) -> SlotBlock:
        block = self._blocks.get((name, number))
        if block is None:
            slots = stored.block_slice(number)
            columns = await asyncio.gather(*(array.getitem(slots) for array in stored.arrays))
            block = SlotBlock(*map(np.asarray, columns))
            self._blocks.put((name, number), block)
        return block


async def _granule_table(
    name: str,
    stored: StoredProfile,
    rows: NDArray[np.int64],
    slots: NDArray[np.int64],
    relevant: frozenset[str],
) -> GranuleTable:
    """Return the table of some slots of a profile."""
    profile = stored.profile
    ordered, inverse = np.unique(slots, return_inverse=True)
    columns = await asyncio.gather(
        *(array.get_orthogonal_selection((ordered,)) for array in stored.arrays)
    )
    shapes, chunk_shapes, texts = (np.asarray(values)[inverse] for values in columns)
    groups = ("", *profile.groups)
    changed: dict[str, list[tuple[int, JSON]]] = {
        path: [] for path in (*groups, *(array.path for array in profile.arrays))
    }
    for number, text in enumerate(texts.tolist()):
        patches: JSON = decode_floats(json.loads(text))
        for path in patches.keys() & changed.keys():
            changed[path].append((number, patches[path]))

    def describe_group(path: str) -> GroupTable:
        base, variants = stored.attributes.get(path, {}), Variants(relevant)
        numbers = variants.numbers(
            len(rows), changed[path], lambda patch: {"attributes": apply_patch(base, patch)}
        )
        return variants.group(numbers)

    def describe_array(array: ArrayTemplate) -> ArrayTable:
        base, variants = stored.attributes.get(array.path, {}), Variants(relevant)

        def document(patch: JSON) -> JSON:
            own = {"chunk_key_encoding": DEFAULT_KEYS, "attributes": apply_patch(base, patch)}
            return {**array.document, **own}

        numbers = variants.numbers(len(rows), changed[array.path], document)
        own_columns = profile.columns[array.path]
        return ArrayTable(
            array.path,
            tuple(variants.documents.values()),
            numbers,
            shapes[:, own_columns],
            chunk_shapes[:, own_columns],
            variants.shared or {},
        )

    return GranuleTable(
        name,
        rows,
        {array.path: describe_array(array) for array in profile.arrays},
        {path: describe_group(path) for path in groups},
    )


async def read_profile(hierarchy: Hierarchy, name: str) -> StoredProfile | None:
    """Return the profile called `name` as it lies in the store, None where it doesn't."""
    if resolve(name) is None or "/" in name:
        return None
    try:
        group = await zarr_async.open_group(
            hierarchy.store, path=hierarchy.key(own_path(name)), mode="r"
        )
    except FileNotFoundError:
        return None
    names = ("shapes", "chunk_shapes", "attributes", "probes")
    *arrays, probes = await asyncio.gather(*(group.getitem(member) for member in names))
    if any(isinstance(array, AsyncGroup) for array in (*arrays, probes)):
        return None
    profile = Profile.from_json(group.attrs["profile"])
    attributes = decode_floats(group.attrs["attributes"])
    return StoredProfile(profile, attributes, tuple(arrays), probes)  # type: ignore[arg-type]


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
