"""A view's chunk references, as columns and as VirtualiZarr's manifests in whatever shape it has.

What lies in files is referred to. The fields, and chunks of Icechunk's own, travel within.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import batched
from math import prod

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from virtualizarr.manifests import ChunkManifest, ManifestArray, ManifestGroup, ManifestStore
from virtualizarr.manifests.manifest import INLINED_CHUNK_PATH
from zarr.core.buffer import default_buffer_prototype
from zarr.core.chunk_key_encodings import parse_chunk_key_encoding
from zarr.core.metadata.v3 import ArrayV3Metadata
from zarr.core.sync import sync

from l2view.errors import ChunkError, ExportError
from l2view.granules.chunks import INLINE, ChunkTable, iterate_sync
from l2view.granules.profile import DEFAULT_KEYS
from l2view.granules.table import GranuleTable
from l2view.ingest.files import store_registry
from l2view.stores.composed import resolve_chunk
from l2view.stores.hierarchy import JSON, join
from l2view.virtual.fields import FieldArray
from l2view.virtual.join_array import JoinedArray
from l2view.virtual.join_shape import JoinedView
from l2view.virtual.references import array_chunks, chunk_numbers, chunk_offsets
from l2view.virtual.store import Shape
from l2view.virtual.tree import Tree

TEXT = np.dtypes.StringDType()
CONCURRENT_READS = 256  # how many chunks are read together


@dataclass
class ReferenceTable:
    """The chunk references of one array of n granules, each granule's in C order."""

    shapes: NDArray[np.int64]  # what is shown of each granule's array, of shape (n, rank)
    grids: NDArray[np.int64]  # each granule's number of chunks along each axis, of shape (n, rank)
    starts: NDArray[np.int64]  # the position of each granule's first chunk, of shape (n + 1,)
    file_codes: NDArray[np.int32]  # the position of each chunk's file in `urls`, -1 for none
    offsets: NDArray[np.uint64]  # in bytes
    lengths: NDArray[np.uint64]
    urls: list[str] = field(default_factory=list)
    inlined: dict[int, bytes] = field(default_factory=dict)  # chunks in no file, by position

    def slice_of(self, member: int) -> slice:
        """Return the positions of a granule's chunks."""
        return slice(int(self.starts[member]), int(self.starts[member + 1]))

    def urls_of(self, member: int) -> list[str]:
        """Return the URL of each of a granule's chunks, empty for a chunk in no file."""
        codes = self.file_codes[self.slice_of(member)]
        return [self.urls[code] if code >= 0 else "" for code in codes.tolist()]


def shown_references(
    tree: Tree, copy_native: bool
) -> Iterator[tuple[GranuleTable, dict[str, ReferenceTable]]]:
    """Yield the references of a tree's arrays by path, profile by profile."""
    for table in sync(tree.tables()):
        shown = filter(tree.shows, table.arrays)
        yield table, {path: read_references(tree, table, path, copy_native) for path in shown}


def read_references(
    tree: Tree, table: GranuleTable, path: str, copy_native: bool
) -> ReferenceTable:
    """Read the references of the arrays at a path below the granules of one profile.

    A chunk that nothing can refer to is an ExportError, or with `copy_native` is read.
    """
    array = table.arrays[path]
    if (array.begins % np.maximum(array.chunk_shapes, 1)).any():
        raise ExportError(
            f"{path} is cropped within its chunks, to a part of which nothing can refer; crop "
            "with sel(exact=False), or copy the view with to_zarr()"
        )
    grids = array.grids
    starts = chunk_offsets(grids)
    offsets, lengths = np.zeros((2, starts[-1]), dtype=np.uint64)
    codes = np.full(starts[-1], -1, dtype=np.int32)
    references = ReferenceTable(array.lengths, grids, starts, codes, offsets, lengths)
    url_codes: dict[str, int] = {}
    for chunks in iterate_sync(array_chunks(tree.reader, table, path)):
        positions = chunk_numbers(chunks.members, chunks.index, grids, starts)
        files = pa.array(chunks.paths, pa.string()).dictionary_encode()
        # What has no URL is a value of the store, or within its manifest.
        codes_of_files = [
            url_codes.setdefault(file, len(url_codes)) if "://" in file else -1
            for file in files.dictionary.to_pylist()
        ]
        chunk_codes = np.array(codes_of_files, dtype=np.int32)[files.indices.to_numpy()]
        in_file = chunk_codes >= 0
        codes[positions] = chunk_codes
        offsets[positions] = np.where(in_file, chunks.offsets, 0)
        lengths[positions] = np.where(in_file, chunks.lengths, 0)
        for index, data in chunks.inlined.items():
            references.inlined[int(positions[index])] = bytes(data)
        native = np.flatnonzero(~in_file & (chunks.kinds != INLINE))
        if len(native) and not copy_native:
            rows = np.unique(table.rows[chunks.members[native]])
            raise ExportError(
                f"chunks of {path} are values of {tree.description['collection']} itself, to "
                f"which nothing else can refer ({tree.granules.sample_names(rows)}); pass "
                "copy_native=True to copy them, or leave the array out with variables="
            )
        for batch in batched(native.tolist(), CONCURRENT_READS):
            contents = sync(_read_native(tree, table, path, chunks, batch))
            numbers = positions[list(batch)].tolist()
            references.inlined |= dict(zip(numbers, contents, strict=True))
    references.urls = list(url_codes)
    return references


