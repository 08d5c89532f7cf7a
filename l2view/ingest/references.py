"""A granule as references: what its arrays are, and where their chunks lie."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from virtualizarr.manifests import ManifestArray, ManifestGroup
from zarr.core.buffer import default_buffer_prototype

from l2view.hierarchy import JSON, join


@dataclass(frozen=True)
class ArrayReferences:
    """One array of a granule.

    Attributes
    ----------
    path
        Its path below the granule.
    document
        Its Zarr v3 document, with a regular chunk grid.
    locations
        The URL of each chunk's file, in C order of the chunk grid; empty where there is no
        chunk.
    offsets, lengths
        Where in the file the chunk lies, in bytes, uint64, of the same length.
    inlined
        The bytes of chunks that lie in no file, by their indices.
    """

    path: str
    document: JSON
    locations: list[str]
    offsets: NDArray[np.uint64]
    lengths: NDArray[np.uint64]
    inlined: Mapping[tuple[int, ...], bytes] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""
        return tuple(self.document["shape"])

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """The chunk shape."""
        return tuple(self.document["chunk_grid"]["configuration"]["chunk_shape"])

    @property
    def grid(self) -> tuple[int, ...]:
        """The number of chunks along each axis."""
        return tuple(-(-n // c) for n, c in zip(self.shape, self.chunk_shape, strict=True))


@dataclass(frozen=True)
class GranuleReferences:
    """One granule.

    Attributes
    ----------
    arrays
        Its arrays.
    attributes
        The attributes of its groups by path, ``""`` for the granule's own.
    checksums
        The ETag of each file, by URL.
    """

    arrays: tuple[ArrayReferences, ...]
    attributes: Mapping[str, JSON] = field(default_factory=lambda: {"": {}})
    checksums: Mapping[str, str] = field(default_factory=dict)

    @property
    def groups(self) -> tuple[str, ...]:
        """The paths of its groups but its own."""
        return tuple(sorted(path for path in self.attributes if path))

    @property
    def urls(self) -> set[str]:
        """The files that its chunks lie in."""
        return {url for array in self.arrays for url in array.locations if url}


def of_manifest(group: ManifestGroup, path: str = "") -> tuple[list[ArrayReferences], JSON]:
    """Return the arrays of a VirtualiZarr group, and the attributes of its groups by path.

    Raises
    ------
    ValueError
        Where an array has a chunk grid that isn't regular.
    """
    arrays = [of_array(array, join(path, name)) for name, array in group.arrays.items()]
    attributes: JSON = {path: _plain(group.metadata.attributes)}
    for name, child in group.groups.items():
        below, said = of_manifest(child, join(path, name))
        arrays.extend(below)
        attributes.update(said)
    return arrays, attributes


def of_array(array: ManifestArray, path: str) -> ArrayReferences:
    """Return the references of one VirtualiZarr array."""
    buffers = array.metadata.to_buffer_dict(default_buffer_prototype())
    document: JSON = json.loads(buffers["zarr.json"].to_bytes())
    if document["chunk_grid"]["name"] != "regular":
        raise ValueError(f"{path}: its chunk grid is {document['chunk_grid']['name']}, not regular")
    manifest = array.manifest
    grid = tuple(
        -(-n // c)
        for n, c in zip(
            document["shape"], document["chunk_grid"]["configuration"]["chunk_shape"], strict=True
        )
    )
    count = int(np.prod(grid, dtype=np.int64))
    locations = list(_locations(manifest._paths.ravel().tolist()))
    offsets, lengths = manifest._offsets.ravel(), manifest._lengths.ravel()
    if len(locations) != count:
        # A manifest without entries may have a grid of another shape than its array.
        if any(locations) or manifest._inlined:
            raise ValueError(f"{path}: {len(locations)} chunk references for {count} chunks")
        locations, offsets = [""] * count, np.zeros(count, dtype=np.uint64)
        lengths = offsets
    return ArrayReferences(path, document, locations, offsets, lengths, dict(manifest._inlined))


def _locations(paths: list[str]) -> Iterator[str]:
    """Yield the URLs of chunks, empty where there is none or its bytes are inlined."""
    return ("" if path.startswith("__") else path for path in paths)


def _plain(value: Any) -> JSON:
    plain: JSON = json.loads(json.dumps(value, default=_number))
    return plain


def _number(value: Any) -> Any:
    """Return a NumPy value as JSON has it."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else str(value)
