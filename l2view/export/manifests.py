"""A view as VirtualiZarr's manifests, in whatever shape it has.

What lies in files is referred to. The fields, and chunks of Icechunk's own, travel within.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from virtualizarr.manifests import ChunkManifest, ManifestArray, ManifestGroup, ManifestStore
from virtualizarr.manifests.manifest import INLINED_CHUNK_PATH
from zarr.core.metadata.v3 import ArrayV3Metadata
from zarr.core.sync import sync

from l2view.errors import ExportError
from l2view.export.reference_table import ReferenceTable, read_profiles, read_references
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
    group, urls = manifest_group(shape, copy_native=copy_native)
    return ManifestStore(group, registry=store_registry(*urls))


def manifest_group(shape: Shape, *, copy_native: bool = False) -> tuple[ManifestGroup, set[str]]:
    """Return the view as a group of manifests, and the URLs of the files that they name.

    Parameters
    ----------
    shape
        The view's shape.
    copy_native
        Whether chunks that nothing else can refer to are read into the manifests.

    Raises
    ------
    ExportError
        Where a chunk can't be referred to, or is made when it is read.
    """
    if isinstance(shape, JoinedView):
        groups, arrays, urls = _joined_nodes(shape, copy_native)
    else:
        groups, arrays, urls = _granule_nodes(shape.tree, copy_native)
    return _nest(groups, arrays), urls


def _nest(groups: Mapping[str, JSON], arrays: Mapping[str, ManifestArray]) -> ManifestGroup:
    """Return groups by path, given with their attributes, and arrays by path as one group."""
    members: dict[str, tuple[dict[str, ManifestArray], dict[str, ManifestGroup]]] = {
        path: ({}, {}) for path in groups
    }
    for path, array in arrays.items():
        parent, _, name = path.rpartition("/")
        members[parent][0][name] = array
    for path in sorted(groups, key=lambda path: -path.count("/") if path else 1):
        child_arrays, child_groups = members[path]
        group = ManifestGroup(arrays=child_arrays, groups=child_groups, attributes=groups[path])
        if not path:
            return group
        parent, _, name = path.rpartition("/")
        members[parent][1][name] = group
    raise AssertionError("a view has a root")


def _granule_nodes(
    tree: Tree, copy_native: bool
) -> tuple[dict[str, JSON], dict[str, ManifestArray], set[str]]:
    """Return the attributes of a tree's groups, its arrays, and the files they lie in."""
    groups: dict[str, JSON] = {"": tree.root["attributes"]}
    arrays = {name: _field_manifest(array) for name, array in tree.fields.items()}
    urls: set[str] = set()
    for granule_table, _, tables in read_profiles(tree, copy_native=copy_native):
        urls |= {url for table in tables.values() for url in table.urls}
        for member, row in enumerate(granule_table.rows.tolist()):
            name = tree.granules.name(row)
            paths = [join(name, path) for path in (*granule_table.groups, *tables)]
            for path, document in zip(paths, sync(tree.documents(paths)), strict=True):
                assert document is not None
                if document["node_type"] == "group":
                    groups[path] = document["attributes"]
                else:
                    table = tables[path[len(name) + 1 :]]
                    arrays[path] = _granule_manifest(document, table, member)
    return groups, arrays, urls


def _joined_nodes(
    shape: JoinedView, copy_native: bool
) -> tuple[dict[str, JSON], dict[str, ManifestArray], set[str]]:
    """Return the same of joined granules."""
    tree = shape.tree
    groups: dict[str, JSON] = {"": shape.root["attributes"]}
    arrays: dict[str, ManifestArray] = {}
    urls: set[str] = set()
    granule_tables = sync(tree.tables())
    for name, stack in shape.joined_groups.items():
        groups |= {
            join(name, path): attributes
            for path, attributes in stack.groups.items()
            if name or path
        }
        arrays |= {join(name, path): _field_manifest(field) for path, field in stack.fields.items()}
        for path, array in stack.arrays.items():
            _require_passthrough(tree, array)
            manifest = ArrayManifest(array.grid)
            for granule_table, locations in granule_tables:
                if path in granule_table.arrays and np.isin(granule_table.rows, array.rows).all():
                    table = read_references(
                        tree, granule_table, locations, path, copy_native=copy_native
                    )
                    members = np.searchsorted(array.rows, granule_table.rows)
                    manifest.put_references(table, *_chunks_in_join(array, table, members))
            _require_fill_value(tree, array, manifest)
            arrays[join(name, path)] = manifest.with_document(array.document)
            urls |= manifest.urls
    return groups, arrays, urls


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
    if array.same_fill.all():
        return
    for member in np.flatnonzero(~array.same_fill):
        if not manifest.is_complete(array, int(member)):
            name = tree.granules.name(int(array.rows[member]))
            raise ExportError(
                f"{name} lacks chunks of {array.table.path}, and has another fill value than "
                "the other granules; copy the view with to_zarr()"
            )


