"""HDF5 files: what VirtualiZarr refers to, and what can't be referred to.

VirtualiZarr takes a dataset for chunks in the file. Some aren't that: values in the dataset's own
header, in other files, chunks that skip a filter, data types without a Zarr form. Some of them
would refuse the whole file, others would show as fill values. So it gets one dataset after
another, and what it can't refer to is copied where it is small, or left out with its reason.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np
import zarr
from numpy.lib.recfunctions import repack_fields
from obspec_utils.protocols import ReadableFile
from obspec_utils.registry import ObjectStoreRegistry
from virtualizarr.manifests import ChunkManifest, ManifestArray, ManifestGroup, ManifestStore
from virtualizarr.manifests.utils import copy_and_replace_metadata
from virtualizarr.parsers.hdf.hdf import _construct_manifest_array, _dataset_dims, _extract_attrs
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from l2view.errors import IngestError
from l2view.stores.hierarchy import JSON, join
from l2view.text import first_line, replace_surrogates

OWN = ("CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "_NCProperties", "_nc3_strict")
"""Attributes by which HDF5 and netCDF-4 keep dimensions; ``_Netcdf4…`` are such too."""

PURE_DIMENSION = b"This is a netCDF dimension but not a netCDF variable"
"""How the attribute NAME of a dimension without a variable begins (netCDF-4 file format)."""

NOT_COORDINATE = "_nc4_non_coord_"
"""How the HDF5 name begins of a variable called like a dimension that it doesn't lie along
(netCDF-4 file format, "HDF5 dimension scales")."""


def parse_hdf5(
    url: str, reader: ReadableFile, stores: ObjectStoreRegistry[Any], threshold: int
) -> tuple[ManifestStore, dict[str, str]]:
    """Return an HDF5 file as references (see `l2view.ingest.formats.CheckedParser`).

    An `OSError` says that it is no HDF5 file, or is cut off.
    """
    parser = _Parser(url, threshold)
    with h5py.File(reader, mode="r") as file:
        group = parser.parse_group(file, "", ())
    return ManifestStore(parser.pad(group), registry=stores), parser.omitted


@dataclass
class _Parser:
    url: str
    threshold: int
    omitted: dict[str, str] = field(default_factory=dict)
    """Why datasets and links are left out, by path."""
    lengths: dict[str, int] = field(default_factory=dict)
    """The most values along each unlimited dimension, by the path of its scale."""
    unlimited: dict[int, dict[int, str]] = field(default_factory=dict)
    """The unlimited dimensions by axis, of arrays by their identity."""

    def parse_group(self, group: h5py.Group, path: str, above: tuple[int, ...]) -> ManifestGroup:
        """Parse a group and all below it; it lies in those at the addresses `above`."""
        above = (*above, _address(group))
        arrays: dict[str, ManifestArray] = {}
        groups: dict[str, ManifestGroup] = {}
        for raw in group:
            name = os.fsdecode(raw)  # h5py has names that aren't UTF-8 as bytes
            member = join(path, replace_surrogates(name))
            try:
                node = _follow(group, name)
                if isinstance(node, h5py.Group):
                    if _address(node) in above:
                        raise IngestError("it is a link to a group that it lies in")
                    groups[name] = self.parse_group(node, member, above)
                elif isinstance(node, h5py.Dataset) and not _is_pure_dimension(node.id):
                    arrays[name] = self._parse_dataset(node, str(group.name))
                    self._note_unlimited(node, arrays[name])
            except Exception as error:  # of one member, which costs no other
                self.omitted[member] = first_line(error)
        try:
            attributes = _extract_attrs(group)
        except Exception:  # of one attribute, such as a text in Latin-1
            attributes = _attributes(group)
        renamed = {name.removeprefix(NOT_COORDINATE): array for name, array in arrays.items()}
        return ManifestGroup(renamed if len(renamed) == len(arrays) else arrays, groups, attributes)

    def _note_unlimited(self, dataset: h5py.Dataset, array: ManifestArray) -> None:
        if None not in (dataset.maxshape or ()):
            return
        scales = {}
        for axis, most in enumerate(dataset.maxshape):
            if most is None and len(dataset.dims[axis]) == 1:
                scales[axis] = str(dataset.dims[axis][0].name)
            elif most is None and dataset.ndim == 1 and h5py.h5ds.is_scale(dataset.id):
                scales[axis] = str(dataset.name)
        for axis, scale in scales.items():
            self.lengths[scale] = max(self.lengths.get(scale, 0), dataset.shape[axis])
        self.unlimited[id(array)] = scales

    def pad(self, group: ManifestGroup) -> ManifestGroup:
        """Return a group whose arrays are as long as their unlimited dimensions.

        netCDF reads what was written less far than another variable as fill values.
        """
        arrays = {}
        for name, array in group.arrays.items():
            scales = self.unlimited.get(id(array), {})
            longer = [
                self.lengths[scales[axis]] if axis in scales else length
                for axis, length in enumerate(array.shape)
            ]
            arrays[name] = array if longer == list(array.shape) else _with_shape(array, longer)
        groups = {name: self.pad(child) for name, child in group.groups.items()}
        return ManifestGroup(arrays, groups, dict(group.metadata.attributes))

    def _parse_dataset(self, dataset: h5py.Dataset, group: str) -> ManifestArray:
        """Refer to a dataset of a group, or copy it; an `IngestError` says why neither can be."""
        reason = _reason_to_copy(dataset.id)
        if reason is None:
            try:
                return _own_axes(_construct_manifest_array(self.url, dataset, group), dataset)
            except Exception as error:  # of the data type, an attribute, or the dimensions
                reason = first_line(error)
        try:
            return _own_axes(_copy(dataset, group, self.threshold), dataset)
        except (IngestError, OSError, TypeError, ValueError, RuntimeError) as error:
            raise IngestError(f"{reason}; {first_line(error)}") from error


def _with_shape(array: ManifestArray, shape: Sequence[int]) -> ManifestArray:
    """Return a longer array, of whose further chunks there are none."""
    manifest = array.manifest
    grid = tuple(-(-n // max(c, 1)) for n, c in zip(shape, array.metadata.chunks, strict=True))
    inside = tuple(map(slice, manifest.shape_chunk_grid))
    paths = np.full(grid, "", dtype=np.dtypes.StringDType())
    offsets, lengths = np.zeros(grid, np.uint64), np.zeros(grid, np.uint64)
    if (manifest._paths != "").any():  # without entries its grid may have another shape
        paths[inside], offsets[inside] = manifest._paths, manifest._offsets
        lengths[inside] = manifest._lengths
    return ManifestArray(
        copy_and_replace_metadata(array.metadata, new_shape=list(shape)),
        ChunkManifest.from_arrays(
            paths=paths, offsets=offsets, lengths=lengths, inlined=dict(manifest._inlined)
        ),
    )


def _follow(group: h5py.Group, name: str) -> Any:
    """Return a member of a group; an `IngestError` says that its link leads out of the file."""
    link = group.id.links.get_info(name.encode(errors="surrogateescape")).type
    if link == h5py.h5l.TYPE_EXTERNAL:
        raise IngestError("it is a link into another file")
    try:
        return group[name]
    except KeyError as error:
        if link != h5py.h5l.TYPE_SOFT:
            raise
        raise IngestError("it is a link to nothing") from error


def _address(group: h5py.Group) -> int:
    return int(h5py.h5o.get_info(group.id).addr)


def _reason_to_copy(dataset: h5py.h5d.DatasetID) -> str | None:
    """Return why a dataset's values can only be copied, None where they are chunks of the file.

    An `IngestError` says that they don't lie in the file.
    """
    if _packed(dtype := dataset.dtype).itemsize != dtype.itemsize:
        return "its records have padding"
    try:
        if dataset.get_offset() is not None:
            return None  # all of it lies in one place of the file
    except RuntimeError:
        return "it has no storage"
    if dataset.get_space().get_simple_extent_type() == h5py.h5s.NULL:
        raise IngestError("it has no dataspace")
    properties = dataset.get_create_plist()
    layout = properties.get_layout()
    if layout == h5py.h5d.VIRTUAL:
        raise IngestError("it is a virtual dataset of other files")
    if layout == h5py.h5d.COMPACT:
        return "its values lie in its header"
    if layout == h5py.h5d.CONTIGUOUS:
        if properties.get_external_count():
            raise IngestError("its values lie in another file")
        return None
    filters = [properties.get_filter(n)[0] for n in range(properties.get_nfilters())]
    if len(set(filters)) < len(filters):
        return "its chunks go through one filter twice"
    if filters and dataset.chunk_iter(_skips_a_filter) is not None:
        return "some of its chunks skip a filter"
    return None


def _packed(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return a data type whose records have no padding."""
    return repack_fields(dtype, align=False, recurse=True) if dtype.names else dtype