async def _read_native(
    tree: Tree, table: GranuleTable, path: str, chunks: ChunkTable, batch: Sequence[int]
) -> list[bytes]:
    """Read chunks from the store that holds them."""
    array = table.arrays[path]

    async def read(position: int) -> bytes:
        member = int(chunks.members[position])
        variant = array.variants[array.variant_index[member]]
        encoding = parse_chunk_key_encoding(variant["chunk_key_encoding"])
        index = chunks.index[position] + array.first_chunks[member]
        chunk_key = encoding.encode_chunk_key(tuple(index.tolist()))
        row = int(table.rows[member])
        source_key = await resolve_chunk(tree.reader.chunk(row, join(path, chunk_key)))
        assert isinstance(source_key, str)
        data = await tree.source.get(source_key, default_buffer_prototype())
        if data is None:
            raise ChunkError(f"{source_key} is gone from {tree.description['collection']}")
        return data.to_bytes()

    return list(await asyncio.gather(*map(read, batch)))


def to_manifest_store(shape: Shape, *, copy_native: bool = False) -> ManifestStore:
    """Return the view as a store of VirtualiZarr's (see `View.to_manifest_store`)."""
    nodes = manifest_nodes(shape, copy_native=copy_native)
    return ManifestStore(_nest(nodes), registry=store_registry(*nodes.urls))


@dataclass(frozen=True)
class ManifestNodes:
    """The nodes of a view by path: groups by their attributes, and arrays."""

    groups: dict[str, JSON]
    arrays: dict[str, ManifestArray] = field(default_factory=dict)
    urls: set[str] = field(default_factory=set)  # of the files that are referred to


def _nest(nodes: ManifestNodes) -> ManifestGroup:
    """Return nodes as one group."""
    members: dict[str, tuple[dict[str, ManifestArray], dict[str, ManifestGroup]]] = {
        path: ({}, {}) for path in nodes.groups
    }
    for path, array in nodes.arrays.items():
        parent, _, name = path.rpartition("/")
        members[parent][0][name] = array
    for path in sorted(nodes.groups.keys() - {""}, key=lambda path: -path.count("/")):
        parent, _, name = path.rpartition("/")
        members[parent][1][name] = ManifestGroup(*members[path], attributes=nodes.groups[path])
    return ManifestGroup(*members[""], attributes=nodes.groups[""])


def manifest_nodes(shape: Shape, *, copy_native: bool = False) -> ManifestNodes:
    """Return a view as manifests; `copy_native` reads what nothing can refer to into them.

    A chunk that can't be referred to, or is made when it is read, is an ExportError.
    """
    nodes = ManifestNodes({"": shape.root["attributes"]})
    if isinstance(shape, JoinedView):
        _add_joined(nodes, shape, copy_native)
    else:
        _add_granules(nodes, shape.tree, copy_native)
    return nodes


def _add_granules(nodes: ManifestNodes, tree: Tree, copy_native: bool) -> None:
    nodes.arrays.update({name: _field_manifest(array) for name, array in tree.fields.items()})
    for granules, tables in shown_references(tree, copy_native):
        nodes.urls.update(url for table in tables.values() for url in table.urls)
        for member, row in enumerate(granules.rows.tolist()):
            inner = [*granules.groups, *tables]
            paths = [join(tree.granules.name(row), path) for path in inner]
            documents = sync(tree.documents(paths))
            for path, at, document in zip(inner, paths, documents, strict=True):
                assert document is not None
                if document["node_type"] == "group":
                    nodes.groups[at] = document["attributes"]
                    continue
                manifest = ArrayManifest(tuple(tables[path].grids[member].tolist()))
                manifest.put_references(tables[path], tables[path].slice_of(member))
                nodes.arrays[at] = manifest.with_document(document)


def _add_joined(nodes: ManifestNodes, shape: JoinedView, copy_native: bool) -> None:
    tree = shape.tree
    profiles = sync(tree.tables())
    for name, stack in shape.joined_groups.items():
        for path, attributes in stack.groups.items():
            if name or path:
                nodes.groups[join(name, path)] = attributes
        for path, field_array in stack.fields.items():
            nodes.arrays[join(name, path)] = _field_manifest(field_array)
        for path, array in stack.arrays.items():
            _require_passthrough(tree, array)
            manifest = ArrayManifest(array.grid)
            for profile in profiles:
                if path in profile.arrays and np.isin(profile.rows, array.rows).all():
                    members = np.searchsorted(array.rows, profile.rows)
                    table = read_references(tree, profile, path, copy_native)
                    numbers = _numbers_in_join(array, table, members)
                    manifest.put_references(table, slice(0, len(numbers)), numbers)
                    nodes.urls.update(table.urls)
            _require_fill_value(tree, array, manifest)
            nodes.arrays[join(name, path)] = manifest.with_document(array.document)


