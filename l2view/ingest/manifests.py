"""VirtualiZarr's manifests of a file's arrays, and a granule's references from them."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import zarr
from numpy.typing import NDArray
from virtualizarr.manifests import ChunkManifest, ManifestArray, ManifestGroup, ManifestStore
from virtualizarr.manifests.manifest import INLINED_CHUNK_PATH
from zarr.core.group import ConsolidatedMetadata, GroupMetadata
from zarr.core.metadata.v3 import ArrayV3Metadata
from zarr.storage import StorePath

from l2view.arrays.cf import zarr_attributes
from l2view.arrays.quiet import QUIET
from l2view.errors import IngestError
from l2view.geolocation.coordinates import basename, parent
from l2view.granules.profile import DEFAULT_KEYS
from l2view.granules.references import ArrayReferences
from l2view.granules.table import regular_grid
from l2view.stores.hierarchy import JSON, NO_NODES, Node, join, parents
from l2view.text import first_line, replace_surrogates


class NamelessStore(ManifestStore):
    """A store whose text is short: zarr asks for it with each document that it reads.

    VirtualiZarr's has all references in it, which takes minutes of files with many groups.
    """

    def __str__(self) -> str:
        return "virtual"


@dataclass
class Manifests:
    """What a parser makes of a file: arrays, the attributes of groups, and why others are left out.

    All are by path; a group of which nothing is said may be missing.
    """

    arrays: dict[str, ManifestArray] = field(default_factory=dict)
    groups: dict[str, JSON] = field(default_factory=lambda: {"": {}})
    omitted: dict[str, str] = field(default_factory=dict)

    def add(self, group: ManifestGroup, path: str = "") -> Self:
        """Add a group of VirtualiZarr's, and all below it."""
        self.groups[path] = group.metadata.attributes
        self.arrays |= {join(path, name): array for name, array in group.arrays.items()}
        for name, child in group.groups.items():
            self.add(child, join(path, name))
        return self

    def drop(self, path: str) -> None:
        """Take out what lies at a path, for harvesters not to read it."""
        for nodes in (self.arrays, self.groups):
            for node in [node for node in nodes if node == path or node.startswith(f"{path}/")]:
                del nodes[node]


def readable_group(manifests: Manifests, registry: Any) -> zarr.Group:
    """Return a file's references as a group whose metadata is in memory, its chunks readable."""
    root = _nest(manifests)
    path = StorePath(NamelessStore(root, registry=registry))
    return zarr.Group(zarr.AsyncGroup(_consolidated(root), path))


def _consolidated(group: ManifestGroup) -> GroupMetadata:
    metadata: dict[str, Any] = {name: array.metadata for name, array in group.arrays.items()}
    metadata |= {name: _consolidated(child) for name, child in group.groups.items()}
    return replace(group.metadata, consolidated_metadata=ConsolidatedMetadata(metadata=metadata))


MOST_CHUNKS = 10**7
"""The chunks of an array that may be held; VirtualiZarr holds those that aren't stored too."""


