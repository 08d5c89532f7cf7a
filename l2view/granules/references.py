"""A granule as references: what its arrays are, and where their chunks lie."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from virtualizarr.manifests import ManifestArray, ManifestGroup
from virtualizarr.manifests.manifest import INLINED_CHUNK_PATH

from l2view.granules.profile import Profile, template
from l2view.stores.hierarchy import JSON, join

type Checksum = str | datetime
"""By which a file is known to be what it was: its ETag, or when it was written last."""


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
    def copied(self) -> int:
        """The bytes of its chunks that lie in no file."""
        return sum(map(len, self.inlined.values()))

    def at(self, path: str) -> ArrayReferences:
        """Return the array at another path."""
        return self if path == self.path else replace(self, path=path)


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
        What tells whether a file has changed, by URL.
    omitted
        Why arrays of the files are left out, by path.
    """

    arrays: tuple[ArrayReferences, ...]
    attributes: Mapping[str, JSON] = field(default_factory=lambda: {"": {}})
    checksums: Mapping[str, Checksum] = field(default_factory=dict)
    omitted: Mapping[str, str] = field(default_factory=dict)

    @property
    def groups(self) -> tuple[str, ...]:
        """The paths of its groups but its own."""
        return tuple(sorted(path for path in self.attributes if path))

    @cached_property
    def profile(self) -> Profile:
        """What it shares with others of its product version.

        Raises
        ------
        ValueError
            Where an array can't be packed.
        """
        arrays = sorted(self.arrays, key=lambda array: array.path)
        templates = tuple(template(array.path, array.document) for array in arrays)
        return Profile(templates, self.groups)

    @property
    def urls(self) -> set[str]:
        """The files that its chunks lie in."""
        return {url for array in self.arrays for url in array.files}


def of_manifest(group: ManifestGroup) -> tuple[list[ArrayReferences], dict[str, JSON]]:
    """Return the arrays of a VirtualiZarr group, and the attributes of its groups by path.

    Raises
    ------
    ValueError
        Where an array has a chunk grid that isn't regular.
    """
    arrays: dict[str, ManifestArray] = {}
    attributes: JSON = {}
    for path, node in _walk(group, ""):
        if isinstance(node, ManifestArray):
            arrays[path] = node
        else:
            attributes[path] = node.metadata.attributes
    # All of a granule's metadata by way of JSON at once, which costs less than one by one.
    documents, attributes = _plain([[a.metadata.to_dict() for a in arrays.values()], attributes])
    found = [
        of_array(array, path, document)
        for (path, array), document in zip(arrays.items(), documents, strict=True)
    ]
    return found, attributes


def _walk(group: ManifestGroup, path: str) -> Iterator[tuple[str, ManifestArray | ManifestGroup]]:
    yield path, group
    for name, array in group.arrays.items():
        yield join(path, name), array
    for name, child in group.groups.items():
        yield from _walk(child, join(path, name))


def of_array(array: ManifestArray, path: str, document: JSON) -> ArrayReferences:
    """Return the references of one VirtualiZarr array with a Zarr v3 document."""
    if document["chunk_grid"]["name"] != "regular":
        raise ValueError(f"{path}: its chunk grid is {document['chunk_grid']['name']}, not regular")
    if document.get("dimension_names") is not None:
        document = {**document, "dimension_names": plain_names(document["dimension_names"])}
    manifest = array.manifest
    locations = manifest._paths.ravel().tolist()
    inlined = dict(manifest._inlined)
    if inlined:
        locations = ["" if place == INLINED_CHUNK_PATH else place for place in locations]
    offsets, lengths = manifest._offsets.ravel(), manifest._lengths.ravel()
    found = ArrayReferences(path, document, locations, offsets, lengths, inlined)
    count = math.prod(found.grid)
    if len(locations) != count:
        # A manifest without entries may have a grid of another shape than its array.
        if any(locations) or inlined:
            raise ValueError(f"{path}: {len(locations)} chunk references for {count} chunks")
        nothing = np.zeros(count, dtype=np.uint64)
        return replace(found, locations=[""] * count, offsets=nothing, lengths=nothing)
    return found


def plain_names(names: Sequence[str | None]) -> list[str | None]:
    """Return the names of dimensions without the groups that they are declared in.

    A dimension is one of its group and of all below it, and is called by its name alone there
    (netCDF-4 user's guide); VirtualiZarr's HDF5 parser says its path.

    Examples
    --------
    >>> plain_names(["data_01/time", None])
    ['time', None]
    """
    plain = [None if name is None else name.rpartition("/")[2] for name in names]
    return plain if len(set(plain)) == len(set(names)) else list(names)


def _plain(value: Any) -> Any:
    text = json.dumps(value, default=_number, ensure_ascii=False)
    return json.loads(text if text.isascii() else readable(text))


def readable(text: str) -> str:
    """Return a text without what UTF-8 can't hold.

    Bytes that aren't UTF-8 reach Python as half a surrogate pair each; they are most often
    Latin-1, which older files are written in.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return re.sub("[\ud800-\udfff]", lambda found: _latin(found.group()), text)
    return text


def _latin(half: str) -> str:
    code = ord(half) - 0xDC00
    return chr(code) if 0x80 <= code <= 0xFF else "\ufffd"


def _number(value: Any) -> Any:
    """Return a NumPy value as JSON has it."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else str(value)