class ArrayManifest:
    """The references of one array, by the indices of its chunks.

    Parameters
    ----------
    grid
        The number of chunks along each axis.
    """

    def __init__(self, grid: tuple[int, ...]) -> None:
        self.paths = np.full(grid, "", dtype=TEXT)
        self.offsets = np.zeros(grid, dtype=np.uint64)
        self.lengths = np.zeros(grid, dtype=np.uint64)
        self.inlined: dict[tuple[int, ...], bytes] = {}
        self.urls: set[str] = set()

    def put_references(
        self, table: ReferenceTable, positions: NDArray[np.int64], index: NDArray[np.int64]
    ) -> None:
        """Put the chunks at some positions of a table at some indices of the array."""
        in_file = table.file_codes[positions] >= 0
        rows = positions[in_file]
        target: Any = tuple(index[in_file].T)
        if len(rows) and not target:  # a scalar array
            rows, target = rows[0], ()
        if in_file.any():
            self.paths[target] = np.array(table.urls, dtype=TEXT)[table.file_codes[rows]]
            self.offsets[target] = table.offsets[rows]
            self.lengths[target] = table.lengths[rows]
        self.urls |= set(table.urls)
        if table.inlined:
            for position, chunk in zip(positions.tolist(), index.tolist(), strict=True):
                if (data := table.inlined.get(position)) is not None:
                    self.put_inlined(tuple(chunk), data)

    def put_inlined(self, index: tuple[int, ...], data: bytes) -> None:
        """Put a chunk that lies in no file."""
        self.inlined[index] = data
        self.paths[index] = INLINED_CHUNK_PATH
        self.lengths[index] = len(data)

    def is_complete(self, array: JoinedArray, member: int) -> bool:
        """Return whether all chunks of one part are there."""
        if array.axis is None:
            return bool((self.paths[member] != "").all())
        cut = slice(int(array.chunk_offsets[member]), int(array.chunk_offsets[member + 1]))
        return bool((np.moveaxis(self.paths, array.axis, 0)[cut] != "").all())

    def with_document(self, document: JSON) -> ManifestArray:
        """Return the array that has a document and these references.

        Raises
        ------
        ExportError
            Where the chunks are of different lengths, which VirtualiZarr doesn't know.
        """
        if document["chunk_grid"]["name"] != "regular":
            raise ExportError(
                "VirtualiZarr's manifests and Kerchunk's references have chunks of one length "
                "only; those of this concatenation differ. Copy the view with to_zarr(), or "
                'open the granules with layout="tree" or "stack"'
            )
        metadata = ArrayV3Metadata.from_dict({**document, "chunk_key_encoding": DEFAULT_KEYS})
        manifest = ChunkManifest.from_arrays(
            paths=self.paths,
            offsets=self.offsets,
            lengths=self.lengths,
            inlined=self.inlined,
            validate_paths=False,
        )
        return ManifestArray(metadata, manifest)


def _granule_manifest(document: JSON, table: ReferenceTable, member: int) -> ManifestArray:
    """Return the array of one granule."""
    grid = tuple(table.grids[member].tolist())
    chunks = table.slice_of(member)
    positions = np.arange(chunks.start, chunks.stop)
    manifest = ArrayManifest(grid)
    manifest.put_references(table, positions, _unravel(positions - chunks.start, grid))
    return manifest.with_document(document)


def _unravel(numbers: NDArray[np.int64], grid: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the indices of chunks in C order, of shape (n, rank)."""
    if not grid:
        return np.zeros((len(numbers), 0), dtype=np.int64)
    return np.stack(np.unravel_index(numbers, grid), axis=-1).astype(np.int64)


def _chunks_in_join(
    array: JoinedArray, table: ReferenceTable, members: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions of granules' chunks, and their indices in a joined array."""
    positions = [np.empty(0, dtype=np.int64)]
    indices = [np.empty((0, len(array.shape)), dtype=np.int64)]
    for granule, member in enumerate(members.tolist()):
        chunks = table.slice_of(granule)
        numbers = np.arange(chunks.start, chunks.stop)
        index = _unravel(numbers - chunks.start, tuple(table.grids[granule].tolist()))
        if array.axis is None:
            index = np.insert(index, 0, member, axis=1)
        else:
            index[:, array.axis] += array.chunk_offsets[member]
        positions.append(numbers)
        indices.append(index)
    return np.concatenate(positions), np.concatenate(indices)


def _field_manifest(field: FieldArray) -> ManifestArray:
    """Return a field, whose chunks lie in no file."""
    manifest = ArrayManifest((field.chunk_count,))
    for number in range(field.chunk_count):
        manifest.put_inlined((number,), field.chunk(number))
    return manifest.with_document(field.document)


def walk_nodes(group: ManifestGroup, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all nodes of a group with their paths, itself first."""
    yield path, group
    for name, array in group.arrays.items():
        yield join(path, name), array
    for name, child in group.groups.items():
        yield from walk_nodes(child, join(path, name))