def chunk_grid(document: JSON) -> list[int]:
    """Return the chunks along each axis; an `IngestError` says that they are too many to hold."""
    lengths = document["chunk_grid"]["configuration"]["chunk_shape"]
    grid = [-(-n // max(c, 1)) for n, c in zip(document["shape"], lengths, strict=True)]
    if math.prod(grid) > MOST_CHUNKS:
        raise IngestError(
            f"it is a grid of {math.prod(grid):,} chunks, stored or not; l2view refers to "
            f"{MOST_CHUNKS:,} of an array at most: rechunk it"
        )
    return grid


@dataclass(frozen=True)
class Chunks:
    """The chunks of an array, each of which may be set; those without a path aren't stored."""

    paths: np.ndarray[Any, np.dtypes.StringDType]  # of the shape of its chunk grid, as the others
    offsets: NDArray[np.uint64]
    lengths: NDArray[np.uint64]
    inlined: dict[tuple[int, ...], bytes] = field(default_factory=dict)

    @classmethod
    def missing(cls, document: JSON) -> Self:
        """Return the chunks of an array with a Zarr v3 document, none of which is stored."""
        grid = chunk_grid(document)
        paths = np.full(grid, "", np.dtypes.StringDType())
        return cls(paths, np.zeros(grid, np.uint64), np.zeros(grid, np.uint64))

    def refer(self, index: tuple[int, ...], url: str, offset: int, length: int) -> None:
        """Set a chunk to what lies in a file."""
        self.paths[index], self.offsets[index], self.lengths[index] = url, offset, length

    def copy(self, index: tuple[int, ...], data: bytes) -> None:
        """Set a chunk to bytes."""
        self.refer(index, INLINED_CHUNK_PATH, 0, len(data))
        self.inlined[index] = data

    def to_manifest(self) -> ChunkManifest:
        """Return them as VirtualiZarr has them."""
        return ChunkManifest.from_arrays(
            paths=self.paths,
            offsets=self.offsets,
            lengths=self.lengths,
            validate_paths=False,
            inlined=self.inlined,
        )


def to_manifest_array(document: JSON, chunks: Chunks) -> ManifestArray:
    """Return VirtualiZarr's array with a Zarr v3 document and chunks."""
    lengths = document["chunk_grid"]["configuration"]["chunk_shape"]
    grid = regular_grid([max(length, 1) for length in lengths])
    with QUIET:  # of data types without a specification
        metadata = ArrayV3Metadata.from_dict(
            {**document, "chunk_grid": grid, "chunk_key_encoding": DEFAULT_KEYS}
        )
    return ManifestArray(metadata, chunks.to_manifest())


def copied_array(metadata: ArrayV3Metadata, data: bytes) -> ManifestArray:
    """Return an array whose values are the bytes of one chunk, fill values where there are none."""
    chunks = Chunks.missing(metadata.to_dict())
    if data:
        chunks.copy((0,) * len(metadata.shape), data)
    return ManifestArray(metadata, chunks.to_manifest())


type ReadChunks = Callable[[str, JSON], Chunks]
"""Returns the chunks of the array at a path with a Zarr v3 document."""


def read_nodes(paths: Iterable[str], node_at: Callable[[str], Node], read: ReadChunks) -> Manifests:
    """Return the nodes of a Zarr hierarchy."""
    manifests = Manifests()
    for path in paths:
        try:
            document = (node := node_at(path)).to_v3()
            if not node.is_array:
                manifests.groups[path] = document.get("attributes", {})
            elif path:
                manifests.arrays[path] = to_manifest_array(document, read(path, document))
            else:
                raise IngestError("it is an array without a name")
        except Exception as error:  # of JSON, or of data types and grids that zarr lacks
            manifests.omitted[path] = first_line(error)
    return manifests


def _nest(manifests: Manifests) -> ManifestGroup:
    arrays: defaultdict[str, dict[str, ManifestArray]] = defaultdict(dict)
    groups: defaultdict[str, dict[str, ManifestGroup]] = defaultdict(dict)
    for path, array in manifests.arrays.items():
        group, _, name = path.rpartition("/")
        arrays[group][name] = array
    for path in sorted(manifests.groups, reverse=True):  # what lies in a group before it
        group, _, name = path.rpartition("/")
        groups[group][name] = ManifestGroup(arrays[path], groups[path], manifests.groups[path])
    return groups[""][""]


def manifest_references(manifests: Manifests) -> tuple[list[ArrayReferences], dict[str, JSON]]:
    """Return the references of arrays, and the attributes of groups by path."""
    arrays = manifests.arrays
    # All of a granule's metadata by way of JSON at once, which costs less than one by one.
    text = json.dumps(
        [[array.metadata.to_dict() for array in arrays.values()], manifests.groups],
        default=json_attribute,
        ensure_ascii=False,
    )
    documents, attributes = json.loads(text if text.isascii() else replace_surrogates(text))
    # Harvesters read them, and what JSON lacks can't be read.
    manifests.groups |= attributes
    for array, document in zip(arrays.values(), documents, strict=True):
        array.metadata.attributes.update(document["attributes"])
    pairs = zip(arrays.items(), documents, strict=True)
    return [_references(array, path, document) for (path, array), document in pairs], attributes


def storable_name(name: str, taken: Collection[str]) -> str:
    """Return a name that Zarr can hold; where it isn't `name`, none of those that are `taken`."""
    storable = re.sub(r"[\\\0]", "_", name)
    storable += "_" if storable in NO_NODES else ""
    while storable != name and storable in taken:
        storable += "_"
    return storable


def rename_nodes(manifests: Manifests) -> tuple[Manifests, list[str]]:
    """Return nodes in all their groups, by names that Zarr can hold, and notes on those renamed."""
    arrays, groups = manifests.arrays, manifests.groups
    paths = {*arrays, *groups}.union(*map(parents, [*arrays, *groups])) - {""}
    names: defaultdict[str, set[str]] = defaultdict(set)
    for path in paths:
        names[parent(path)].add(basename(path))
    renamed, notes = {"": ""}, []
    for path in sorted(paths):
        group, siblings, name = renamed[parent(path)], names[parent(path)], basename(path)
        storable = storable_name(name, siblings)
        siblings.add(storable)
        renamed[path] = join(group, storable)
        if storable != name:
            notes.append(f"{join(group, name)!r} is called {storable}, as Zarr has no such name")
    if len({renamed[path] for path in arrays}) < len(arrays):  # as "/a" is "a"
        raise IngestError("several of its arrays have one name")
    holders = {path for path in renamed if path not in arrays}.union(groups)
    return Manifests(
        {renamed[path]: array for path, array in arrays.items()},
        {renamed[path]: groups.get(path, {}) for path in holders},
        manifests.omitted,
    ), notes


def _references(array: ManifestArray, path: str, document: JSON) -> ArrayReferences:
    """Return the references of one VirtualiZarr array with a Zarr v3 document."""
    if document["chunk_grid"]["name"] != "regular":
        raise ValueError(f"{path}: its chunk grid is {document['chunk_grid']['name']}, not regular")
    if document.get("dimension_names") is not None:
        names = local_dimension_names(document["dimension_names"])
        document = {**document, "dimension_names": names}
    attributes = zarr_attributes(document["attributes"], document["data_type"])
    document = {**document, "attributes": attributes}
    manifest = array.manifest
    locations = manifest._paths.ravel().tolist()
    inlined = dict(manifest._inlined)
    if inlined:
        locations = ["" if url == INLINED_CHUNK_PATH else url for url in locations]
    # VirtualiZarr leaves them as they were in memory for chunks that aren't stored.
    is_stored = manifest._paths.ravel() != ""
    offsets, lengths = (
        np.where(is_stored, values.ravel(), np.uint64(0))
        for values in (manifest._offsets, manifest._lengths)
    )
    references = ArrayReferences(path, document, locations, offsets, lengths, inlined)
    count = math.prod(references.grid)
    if len(locations) != count:
        # A manifest without entries may have a grid of another shape than its array.
        if any(locations) or inlined:
            raise ValueError(f"{path}: {len(locations)} chunk references for {count} chunks")
        nothing = np.zeros(count, dtype=np.uint64)
        return replace(references, locations=[""] * count, offsets=nothing, lengths=nothing)
    return references


def local_dimension_names(names: Sequence[str | None]) -> list[str | None]:
    """Return the names of dimensions without the groups that they are declared in.

    A dimension is one of its group and of all below it, and is called by its name alone there
    (netCDF-4 user's guide); VirtualiZarr's HDF5 parser gives its path.

    Examples
    --------
    >>> local_dimension_names(["data_01/time", None])
    ['time', None]
    """
    local = [None if name is None else name.rpartition("/")[2] for name in names]
    return local if len(set(local)) == len(set(names)) else list(names)


def json_attribute(value: Any) -> Any:
    r"""Return an attribute as JSON has it, what JSON lacks as text.

    Bytes are UTF-8 or else Latin-1, in hexadecimal where they are opaque; structures are told by
    the names of their fields.

    Examples
    --------
    >>> json_attribute(np.array([1 + 2j])), json_attribute(np.void(b"\x01\xff"))
    (['(1+2j)'], '01ff')
    """
    match value:
        case np.ndarray() if value.dtype.kind in "biuf" and value.dtype.itemsize <= 8:
            return value.tolist()
        case np.ndarray():
            return [json_attribute(item) for item in value] if value.ndim else value[()]
        case list() | tuple():
            return [json_attribute(item) for item in value]
        case np.void() if value.dtype.names is not None:
            return {name: json_attribute(value[name]) for name in value.dtype.names}
        case np.void():
            return value.tobytes().hex()
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError:
                return value.decode("latin-1")
        case np.floating() if value.dtype.itemsize > 8 and float(value) != value == value:
            return str(value)  # which no double is
        case np.bool_() | np.integer() | np.floating():
            return float(value) if isinstance(value, np.floating) else value.item()
        case None | str() | int() | float() | dict():
            return value
    return str(value)
