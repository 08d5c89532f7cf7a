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
from l2view.export.cells import Cells, cells
from l2view.granules.profile import DEFAULT_KEYS
from l2view.stores.hierarchy import JSON, join
from l2view.virtual.fields import FieldArray
from l2view.virtual.join_array import JoinedArray
from l2view.virtual.join_shape import JoinedView
from l2view.virtual.shape import Shape
from l2view.virtual.tree import Tree

TEXT = np.dtypes.StringDType()


def to_manifest_store(shape: Shape, *, copy_native: bool = False) -> ManifestStore:
    """Return the view as a store of VirtualiZarr's (see `View.to_manifest_store`)."""
    from l2view.ingest.files import store_registry

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
        nodes, arrays, urls = _joined(shape, copy_native)
    else:
        nodes, arrays, urls = _tree(shape.tree, copy_native)
    return _nested(nodes, arrays), urls


def _nested(groups: Mapping[str, JSON], arrays: Mapping[str, ManifestArray]) -> ManifestGroup:
    """Return groups by path, given with their attributes, and arrays by path as one group."""
    members: dict[str, tuple[dict[str, ManifestArray], dict[str, ManifestGroup]]] = {
        path: ({}, {}) for path in groups
    }
    for path, array in arrays.items():
        parent, _, name = path.rpartition("/")
        members[parent][0][name] = array
    for path in sorted(groups, key=lambda path: -path.count("/") if path else 1):
        own, below = members[path]
        made = ManifestGroup(arrays=own, groups=below, attributes=groups[path])
        if not path:
            return made
        parent, _, name = path.rpartition("/")
        members[parent][1][name] = made
    raise AssertionError("a view has a root")


def _tree(
    tree: Tree, copy_native: bool
) -> tuple[dict[str, JSON], dict[str, ManifestArray], set[str]]:
    """Return the attributes of a tree's groups, its arrays, and the files they lie in."""
    groups: dict[str, JSON] = {"": tree.root["attributes"]}
    arrays = {name: _of_field(array) for name, array in tree.fields.items()}
    urls: set[str] = set()
    for inventory, locations in sync(tree.inventories()):
        columns = {
            path: cells(tree, inventory, locations, path, copy_native=copy_native)
            for path in inventory.arrays
            if tree.shows(path)
        }
        urls |= {url for one in columns.values() for url in one.urls}
        for member, row in enumerate(inventory.rows.tolist()):
            name = tree.granules.name(row)
            paths = [join(name, path) for path in (*inventory.groups, *columns)]
            for path, document in zip(paths, sync(tree.documents(paths)), strict=True):
                assert document is not None
                if document["node_type"] == "group":
                    groups[path] = document["attributes"]
                else:
                    found = columns[path[len(name) + 1 :]]
                    arrays[path] = _of_granule(document, found, member)
    return groups, arrays, urls


def _joined(
    shape: JoinedView, copy_native: bool
) -> tuple[dict[str, JSON], dict[str, ManifestArray], set[str]]:
    """Return the same of joined granules."""
    tree = shape.tree
    groups: dict[str, JSON] = {"": shape.root["attributes"]}
    arrays: dict[str, ManifestArray] = {}
    urls: set[str] = set()
    found = sync(tree.inventories())
    for name, stack in shape.joined_groups.items():
        groups |= {join(name, path): said for path, said in stack.groups.items() if name or path}
        arrays |= {join(name, path): _of_field(field) for path, field in stack.fields.items()}
        for path, array in stack.arrays.items():
            _require_untouched(tree, array)
            manifest = Manifest(array.grid)
            for inventory, locations in found:
                if path in inventory.arrays and np.isin(inventory.rows, array.rows).all():
                    columns = cells(tree, inventory, locations, path, copy_native=copy_native)
                    members = np.searchsorted(array.rows, inventory.rows)
                    manifest.take(columns, *_placed(array, columns, members))
            _require_filled(tree, array, manifest)
            arrays[join(name, path)] = manifest.array(array.document)
            urls |= manifest.urls
    return groups, arrays, urls


def _require_untouched(tree: Tree, array: JoinedArray) -> None:
    """Raise where chunks of a joined array are made when they are read."""
    touched = np.flatnonzero(~array.all_passthrough)
    if len(touched):
        names = tree.granules.sample_names(array.rows[touched])
        raise ExportError(
            f"chunks of {array.inventory.path} are made when they are read, for the granules "
            f"differ ({names}), so that nothing can refer to them; copy the view with to_zarr(), "
            "or leave the array out with variables="
        )


