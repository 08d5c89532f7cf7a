"""HDF5 files: what VirtualiZarr's parser refers to, and what can't be referred to.

The parser takes a dataset for chunks in the file. Some aren't that: values in the dataset's own
header, in other files, chunks that skip a filter, data types without a Zarr form. It refuses
some of them, and with them the whole file; others it would show as fill values. Here each is
copied where it is small, or left out with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import zarr
from obspec_utils.protocols import ReadableFile
from obspec_utils.registry import ObjectStoreRegistry
from virtualizarr.manifests import ChunkManifest, ManifestArray, ManifestGroup, ManifestStore
from virtualizarr.manifests.manifest import INLINED_CHUNK_PATH
from virtualizarr.parsers import HDFParser
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from l2view.errors import IngestError
from l2view.stores.hierarchy import JSON, join
from l2view.text import first_line

OWN = ("CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "_NCProperties", "_nc3_strict")
"""Attributes by which HDF5 and netCDF-4 keep dimensions; ``_Netcdf4…`` are such too."""

PURE_DIMENSION = b"This is a netCDF dimension but not a netCDF variable"
"""How the attribute NAME of a dimension without a variable begins (netCDF-4 file format)."""

NOT_COORDINATE = "_nc4_non_coord_"
"""How the HDF5 name begins of a variable called like a dimension that it doesn't lie along."""


@dataclass(frozen=True)
class Obstacle:
    """Why a dataset can't be referred to, and whether its values can be copied."""

    reason: str
    is_copyable: bool = True


def parse_hdf5(
    url: str, reader: ReadableFile, stores: ObjectStoreRegistry[Any], threshold: int
) -> tuple[ManifestStore, dict[str, str]]:
    """Return an HDF5 file as references (see `l2view.ingest.formats.CheckedParser`).

    Raises
    ------
    OSError
        Where it is no HDF5 file, or is cut off.
    """

    def parse(source: Any = reader, **options: Any) -> ManifestGroup:
        parser = HDFParser(reader_factory=lambda *_: source, **options)
        return parser(url, stores)._group

    omitted: dict[str, str] = {}
    with h5py.File(reader, mode="r") as file:
        group = _parse_chunks_only(file, parse)
    if group is None:
        with h5py.File(reader, mode="r") as file:
            group, omitted = _parse_and_copy(file, parse, threshold)
    return ManifestStore(_rename_variables(group), registry=stores), omitted


def _parse_chunks_only(file: h5py.File, parse: Any) -> ManifestGroup | None:
    """Parse a file whose datasets all lie in its root and are chunks; None where one isn't.

    The parser is given the open file, whose headers were read to see that, and closes it.
    """
    datasets: dict[str, h5py.h5d.DatasetID] = {}  # what is open already opens again in no time

    def look(name: bytes, info: Any) -> bool | None:
        if info.type != h5py.h5l.TYPE_HARD:
            return True
        node = h5py.h5o.open(file.id, name)
        if not isinstance(node, h5py.h5d.DatasetID):
            return True
        if not node.get_storage_size():
            if _obstacle(node) is not None:
                return True
            if _is_pure_dimension(node):
                return None
        # What lies in one place has an offset, and what doesn't must have chunks: that of
        # other layouts can't be gone through, which is an error.
        elif node.get_offset() is None and node.chunk_iter(_skips_a_filter):
            return True
        datasets[name.decode()] = node
        return None

    try:
        if file.id.links.visit(look, info=True):
            return None
        group: ManifestGroup = parse(file.id)
    except Exception:  # a dataset that is something else: which one, is found in parts
        return None
    return group if datasets.keys() == group.arrays.keys() else None


def _parse_and_copy(
    file: h5py.File, parse: Any, threshold: int
) -> tuple[ManifestGroup, dict[str, str]]:
    """Parse any file, and copy what can't be referred to; return why arrays are left out, too."""
    obstacles: dict[str, Obstacle] = {}
    try:
        group = parse()
        is_sound = not any(_obstacle(_open(file, path)) for path in _suspects(group))
    except Exception:  # one dataset refuses the whole file: which one, is found below
        is_sound = False
    if not is_sound:
        group, obstacles = _parse_by_group(file, parse, ())
    referred = set(_paths(group))
    copies: dict[str, ManifestArray] = {}
    omitted = {path: o.reason for path, o in obstacles.items() if not o.is_copyable}
    names: list[str] = []
    file.id.links.visit(lambda name: names.append(name.decode()))
    for path in dict.fromkeys([*names, *obstacles]):
        if path in referred or path in omitted or not _is_variable(file, path):
            continue
        try:
            copies[path] = _copy(file[path], threshold)
        except (IngestError, OSError, TypeError, ValueError, RuntimeError) as error:
            reasons = [obstacles[path].reason] if path in obstacles else []
            omitted[path] = "; ".join([*reasons, first_line(error)])
    return _with_arrays(group, copies), omitted


