"""Granules as slots of packed arrays: the layout that `ingest` writes (see `l2view.granules`)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import icechunk
import numpy as np
import zarr

from l2view.granules.nodes import put_chunks, put_documents
from l2view.granules.profile import (
    ArrayTemplate,
    Profile,
    decoded,
    differences,
    encoded,
    own_path,
    packed_path,
)
from l2view.granules.references import ArrayReferences, GranuleReferences
from l2view.meta.columns import Kind, Value
from l2view.stores.hierarchy import JSON, join

KINDS: dict[str, Kind] = {"profile": "string", "slot": "int"}
"""The fields by which a granule is found."""

SLOTS = 1024
"""The slots in a chunk of a profile's shapes."""

ATTRIBUTE_SLOTS = 256
"""The slots in a chunk of a profile's attributes, and in a block that is read at a time."""


@dataclass
class Packed:
    """What the packed array of one variable holds so far.

    Attributes
    ----------
    shape
        The longest of the granules' shapes along each axis.
    grid
        The largest of their numbers of chunks.
    chunk_shape
        Their chunk shape, None where they differ.
    """

    shape: list[int]
    grid: list[int]
    chunk_shape: list[int] | None

    def add(self, array: ArrayReferences) -> None:
        """Take in one granule's array."""
        self.shape = [max(pair) for pair in zip(self.shape, array.shape, strict=True)]
        self.grid = [max(pair) for pair in zip(self.grid, array.grid, strict=True)]
        if self.chunk_shape is not None and self.chunk_shape != list(array.chunk_shape):
            self.chunk_shape = None

    def document(self, array: ArrayTemplate, slots: int) -> JSON:
        """Return the packed array's Zarr v3 document."""
        if self.chunk_shape is None:
            return array.ragged(slots, self.grid)
        return array.packed(slots, self.shape, self.chunk_shape)


def pack(
    store: icechunk.IcechunkStore,
    granules: Sequence[tuple[str, GranuleReferences]],
) -> list[dict[str, Value]]:
    """Write granules, each into the next slot of its profile.

    Parameters
    ----------
    store
        A writable session's store.
    granules
        Their ids and references.

    Returns
    -------
    list
        The fields by which each is found, in their order.
    """
    root = zarr.open_group(store, mode="a")
    members: dict[str, list[int]] = {}
    for index, (_, granule) in enumerate(granules):
        members.setdefault(granule.profile.name, []).append(index)
    found: list[dict[str, Value]] = [{} for _ in granules]
    for indices in members.values():
        profile = granules[indices[0]][1].profile
        first = _write(store, root, profile, [granules[index][1] for index in indices])
        for slot, index in enumerate(indices, start=first):
            found[index] = {"profile": profile.name, "slot": slot}
    return found


def _write(
    store: icechunk.IcechunkStore,
    root: zarr.Group,
    profile: Profile,
    granules: Sequence[GranuleReferences],
) -> int:
    """Write granules of one profile, and return the slot of the first."""
    path = own_path(profile.name)
    if path not in root:
        _create(store, root, profile, granules[0])
    group = root[path]
    assert isinstance(group, zarr.Group)
    shapes, chunk_shapes, attributes, probes = (
        group[name] for name in ("shapes", "chunk_shapes", "attributes", "probes")
    )
    assert isinstance(shapes, zarr.Array)
    assert isinstance(chunk_shapes, zarr.Array)
    assert isinstance(attributes, zarr.Array)
    assert isinstance(probes, zarr.Array)
    first = int(shapes.shape[0])
    stop = first + len(granules)
    said: JSON = group.attrs.asdict()
    base: JSON = decoded(said["attributes"])
    packed = {name: Packed(**state) for name, state in said["packed"].items()}
    ordered = [{array.path: array for array in granule.arrays} for granule in granules]
    for arrays in ordered:
        for name, array in arrays.items():
            packed[name].add(array)
    put_documents(
        store,
        {
            packed_path(profile.name, array.path): packed[array.path].document(array, stop)
            for array in profile.arrays
        },
    )
    for slot, (granule, arrays) in enumerate(zip(granules, ordered, strict=True), start=first):
        for array in arrays.values():
            place = packed_path(profile.name, array.path)
            put_chunks(store, place, array, granule.checksums, (slot,))
    width = profile.width
    for target, which in ((shapes, "shape"), (chunk_shapes, "chunk_shape")):
        values = [
            [n for array in profile.arrays for n in getattr(arrays[array.path], which)]
            for arrays in ordered
        ]
        target.resize((stop, width))
        if width:
            target[first:stop] = np.array(values, dtype=np.int64).reshape(-1, width)
    for target, texts in (
        (attributes, [_attribute_text(base, granule) for granule in granules]),
        (probes, [json.dumps(list(probes_of(granule))) for granule in granules]),
    ):
        target.resize((stop,))
        target[first:stop] = np.array(texts, dtype=np.dtypes.StringDType())
    group.attrs["packed"] = {name: vars(state) for name, state in packed.items()}
    return first


def _create(
    store: icechunk.IcechunkStore, root: zarr.Group, profile: Profile, granule: GranuleReferences
) -> None:
    """Create the groups and arrays of a profile without granules."""
    arrays = {array.path: array for array in granule.arrays}
    base = {**granule.attributes, **{n: a.document["attributes"] for n, a in arrays.items()}}
    packed = {
        path: {
            "shape": list(array.shape),
            "grid": list(array.grid),
            "chunk_shape": list(array.chunk_shape),
        }
        for path, array in arrays.items()
    }
    own = root.create_group(
        own_path(profile.name),
        attributes={
            "profile": profile.to_json(),
            "attributes": encoded(base),
            "packed": packed,
        },
    )
    for name in ("shapes", "chunk_shapes"):
        chunks = (SLOTS, max(profile.width, 1))
        own.create_array(name, shape=(0, profile.width), chunks=chunks, dtype="int64")
    for name in ("attributes", "probes"):
        own.create_array(name, shape=(0,), chunks=(ATTRIBUTE_SLOTS,), dtype="string")
    groups = {join(packed_path(profile.name), path) for path in ("", *profile.groups)}
    for array in profile.arrays:
        parts = packed_path(profile.name, array.path).split("/")[:-1]
        groups |= {"/".join(parts[:end]) for end in range(1, len(parts) + 1)}
    document = {"zarr_format": 3, "node_type": "group", "attributes": {}}
    put_documents(store, dict.fromkeys(groups | {"granules"}, document))


def probes_of(granule: GranuleReferences) -> Iterator[str]:
    """Yield the keys of chunks, below the granule, that lie in all of its files together.

    Of an array that lies in several files it is ``<path>/c/*``, for all of its chunks.
    """
    seen: set[str] = set()
    for array in sorted(granule.arrays, key=lambda array: array.path):
        files = array.files
        if len(files) > 1:
            yield f"{array.path}/c/*"
        elif not files <= seen:
            first = next(i for i, place in enumerate(array.locations) if place)
            index = np.unravel_index(first, array.grid) if array.grid else ()
            yield "/".join([array.path, "c", *(str(int(i)) for i in index)])
            seen |= files


def _attribute_text(base: Mapping[str, JSON], granule: GranuleReferences) -> str:
    """Return how a granule's attributes differ from its profile's, as JSON."""
    own = dict(granule.attributes)
    own.update((array.path, array.document["attributes"]) for array in granule.arrays)
    changed = {path: differences(base.get(path, {}), said) for path, said in own.items()}
    return json.dumps(encoded({path: said for path, said in changed.items() if said}))