def _require_filled(tree: Tree, array: JoinedArray, manifest: Manifest) -> None:
    """Raise where a chunk that isn't there would be read with another fill value."""
    if array.same_fill.all():
        return
    for member in np.flatnonzero(~array.same_fill):
        if not manifest.has_all_of(array, int(member)):
            name = tree.granules.name(int(array.rows[member]))
            raise ExportError(
                f"{name} lacks chunks of {array.inventory.path}, and has another fill value than "
                "the other granules; copy the view with to_zarr()"
            )


class Manifest:
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

    def take(self, columns: Cells, numbers: NDArray[np.int64], index: NDArray[np.int64]) -> None:
        """Take in some chunks, given by their numbers among `columns`, at some indices."""
        there = columns.codes[numbers] >= 0
        at: Any = tuple(index[there].T)
        kept = numbers[there]
        if len(kept) and not at:
            kept, at = kept[0], ()
        if there.any():
            self.paths[at] = np.array(columns.urls, dtype=TEXT)[columns.codes[kept]]
            self.offsets[at] = columns.offsets[kept]
            self.lengths[at] = columns.lengths[kept]
        self.urls |= set(columns.urls)
        if columns.inlined:
            for number, place in zip(numbers.tolist(), index.tolist(), strict=True):
                if (data := columns.inlined.get(number)) is not None:
                    self.put(tuple(place), data)

    def put(self, place: tuple[int, ...], data: bytes) -> None:
        """Take in a chunk that lies in no file."""
        self.inlined[place] = data
        self.paths[place] = INLINED_CHUNK_PATH
        self.lengths[place] = len(data)

    def has_all_of(self, array: JoinedArray, member: int) -> bool:
        """Return whether all chunks of one part are there."""
        if array.axis is None:
            return bool((self.paths[member] != "").all())
        cut = slice(int(array.chunk_offsets[member]), int(array.chunk_offsets[member + 1]))
        return bool((np.moveaxis(self.paths, array.axis, 0)[cut] != "").all())

    def array(self, document: JSON) -> ManifestArray:
        """Return it with the array's document.

        Raises
        ------
        ExportError
            Where the chunks are of different lengths, which VirtualiZarr doesn't know.
        """
        if document["chunk_grid"]["name"] != "regular":
            raise ExportError(
                "VirtualiZarr's manifests and Kerchunk's references have chunks of one length "
                "only, and these granules end to end have not; copy the view with to_zarr(), or "
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


def _of_granule(document: JSON, columns: Cells, member: int) -> ManifestArray:
    """Return the array of one granule."""
    grid = tuple(columns.grids[member].tolist())
    own = columns.own(member)
    numbers = np.arange(own.start, own.stop)
    manifest = Manifest(grid)
    manifest.take(columns, numbers, _indices(numbers - own.start, grid))
    return manifest.array(document)


def _indices(numbers: NDArray[np.int64], grid: tuple[int, ...]) -> NDArray[np.int64]:
    """Return the indices of chunks in C order, of shape (n, rank)."""
    if not grid:
        return np.zeros((len(numbers), 0), dtype=np.int64)
    return np.stack(np.unravel_index(numbers, grid), axis=-1).astype(np.int64)


def _placed(
    array: JoinedArray, columns: Cells, members: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the chunks of granules that a joined array shows, and where it has them."""
    numbers, places = [], []
    for one, member in enumerate(members.tolist()):
        own = columns.own(one)
        found = np.arange(own.start, own.stop)
        index = _indices(found - own.start, tuple(columns.grids[one].tolist()))
        if array.axis is None:
            index = np.insert(index, 0, member, axis=1)
        else:
            index[:, array.axis] += array.chunk_offsets[member]
        numbers.append(found)
        places.append(index)
    rank = len(array.shape)
    return (
        np.concatenate([*numbers, np.empty(0, dtype=np.int64)]),
        np.concatenate([*places, np.empty((0, rank), dtype=np.int64)]),
    )


def _of_field(field: FieldArray) -> ManifestArray:
    """Return a field, whose chunks lie in no file."""
    manifest = Manifest((field.chunk_count,))
    for number in range(field.chunk_count):
        data = field.chunk(number)
        assert data is not None
        manifest.put((number,), data)
    return manifest.array(field.document)


def walked(group: ManifestGroup, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all nodes of a group with their paths, itself first."""
    yield path, group
    for name, array in group.arrays.items():
        yield join(path, name), array
    for name, child in group.groups.items():
        yield from walked(child, join(path, name))