def _skips_a_filter(chunk: Any) -> bool | None:
    return True if chunk.filter_mask else None


def _is_pure_dimension(dataset: h5py.h5d.DatasetID) -> bool:
    """Return whether a dataset is only a dimension of netCDF-4."""
    if not h5py.h5a.exists(dataset, b"NAME"):
        return False
    attribute = h5py.h5a.open(dataset, b"NAME")
    value = np.empty(attribute.shape, attribute.dtype)
    attribute.read(value)
    name = value.tolist()
    text = name.encode(errors="replace") if isinstance(name, str) else name
    return isinstance(text, bytes) and text.startswith(PURE_DIMENSION)


def _own_axes(array: ManifestArray, dataset: h5py.Dataset) -> ManifestArray:
    """Return an array along several dimensions that has the name of the first with all names.

    netCDF-4 keeps the numbers of its dimensions (``_Netcdf4Coordinates``).
    """
    if dataset.ndim < 2 or not h5py.h5ds.is_scale(dataset.id):
        return array
    names = [f"phony_dim_{axis}" for axis in range(dataset.ndim)]
    names[0] = dataset.name.rpartition("/")[2]
    numbers = np.ravel(dataset.attrs.get("_Netcdf4Coordinates", [])).tolist()
    if len(numbers) == dataset.ndim:
        known = _numbered_dimensions(dataset.parent)
        names = [known.get(number, name) for number, name in zip(numbers, names, strict=True)]
    metadata = copy_and_replace_metadata(array.metadata, new_dimension_names=names)
    return ManifestArray(metadata, array.manifest)