def _require_passthrough(tree: Tree, array: JoinedArray) -> None:
    """Raise where chunks of a joined array are made when they are read."""
    transcoded = np.flatnonzero(~array.all_passthrough)
    if len(transcoded):
        names = tree.granules.sample_names(array.rows[transcoded])
        raise ExportError(
            f"chunks of {array.table.path} are made when they are read, for the granules "
            f"differ ({names}), so that nothing can refer to them; copy the view with to_zarr(), "
            "or leave the array out with variables="
        )


def _require_fill_value(tree: Tree, array: JoinedArray, manifest: ArrayManifest) -> None:
    """Raise where a chunk that isn't there would be read with another fill value."""
    for member in np.flatnonzero(~array.same_fill).tolist():
        if not manifest.is_complete(array, member):
            name = tree.granules.name(int(array.rows[member]))
            raise ExportError(
                f"{name} lacks chunks of {array.table.path}, and has another fill value than "
                "the other granules; copy the view with to_zarr()"
            )


class ArrayManifest:
    """The references of one array with a grid of chunks, by their numbers in C order."""

    def __init__(self, grid: tuple[int, ...]) -> None:
        self.grid = grid
        self.paths = np.full(prod(grid), "", dtype=TEXT)
        self.offsets, self.lengths = np.zeros((2, prod(grid)), dtype=np.uint64)
        self.inlined: dict[tuple[int, ...], bytes] = {}

    def put_references(
        self, table: ReferenceTable, chunks: slice, numbers: NDArray[np.int64] | None = None
    ) -> None:
        """Put chunks of a table into the array, at some numbers or at all in order."""
        positions = np.arange(chunks.start, chunks.stop)
        numbers = positions - chunks.start if numbers is None else numbers
        in_file = table.file_codes[chunks] >= 0
        rows, targets = positions[in_file], numbers[in_file]
        if len(rows):
            self.paths[targets] = np.array(table.urls, dtype=TEXT)[table.file_codes[rows]]
            self.offsets[targets] = table.offsets[rows]
            self.lengths[targets] = table.lengths[rows]
        if table.inlined:
            for position, number in zip(positions.tolist(), numbers.tolist(), strict=True):
                if (data := table.inlined.get(position)) is not None:
                    self.put_inlined(number, data)

    def put_inlined(self, number: int, data: bytes) -> None:
        """Put a chunk that lies in no file."""
        index = np.unravel_index(number, self.grid) if self.grid else ()
        self.inlined[tuple(map(int, index))] = data
        self.paths[number] = INLINED_CHUNK_PATH
        self.lengths[number] = len(data)

    def is_complete(self, array: JoinedArray, member: int) -> bool:
        """Return whether all chunks of one granule are there."""
        axis, chunks = array.axis or 0, slice(member, member + 1)
        if array.axis is not None:
            chunks = slice(int(array.chunk_offsets[member]), int(array.chunk_offsets[member + 1]))
        return bool((np.moveaxis(self.paths.reshape(self.grid), axis, 0)[chunks] != "").all())

    def with_document(self, document: JSON) -> ManifestArray:
        """Return the array that has a document and these references."""
        if document["chunk_grid"]["name"] != "regular":
            raise ExportError(
                "VirtualiZarr's manifests and Kerchunk's references have chunks of one length "
                "only; those of this concatenation differ. Copy the view with to_zarr(), or "
                'open the granules with layout="tree" or "stack"'
            )
        metadata = ArrayV3Metadata.from_dict({**document, "chunk_key_encoding": DEFAULT_KEYS})
        manifest = ChunkManifest.from_arrays(
            paths=self.paths.reshape(self.grid),
            offsets=self.offsets.reshape(self.grid),
            lengths=self.lengths.reshape(self.grid),
            inlined=self.inlined,
            validate_paths=False,
        )
        return ManifestArray(metadata, manifest)


def _numbers_in_join(
    array: JoinedArray, table: ReferenceTable, members: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the numbers that granules' chunks have in a joined array."""
    numbers = [np.empty(0, dtype=np.int64)]
    for grid, member in zip(table.grids.tolist(), members.tolist(), strict=True):
        index = list(np.unravel_index(np.arange(prod(grid)), grid)) if grid else []
        if array.axis is None:
            index.insert(0, np.full(prod(grid), member))
        else:
            index[array.axis] = index[array.axis] + array.chunk_offsets[member]
        numbers.append(np.ravel_multi_index(tuple(index), array.grid))
    return np.concatenate(numbers)


def _field_manifest(array: FieldArray) -> ManifestArray:
    """Return a field, whose chunks lie in no file."""
    manifest = ArrayManifest((array.chunk_count,))
    for number in range(array.chunk_count):
        manifest.put_inlined(number, array.chunk(number))
    return manifest.with_document(array.document)