def _open(file: h5py.File, path: str) -> Any:
    return h5py.h5o.open(file.id, path.encode())


def _suspects(group: ManifestGroup, path: str = "") -> Iterator[str]:
    """Yield the paths of arrays that the parser may have got wrong.

    It shows values that it finds no chunks of as fill values, and takes each chunk of a
    compressed dataset for one that was compressed.
    """
    for name, array in group.arrays.items():
        is_empty = not array.manifest._paths.any()
        if (array.size and is_empty) or len(array.metadata.codecs) > 1:
            yield join(path, name)
    for name, child in group.groups.items():
        yield from _suspects(child, join(path, name))


def _obstacle(dataset: h5py.h5d.DatasetID) -> Obstacle | None:
    """Return why a dataset's values aren't chunks of its file, None where they are."""
    if dataset.get_offset() is not None:
        return None  # all of it lies in one place of the file
    if dataset.get_space().get_simple_extent_type() == h5py.h5s.NULL:
        return Obstacle("it has no dataspace", is_copyable=False)
    properties = dataset.get_create_plist()
    layout = properties.get_layout()
    if layout == h5py.h5d.VIRTUAL:
        return Obstacle("it is a virtual dataset of other files", is_copyable=False)
    if layout == h5py.h5d.COMPACT:
        return Obstacle("its values lie in its header")
    if layout == h5py.h5d.CONTIGUOUS:
        if properties.get_external_count():
            return Obstacle("its values lie in another file", is_copyable=False)
        return None
    if properties.get_nfilters() and dataset.chunk_iter(_skips_a_filter) is not None:
        return Obstacle("some of its chunks skip a filter")
    return None


def _skips_a_filter(chunk: Any) -> bool | None:
    return True if chunk.filter_mask else None


def _parse_by_group(
    group: h5py.Group, parse: Any, above: tuple[int, ...]
) -> tuple[ManifestGroup, dict[str, Obstacle]]:
    """Parse group by group, and where that fails dataset by dataset.

    The group lies in those at the addresses `above`. Returns what can be referred to, and the
    obstacles of other datasets, by path.
    """
    path, above = group.name.strip("/"), (*above, _address(group))
    obstacles: dict[str, Obstacle] = {}
    members: dict[str, Any] = {}
    for name in group:
        obstacle = _link_obstacle(group, name, above)
        if obstacle is None:
            members[name] = group[name]
        else:
            obstacles[join(path, name)] = obstacle

    def only(*names: str) -> ManifestGroup:
        return parse(group=group.name, drop_variables=set(group) - set(names))  # type: ignore[no-any-return]

    try:
        attributes = dict(only().metadata.attributes)
    except Exception:  # of one attribute, such as a text in Latin-1
        attributes = _attributes(group)
    datasets = [name for name, node in members.items() if isinstance(node, h5py.Dataset)]
    arrays: dict[str, ManifestArray] = {}
    try:
        arrays.update(only(*datasets).arrays)
    except Exception:  # each parser's library has errors of its own; the next loop names them
        for name in datasets:
            try:
                arrays.update(only(name).arrays)
            except Exception as error:  # the same
                obstacles[join(path, name)] = Obstacle(first_line(error))
    groups: dict[str, ManifestGroup] = {}
    for name, node in members.items():
        if isinstance(node, h5py.Group):
            groups[name], more = _parse_by_group(node, parse, above)
            obstacles |= more
    return ManifestGroup(arrays, groups, attributes), obstacles


def _link_obstacle(group: h5py.Group, name: str, above: tuple[int, ...]) -> Obstacle | None:
    """Return why a member of a group is left out, None where it isn't."""
    if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
        return Obstacle("it is a link into another file", is_copyable=False)
    node = group.get(name)
    if node is None:
        return Obstacle("it is a link to nothing", is_copyable=False)
    if isinstance(node, h5py.Dataset):
        return _obstacle(node.id)
    if isinstance(node, h5py.Group) and _address(node) in above:
        return Obstacle("it is a link to a group that it lies in", is_copyable=False)
    return None


def _address(group: h5py.Group) -> int:
    return int(h5py.h5o.get_info(group.id).addr)


def _paths(group: ManifestGroup, path: str = "") -> Iterator[str]:
    yield from (join(path, name) for name in group.arrays)
    for name, child in group.groups.items():
        yield from _paths(child, join(path, name))


def _with_arrays(group: ManifestGroup, arrays: Mapping[str, ManifestArray]) -> ManifestGroup:
    """Return a group with more arrays in it, by path."""
    if not arrays:
        return group
    own = {path: array for path, array in arrays.items() if "/" not in path}
    groups = dict(group.groups)
    for name in {path.partition("/")[0] for path in arrays if "/" in path}:
        inside = {p.partition("/")[2]: a for p, a in arrays.items() if p.startswith(f"{name}/")}
        groups[name] = _with_arrays(groups.get(name, ManifestGroup()), inside)
    return ManifestGroup({**group.arrays, **own}, groups, dict(group.metadata.attributes))


