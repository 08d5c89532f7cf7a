"""A view as VirtualiZarr's manifests, in whatever shape it has.

What lies in files is referred to. The fields, and chunks of Icechunk's own, travel within.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray
from virtualizarr.manifests import ChunkManifest, ManifestArray, ManifestGroup, ManifestStore
from virtualizarr.manifests.manifest import INLINED_CHUNK_PATH
from zarr.core.metadata.v3 import ArrayV3Metadata
from zarr.core.sync import sync

from l2view.errors import ExportError
from l2view.export.reference_table import ReferenceTable, profile_references
from l2view.granules.profile import DEFAULT_KEYS
from l2view.ingest.files import store_registry
from l2view.stores.hierarchy import JSON, join
from l2view.virtual.fields import FieldArray
from l2view.virtual.join_array import JoinedArray
from l2view.virtual.join_shape import JoinedView
from l2view.virtual.store import Shape
from l2view.virtual.tree import Tree

TEXT = np.dtypes.StringDType()


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
    for profile in profile_references(tree, copy_native=copy_native):
        tables = profile.references
        nodes.urls.update(url for table in tables.values() for url in table.urls)
        for member, row in enumerate(profile.table.rows.tolist()):
            inner = [*profile.table.groups, *tables]
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
    profiles = profile_references(tree, copy_native=copy_native)
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
                rows = profile.table.rows
                if path in profile.table.arrays and np.isin(rows, array.rows).all():
                    table, members = profile.read(path), np.searchsorted(array.rows, rows)
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
