"""Granules packed by profile: one array of the store for an array of all of them.

A granule is a profile and a slot. Its own shapes, chunk shapes and attributes lie beside the
packed arrays, in blocks of slots that are read when a granule of the block is first asked for.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import zarr.api.asynchronous as zarr_async
from numpy.typing import NDArray
from zarr import AsyncArray, AsyncGroup

from l2view.granules import Location, UnreadError
from l2view.granules.inventory import (
    ArrayInventory,
    GroupInventory,
    Inventory,
    SourceArray,
    Variants,
)
from l2view.granules.profile import (
    DEFAULT_KEYS,
    ArrayTemplate,
    Profile,
    applied,
    decoded,
    own_path,
    packed_path,
)
from l2view.stores.hierarchy import JSON, Hierarchy, resolve

FIELDS: tuple[str, ...] = ("profile", "slot")
"""The fields of ``/meta`` that locate a granule."""

BLOCKS = 64
"""How many blocks of slots a layout remembers."""


@dataclass(frozen=True)
class Slots:
    """What differs between the granules of a block of slots.

    Attributes
    ----------
    shapes, chunk_shapes
        Of shape (slots, `Profile.width`).
    attributes
        For each slot, the differences from the profile's attributes as JSON, by path.
    """

    shapes: NDArray[np.int64]
    chunk_shapes: NDArray[np.int64]
    attributes: NDArray[Any]


@dataclass(frozen=True)
class Shelf:
    """A profile as it lies in the store.

    Attributes
    ----------
    profile
        What its granules share.
    attributes
        The attributes by path that a granule's are told from.
    arrays
        ``shapes``, ``chunk_shapes`` and ``attributes``, with a row a slot.
    probes
        For each slot, keys of chunks that lie in all of its files together, as JSON.
    """

    profile: Profile
    attributes: dict[str, JSON]
    arrays: tuple[AsyncArray[Any], AsyncArray[Any], AsyncArray[Any]]
    probes: AsyncArray[Any] | None = None

    @property
    def block(self) -> int:
        """The slots in a block."""
        return int(self.arrays[2].chunks[0])


class PackedLayout:
    """Each granule is a slot of its profile's packed arrays.

    Parameters
    ----------
    hierarchy
        The source store.
    """

    fields: tuple[str, ...] = FIELDS

    def __init__(self, hierarchy: Hierarchy) -> None:
        self.hierarchy = hierarchy
        self._shelves: dict[str, Shelf] = {}
        self._blocks: OrderedDict[tuple[str, int], Slots] = OrderedDict()
        self._texts: OrderedDict[tuple[str, int], NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> JSON:
        return {"hierarchy": self.hierarchy}

    def __setstate__(self, state: JSON) -> None:
        self.__init__(state["hierarchy"])  # type: ignore[misc]

    async def document(self, location: Location, path: str) -> JSON | None:
        """Return the document of the node at `path` below the granule."""
        inside, found = resolve(path), await self._granule(location)
        if inside is None or found is None:
            return None
        shelf, slots, row = found
        template = shelf.profile.array(inside)
        if template is None and not shelf.profile.is_group(inside):
            return None
        difference = _differences(str(slots.attributes[row])).get(inside, {})
        attributes = applied(shelf.attributes.get(inside, {}), difference)
        if template is None:
            return {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        columns = shelf.profile.columns[inside]
        return template.filled(
            slots.shapes[row, columns].tolist(),
            slots.chunk_shapes[row, columns].tolist(),
            attributes,
        )

    async def prefetch(self, nodes: Sequence[tuple[Location, str]]) -> None:
        """Read the blocks of several granules together."""
        places = {place for location, _ in nodes if (place := _place(location)) is not None}
        names = sorted({name for name, _ in places})
        shelves = dict(zip(names, await asyncio.gather(*map(self._shelf, names)), strict=True))
        wanted = {
            (name, slot // shelf.block)
            for name, slot in places
            if (shelf := shelves[name]) is not None and slot < shelf.arrays[2].shape[0]
        }
        found = ((shelves[name], name, block) for name, block in sorted(wanted))
        await asyncio.gather(*(self._slots(s, n, b) for s, n, b in found if s is not None))

    async def children(self, location: Location, path: str) -> list[str]:
        """Return the names directly below the group at `path`."""
        inside, found = resolve(path), await self._granule(location)
        if inside is None or found is None or found[0].profile.array(inside) is not None:
            return []
        return found[0].profile.children(inside)

    def source_key(self, location: Location, path: str) -> str | None:
        """Return the key of the packed array's chunk for the granule's key `path`."""
        place, inside = _place(location), resolve(path)
        if place is None or not inside:
            return None
        name, slot = place
        if name not in self._shelves:
            raise UnreadError(name)
        found = self._shelves[name].profile.array_of_key(inside)
        if found is None:
            return None
        array, (first, _, rest) = found[0], found[1].partition("/")
        indices = rest.split("/") if rest else []
        if first != "c" or len(indices) != array.rank or not all(map(str.isdigit, indices)):
            return None
        tail = "/".join(["c", str(slot), *indices])
        return self.hierarchy.key(packed_path(name, f"{array.path}/{tail}"))

    async def inventory(
        self, locations: Sequence[Location], relevant: frozenset[str]
    ) -> list[Inventory]:
        """Return what the arrays of many granules are, profile by profile."""
        members: dict[str, list[tuple[int, int]]] = {}
        for row, location in enumerate(locations):
            if (place := _place(location)) is not None:
                members.setdefault(place[0], []).append((row, place[1]))
        found = []
        for name, places in members.items():
            shelf = await self._shelf(name)
            if shelf is None:
                continue
            rows, slots = np.array(places, dtype=np.int64).T
            there = slots < shelf.arrays[2].shape[0]
            if there.any():
                found.append(await _taken(name, shelf, rows[there], slots[there], relevant))
        return found

    def sources(
        self, inventory: Inventory, locations: Sequence[Location], path: str
    ) -> Iterator[SourceArray]:
        """Yield the packed array with the chunks of the array at `path`."""
        slots = np.array([place[1] for place in locations], dtype=np.int64)
        source = self.hierarchy.key(packed_path(inventory.name, path))
        yield SourceArray(source, slots, np.arange(len(slots)))

    async def probes(self, location: Location) -> list[str] | None:
        """Return keys below the granule of chunks that lie in all of its files together."""
        place = _place(location)
        if place is None:
            return None
        name, slot = place
        shelf = await self._shelf(name)
        if shelf is None or shelf.probes is None or slot >= shelf.probes.shape[0]:
            return None
        block, row = divmod(slot, shelf.block)
        with self._lock:
            texts = self._texts.get((name, block))
        if texts is None:
            rows = slice(block * shelf.block, (block + 1) * shelf.block)
            texts = np.asarray(await shelf.probes.getitem(rows))
            with self._lock:
                self._texts[name, block] = texts
                if len(self._texts) > BLOCKS:
                    self._texts.popitem(last=False)
        found: list[str] = json.loads(str(texts[row]))
        return found

    def missing(self, location: Location) -> str:
        """Say what is not in the store."""
        if _place(location) is None:
            return f"its fields profile and slot are {location!r}"
        return f"there is no slot {location[1]} of the profile {location[0]}"

    async def _granule(self, location: Location) -> tuple[Shelf, Slots, int] | None:
        """Return the profile of a granule, its block of slots, and its row there."""
        place = _place(location)
        if place is None:
            return None
        name, slot = place
        shelf = await self._shelf(name)
        if shelf is None or slot >= shelf.arrays[2].shape[0]:
            return None
        block, row = divmod(slot, shelf.block)
        return shelf, await self._slots(shelf, name, block), row

    async def _shelf(self, name: str) -> Shelf | None:
        if name not in self._shelves:
            shelf = await read_shelf(self.hierarchy, name)
            if shelf is None:  # what isn't there yet may be there later
                return None
            self._shelves[name] = shelf
        return self._shelves[name]

    async def _slots(self, shelf: Shelf, name: str, block: int) -> Slots:
        with self._lock:
            if (found := self._blocks.get((name, block))) is not None:
                self._blocks.move_to_end((name, block))
                return found
        rows = slice(block * shelf.block, (block + 1) * shelf.block)
        values = await asyncio.gather(*(array.getitem(rows) for array in shelf.arrays))
        slots = Slots(*(np.asarray(value) for value in values))
        with self._lock:
            self._blocks[name, block] = slots
            if len(self._blocks) > BLOCKS:
                self._blocks.popitem(last=False)
        return slots


async def _taken(
    name: str,
    shelf: Shelf,
    rows: NDArray[np.int64],
    slots: NDArray[np.int64],
    relevant: frozenset[str],
) -> Inventory:
    """Return the inventory of some slots of a profile."""
    profile = shelf.profile
    ordered, inverse = np.unique(slots, return_inverse=True)
    wanted = (array.get_orthogonal_selection((ordered,)) for array in shelf.arrays)
    found = await asyncio.gather(*wanted)
    shapes, chunk_shapes, texts = (np.asarray(values)[inverse] for values in found)
    paths = ["", *profile.groups, *(array.path for array in profile.arrays)]
    changed: dict[str, list[tuple[int, JSON]]] = {path: [] for path in paths}
    for number, text in enumerate(texts.tolist()):
        differences: JSON = decoded(json.loads(text))
        for path in differences.keys() & changed.keys():
            changed[path].append((number, differences[path]))
    groups = {
        path: _group(shelf.attributes.get(path, {}), changed[path], len(rows), relevant)
        for path in ("", *profile.groups)
    }
    arrays = {
        array.path: _array(array, shelf, changed[array.path], shapes, chunk_shapes, relevant)
        for array in profile.arrays
    }
    return Inventory(name, rows, arrays, groups)


def _group(
    base: JSON, changed: Sequence[tuple[int, JSON]], count: int, relevant: frozenset[str]
) -> GroupInventory:
    """Return the inventory of one group, of whose `count` granules some `changed` attributes."""
    variants = Variants(relevant)
    return variants.group(
        variants.numbers(count, changed, lambda own: {"attributes": applied(base, own)})
    )


def _array(
    array: ArrayTemplate,
    shelf: Shelf,
    changed: Sequence[tuple[int, JSON]],
    shapes: NDArray[np.int64],
    chunk_shapes: NDArray[np.int64],
    relevant: frozenset[str],
) -> ArrayInventory:
    """Return the inventory of one array, of whose granules some `changed` its attributes."""
    variants = Variants(relevant)
    base = shelf.attributes.get(array.path, {})

    def document(difference: JSON) -> JSON:
        said = {"chunk_key_encoding": DEFAULT_KEYS, "attributes": applied(base, difference)}
        return {**array.document, **said}

    variant_index = variants.numbers(len(shapes), changed, document)
    columns = shelf.profile.columns[array.path]
    return ArrayInventory(
        array.path,
        tuple(variants.documents.values()),
        variant_index,
        shapes[:, columns],
        chunk_shapes[:, columns],
        variants.shared or {},
    )


async def read_shelf(hierarchy: Hierarchy, name: str) -> Shelf | None:
    """Return the profile called `name` as it lies in the store, None where it doesn't."""
    if resolve(name) is None or "/" in name:
        return None
    try:
        group = await zarr_async.open_group(
            hierarchy.store, path=hierarchy.key(own_path(name)), mode="r"
        )
    except FileNotFoundError:
        return None
    said = group.attrs
    names = ("shapes", "chunk_shapes", "attributes", "probes")
    *arrays, probes = await asyncio.gather(*(group.getitem(member) for member in names))
    if any(isinstance(array, AsyncGroup) for array in (*arrays, probes)):
        return None
    profile = Profile.from_json(said["profile"])
    return Shelf(profile, decoded(said["attributes"]), tuple(arrays), probes)  # type: ignore[arg-type]


@lru_cache(maxsize=256)
def _differences(text: str) -> JSON:
    """Return a slot's attributes by path; all of a granule's documents are asked for together."""
    found: JSON = decoded(json.loads(text))
    return found


def _place(location: Location) -> tuple[str, int] | None:
    """Return a granule's profile and slot, None where it has none."""
    if len(location) != 2:
        return None
    name, slot = location
    if not isinstance(name, str) or not isinstance(slot, int) or slot < 0:
        return None
    return (name, slot) if name and resolve(name) == name and "/" not in name else None