def _rename_variables(group: ManifestGroup) -> ManifestGroup:
    """Return a group whose variables have the names that netCDF-4 gives them.

    One that is called like a dimension but isn't its coordinate lies under another name (netCDF-4
    file format, "HDF5 dimension scales").
    """
    arrays = {name.removeprefix(NOT_COORDINATE): a for name, a in group.arrays.items()}
    if len(arrays) != len(group.arrays):
        arrays = dict(group.arrays)
    groups = {name: _rename_variables(child) for name, child in group.groups.items()}
    return ManifestGroup(arrays, groups, dict(group.metadata.attributes))


def _is_variable(file: h5py.File, path: str) -> bool:
    """Return whether there is a dataset at `path` that isn't only a dimension of netCDF-4."""
    node = _open(file, path)
    return isinstance(node, h5py.h5d.DatasetID) and not _is_pure_dimension(node)


def _is_pure_dimension(node: h5py.h5d.DatasetID) -> bool:
    if not h5py.h5a.exists(node, b"NAME"):
        return False
    attribute = h5py.h5a.open(node, b"NAME")
    value = np.empty(attribute.shape, attribute.dtype)
    attribute.read(value)
    name = value.tolist()
    text = name.encode(errors="replace") if isinstance(name, str) else name
    return isinstance(text, bytes) and text.startswith(PURE_DIMENSION)


def _copy(dataset: h5py.Dataset, threshold: int) -> ManifestArray:
    """Return a dataset as an array that holds its own values.

    An `IngestError` says that its data type has no Zarr form, or that it is too large.
    """
    dtype: Any = dataset.dtype
    texts = h5py.check_vlen_dtype(dtype) in (str, bytes)
    if not texts and dtype.kind not in "biufcSV":
        raise IngestError(f"HDF5's {dataset.id.get_type().__class__.__name__} has no Zarr form")
    allocated = dataset.size and dataset.id.get_storage_size()
    if allocated and dataset.nbytes > threshold:
        raise IngestError(
            f"its {dataset.nbytes:,} bytes are more than inline_threshold={threshold:,}"
        )
    attributes = _attributes(dataset)
    store = MemoryStore()
    array = zarr.create_array(
        store,
        shape=dataset.shape,
        chunks=tuple(max(length, 1) for length in dataset.shape),
        dtype="string" if texts else dtype.newbyteorder("="),
        fill_value="" if texts else dataset.fillvalue,
        dimension_names=_dimension_names(dataset),
        attributes=attributes,
    )
    if allocated:
        array[...] = dataset.asstr()[()] if texts else dataset[()]
    key = "/".join(["c", *("0" for _ in dataset.shape)])
    chunk = sync(store.get(key, default_buffer_prototype()))
    metadata: Any = array.metadata
    return ManifestArray(metadata, _manifest(dataset.shape, chunk.to_bytes() if chunk else None))


def _manifest(shape: tuple[int, ...], chunk: bytes | None) -> ChunkManifest:
    """Return the manifest of an array with one chunk, or none."""
    grid = tuple(min(length, 1) for length in shape)
    if not chunk:
        return ChunkManifest(entries={}, shape=grid)
    return ChunkManifest.from_arrays(
        paths=np.full(grid, INLINED_CHUNK_PATH, dtype=np.dtypes.StringDType()),
        offsets=np.zeros(grid, dtype=np.uint64),
        lengths=np.full(grid, len(chunk), dtype=np.uint64),
        inlined={(0,) * len(grid): chunk},
    )


def _dimension_names(dataset: h5py.Dataset) -> list[str | None] | None:
    """Return the names of a dataset's dimensions as the parser gives them, None without any."""
    group = dataset.parent.name
    names: list[str | None] = []
    for scales in dataset.dims:
        if len(scales) == 1:
            full = str(scales[0].name)
        elif dataset.is_scale:
            full = str(dataset.name)
        else:
            names.append(f"phony_dim_{len(names)}")
            continue
        names.append(full.removeprefix(group).removeprefix("/"))
    return names or None


def _attributes(node: h5py.Group | h5py.Dataset) -> JSON:
    """Return the attributes of a group or dataset, without those that are HDF5's own."""
    names = (name for name in node.attrs if name not in OWN and not name.startswith("_Netcdf4"))
    return {name: _json(node.attrs[name]) for name in names}


def _json(value: Any) -> Any:
    """Return an HDF5 attribute as JSON has it: arrays of one value as that value."""
    if isinstance(value, h5py.Empty):
        return ""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.decode("latin-1")
    if isinstance(value, np.ndarray):
        items = [_json(item) for item in value.tolist()]
        return items[0] if len(items) == 1 else items
    return value.item() if isinstance(value, np.generic) else value