def _numbered_dimensions(group: h5py.Group) -> dict[int, str]:
    """Return the dimensions of a group and those that it lies in, by netCDF-4's numbers."""
    above = {} if group.name == "/" else _numbered_dimensions(group.parent)
    datasets = (node for node in group.values() if isinstance(node, h5py.Dataset))
    return above | {
        int(np.ravel(node.attrs["_Netcdf4Dimid"])[0]): node.name.rpartition("/")[2].removeprefix(
            NOT_COORDINATE
        )
        for node in datasets
        if "_Netcdf4Dimid" in node.attrs and h5py.h5ds.is_scale(node.id)
    }


def _copy(dataset: h5py.Dataset, group: str, threshold: int) -> ManifestArray:
    """Return a dataset of a group as an array that holds its own values.

    An `IngestError` says that its data type has no Zarr form, or that it is too large.
    """
    dtype: Any = _packed(dataset.dtype)
    texts = h5py.check_vlen_dtype(dtype) in (str, bytes)
    if not texts and dtype.kind not in "biufcSV":
        raise IngestError(f"HDF5's {dataset.id.get_type().__class__.__name__} has no Zarr form")
    allocated = dataset.size and dataset.id.get_storage_size()
    if allocated and dataset.nbytes > threshold:
        raise IngestError(
            f"its {dataset.nbytes:,} bytes are more than inline_threshold={threshold:,}"
        )
    try:
        names = _dataset_dims(dataset, group)
    except ValueError:  # a dimension has several scales
        names = [f"phony_dim_{axis}" for axis in range(dataset.ndim)]
    store = MemoryStore()
    array = zarr.create_array(
        store,
        shape=dataset.shape,
        chunks=tuple(max(length, 1) for length in dataset.shape),
        dtype="string" if texts else dtype.newbyteorder("="),
        fill_value="" if texts else _fill_value(dataset, dtype),
        dimension_names=names or None,
        attributes=_attributes(dataset),
    )
    if allocated:
        array[...] = dataset.asstr()[()] if texts else dataset[()].astype(dtype)
    index = ["0"] * dataset.ndim
    chunk = sync(store.get("/".join(["c", *index]), default_buffer_prototype()))
    entries: Any = {}
    if chunk is not None:
        data = chunk.to_bytes()
        entry = {"path": "", "offset": 0, "length": len(data), "data": data}
        entries["/".join(index) or "0"] = entry
    grid = tuple(min(length, 1) for length in dataset.shape)
    metadata: Any = array.metadata
    return ManifestArray(metadata, ChunkManifest(entries, shape=grid, separator="/"))


def _fill_value(dataset: h5py.Dataset, dtype: np.dtype[Any]) -> Any:
    try:
        return np.asarray(dataset.fillvalue).astype(dtype)[()]
    except RuntimeError:  # it is undefined: what wasn't written may be anything
        return np.zeros((), dtype)[()]


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
