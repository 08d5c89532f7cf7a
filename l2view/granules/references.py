"""A granule as references: what its arrays are, and where their chunks lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property

import icechunk
import numpy as np
from numpy.typing import NDArray

from l2view.errors import L2ViewError
from l2view.granules.profile import ArrayTemplate, Profile
from l2view.stores.hierarchy import JSON, put_values

type Checksum = str | datetime
"""A file's ETag, or the time of its last change: another one means that the file changed."""


@dataclass(frozen=True)
class ArrayReferences:
    """One array of a granule."""

    path: str  # below the granule
    document: JSON  # of Zarr v3, with a regular chunk grid
    # URLs of the chunks' files in C order of the chunk grid; empty without chunk.
    locations: list[str]
    offsets: NDArray[np.uint64]  # in bytes, as the lengths
    lengths: NDArray[np.uint64]
    # The chunks that lie in no file, by their indices.
    inlined: Mapping[tuple[int, ...], bytes] = field(default_factory=dict)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """The shape."""
        return tuple(self.document["shape"])

    @cached_property
    def chunk_shape(self) -> tuple[int, ...]:
        """The chunk shape."""
        return tuple(self.document["chunk_grid"]["configuration"]["chunk_shape"])

    @cached_property
    def grid(self) -> tuple[int, ...]:
        """The number of chunks along each axis."""
        return tuple(-(-n // c) for n, c in zip(self.shape, self.chunk_shape, strict=True))

    @cached_property
    def files(self) -> set[str]:
        """The URLs of the files that its chunks lie in."""
        return set(self.locations) - {""}

    @property
    def inlined_bytes(self) -> int:
        """The bytes of its chunks that lie in no file."""
        return sum(map(len, self.inlined.values()))

    def at(self, path: str) -> ArrayReferences:
        """Return the array at another path."""
        return self if path == self.path else replace(self, path=path)


@dataclass(frozen=True)
class GranuleReferences:
    """One granule."""

    arrays: tuple[ArrayReferences, ...]
    # Of its groups by path, "" for its own.
    attributes: Mapping[str, JSON] = field(default_factory=lambda: {"": {}})
    checksums: Mapping[str, Checksum] = field(default_factory=dict)  # of its files, by URL
    # Why arrays of the files are left out, by path.
    omitted: Mapping[str, str] = field(default_factory=dict)

    @property
    def groups(self) -> tuple[str, ...]:
        """The paths of its groups but its own."""
        return tuple(sorted(path for path in self.attributes if path))

    @cached_property
    def profile(self) -> Profile:
        """Its profile. A `ValueError` says that an array can't be packed."""
        arrays = sorted(self.arrays, key=lambda array: array.path)
        templates = (ArrayTemplate.from_document(array.path, array.document) for array in arrays)
        return Profile(tuple(templates), self.groups)

    @property
    def urls(self) -> set[str]:
        """The files that its chunks lie in."""
        return {url for array in self.arrays for url in array.files}


def put_references(
    store: icechunk.IcechunkStore,
    path: str,
    array: ArrayReferences,
    checksums: Mapping[str, Checksum],
    prefix: Sequence[int] = (),
) -> None:
    """Write the references of an array, and the chunks that it holds itself.

    They go to the array at `path`, with the chunk indices `prefix` before the array's own.
    """
    files = array.files
    failed: object = None
    if len(files) == 1:
        failed = store.set_virtual_refs_arr(
            f"/{path}",
            (*(1 for _ in prefix), *array.grid),
            array.locations,
            array.offsets,
            array.lengths,
            validate_containers=False,
            arr_offset=(*prefix, *(0 for _ in array.grid)),
            checksum=checksums.get(next(iter(files))),
        )
    elif files:
        offsets, lengths = array.offsets.tolist(), array.lengths.tolist()
        chunks = zip(np.ndindex(array.grid), array.locations, offsets, lengths, strict=True)
        specs = [
            _chunk_spec([*prefix, *index], url, offset, length, checksums.get(url))
            for index, url, offset, length in chunks
            if url
        ]
        failed = store.set_virtual_refs(f"/{path}", specs, validate_containers=False)
    if failed:
        raise L2ViewError(f"{array.path}: some of its references can't be written: {failed}")
    if array.inlined:
        values = {
            "/".join([path, "c", *map(str, (*prefix, *index))]): data
            for index, data in array.inlined.items()
        }
        put_values(store, values)


def _chunk_spec(
    index: list[int], url: str, offset: int, length: int, checksum: Checksum | None
) -> icechunk.VirtualChunkSpec:
    return icechunk.VirtualChunkSpec(
        index,
        url,
        offset,
        length,
        etag_checksum=checksum if isinstance(checksum, str) else None,
        last_updated_at_checksum=checksum if isinstance(checksum, datetime) else None,
    )
