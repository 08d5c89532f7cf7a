"""Granules as slots of packed arrays: the layout that `ingest` writes (see `l2view.granules`)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import icechunk
import numpy as np
import zarr

from l2view.granules.profile import (
    GRANULES,
    Profile,
    attribute_patch,
    decode_floats,
    encode_floats,
    own_path,
    packed_path,
)
from l2view.granules.references import ArrayReferences, GranuleReferences, put_references
from l2view.meta.columns import Value
from l2view.stores.hierarchy import JSON, group_document, join, parents, put_documents

SLOTS = 1024  # the slots in a chunk of a profile's shapes

ATTRIBUTE_SLOTS = 256
"""The slots in a chunk of a profile's attributes, and in a block that is read at a time."""


def _extend(extent: JSON | None, array: ArrayReferences) -> JSON:
    """Return the extent of a packed array with another granule's array.

    `shape` and `grid` are the largest of the granules' shapes and numbers of chunks along each
    axis; `chunk_shape` is None where theirs differ.
    """
    chunk_shape = list(array.chunk_shape)
    if extent is None:
        return {"shape": list(array.shape), "grid": list(array.grid), "chunk_shape": chunk_shape}
    return {
        "shape": list(map(max, extent["shape"], array.shape)),
        "grid": list(map(max, extent["grid"], array.grid)),
        "chunk_shape": chunk_shape if extent["chunk_shape"] == chunk_shape else None,
    }


def write_packed(
    store: icechunk.IcechunkStore, granules: Sequence[tuple[str, GranuleReferences]]
) -> list[dict[str, Value]]:
    """Write granules, each into the next slot of its profile (see `StorageLayout.write`)."""
    root = zarr.open_group(store, mode="a")
    members: dict[str, list[int]] = {}
    for index, (_, granule) in enumerate(granules):
        members.setdefault(granule.profile.name, []).append(index)
    fields: list[dict[str, Value]] = [{} for _ in granules]
    for name, indices in members.items():
        first = _append(store, root, [granules[index][1] for index in indices])
        for slot, index in enumerate(indices, start=first):
            fields[index] = {"profile": name, "slot": slot}
    return fields


def _append(
    store: icechunk.IcechunkStore, root: zarr.Group, granules: Sequence[GranuleReferences]
) -> int:
    """Write granules of one profile, and return the slot of the first."""
    profile = granules[0].profile
    path = own_path(profile.name)
    if path not in root:
        _create(store, root, profile, granules[0])
    group: Any = root[path]
    first = int(group["shapes"].shape[0])
    stop = first + len(granules)
    state: JSON = group.attrs.asdict()
    extents: dict[str, JSON] = state["packed"]
    arrays = [{array.path: array for array in granule.arrays} for granule in granules]
    for by_path in arrays:
        for name, array in by_path.items():
            extents[name] = _extend(extents.get(name), array)
    documents = {
        packed_path(profile.name, array.path): array.packed_document(stop, **extents[array.path])
        for array in profile.arrays
    }
    put_documents(store, documents)
    for slot, granule in enumerate(granules, start=first):
        for array in granule.arrays:
            packed = packed_path(profile.name, array.path)
            put_references(store, packed, array, granule.checksums, (slot,))
    base: JSON = decode_floats(state["attributes"])
    ordered = [[by_path[array.path] for array in profile.arrays] for by_path in arrays]
    columns = {
        "shapes": [[n for array in own for n in array.shape] for own in ordered],
        "chunk_shapes": [[n for array in own for n in array.chunk_shape] for own in ordered],
        "attributes": [_patch_text(base, granule) for granule in granules],
        "probes": [json.dumps(list(probe_keys(granule))) for granule in granules],
    }
    for name, rows in columns.items():
        target = group[name]
        target.resize((stop, *target.shape[1:]))
        if profile.width or target.ndim == 1:
            target[first:stop] = np.array(rows, dtype=target.dtype)
    group.attrs["packed"] = extents
    return first


def _create(
    store: icechunk.IcechunkStore, root: zarr.Group, profile: Profile, granule: GranuleReferences
) -> None:
    """Create the groups and arrays of a profile without granules."""
    own = root.create_group(
        own_path(profile.name),
        attributes={
            "profile": profile.to_json(),
            "attributes": encode_floats(_node_attributes(granule)),
            "packed": {},
        },
    )
    for name in ("shapes", "chunk_shapes"):
        chunks = (SLOTS, max(profile.width, 1))
        own.create_array(name, shape=(0, profile.width), chunks=chunks, dtype="int64")
    for name in ("attributes", "probes"):
        own.create_array(name, shape=(0,), chunks=(ATTRIBUTE_SLOTS,), dtype="string")
    groups = {join(packed_path(profile.name), path) for path in ("", *profile.groups)}
    for array in profile.arrays:
        groups |= parents(packed_path(profile.name, array.path))
    put_documents(store, dict.fromkeys(groups | {GRANULES}, group_document({})))


def probe_keys(granule: GranuleReferences) -> Iterator[str]:
    """Yield the keys of chunks, below the granule, that lie in all of its files together.

    Of an array that lies in several files it is ``<path>/c/*``, for all of its chunks.
    """
    covered: set[str] = set()
    for array in sorted(granule.arrays, key=lambda array: array.path):
        files = array.files
        if len(files) > 1:
            yield f"{array.path}/c/*"
        elif not files <= covered:
            first = next(i for i, url in enumerate(array.locations) if url)
            index = np.unravel_index(first, array.grid) if array.grid else ()
            yield "/".join([array.path, "c", *(str(int(i)) for i in index)])
            covered |= files


def _node_attributes(granule: GranuleReferences) -> dict[str, JSON]:
    """Return the attributes of a granule's groups and arrays, by path."""
    arrays = {array.path: array.document["attributes"] for array in granule.arrays}
    return {**granule.attributes, **arrays}


def _patch_text(base: Mapping[str, JSON], granule: GranuleReferences) -> str:
    """Return the patches from a profile's attributes to a granule's, by path, as JSON."""
    patches = {
        path: attribute_patch(base.get(path, {}), attributes)
        for path, attributes in _node_attributes(granule).items()
    }
    return json.dumps(encode_floats({path: patch for path, patch in patches.items() if patch}))
