"""HDF5 files: what VirtualiZarr refers to, and what can't be referred to.

VirtualiZarr takes a dataset for chunks in the file. Some aren't that: values in the dataset's own
header, in other files, chunks that skip a filter, data types without a Zarr form. Some of them
would refuse the whole file, others would show as fill values. So it gets one dataset after
another, and what it can't refer to is copied where it is small, or left out with its reason.
"""

from __future__ import annotations

import math
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
from virtualizarr.codecs import zarr_codec_config_to_v3
from virtualizarr.manifests import ManifestArray
from virtualizarr.manifests.utils import copy_and_replace_metadata, create_v3_array_metadata
from virtualizarr.parsers.hdf.filters import _filter_to_codec
from virtualizarr.parsers.hdf.hdf import _chunk_shape, _dataset_chunk_manifest, _read_compound
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.registry import get_codec_class
from zarr.storage import MemoryStore

from l2view.errors import IngestError
from l2view.ingest.check import LARGEST, decode_chunk, size_reason
from l2view.ingest.manifests import Chunks, Manifests, chunk_grid, copied_array, json_attribute
from l2view.stores.hierarchy import JSON, join
from l2view.text import first_line, replace_surrogates

OWN = ("CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "_NCProperties", "_nc3_strict")
"""Attributes by which HDF5 and netCDF-4 keep dimensions; ``_Netcdf4…`` are such too."""

PURE_DIMENSION = b"This is a netCDF dimension but not a netCDF variable"
"""How the attribute NAME of a dimension without a variable begins (netCDF-4 file format)."""

NOT_COORDINATE = "_nc4_non_coord_"
"""How the HDF5 name begins of a variable called like a dimension that it doesn't lie along
(netCDF-4 file format, "HDF5 dimension scales")."""

CODECS = {"307": {"id": "bz2", "level": 9}}
"""Codecs of Zarr by the numbers of HDF5's filters, where VirtualiZarr has others."""


def parse_hdf5(
    url: str, reader: ReadableFile, stores: ObjectStoreRegistry[Any], threshold: int
) -> Manifests:
    """Return an HDF5 file as references (see `l2view.ingest.formats.CheckedParser`).

    An `OSError` says that it is no HDF5 file, or is cut off.
    """
    parser = _Parser(url, threshold)
    with h5py.File(reader, mode="r") as file:
        parser.parse_group(file, "", ())
    parser.pad()
    return parser.manifests


@dataclass
class _Parser:
    url: str
    threshold: int
    manifests: Manifests = field(default_factory=Manifests)
    lengths: dict[str, int] = field(default_factory=dict)
    """The most values along each unlimited dimension, by the path of its scale."""
    unlimited: dict[int, dict[int, str]] = field(default_factory=dict)
    """The unlimited dimensions by axis, of arrays by their identity."""

    def parse_group(self, group: h5py.Group, path: str, above: tuple[int, ...]) -> None:
        """Parse a group and all below it; it lies in those at the addresses `above`."""
        above = (*above, _address(group))
        groups, arrays = self.manifests.groups, dict[str, ManifestArray]()
        groups[path] = self._attributes(group, path or "its own")
        for raw in group:
            name = os.fsdecode(raw)  # h5py has names that aren't UTF-8 as bytes
            member = join(path, replace_surrogates(name))
            node = None
            try:
                node = _follow(group, name)
                if isinstance(node, h5py.Group):
                    if _address(node) in above:
                        raise IngestError("it is a link to a group that it lies in")
                    self.parse_group(node, member, above)
                elif isinstance(node, h5py.Dataset) and not _is_pure_dimension(node):
                    scales = _scale_paths(node)
                    names = _dimension_names(node, scales)
                    arrays[name] = self._parse_dataset(node, member, names)
                    self._note_unlimited(node, arrays[name], scales)
            except Exception as error:  # of one member, which costs no other
                self.manifests.omitted[member] = first_line(error)
                if isinstance(node, h5py.Dataset) and h5py.check_ref_dtype(node.dtype) is not None:
                    # Of VIIRS and others, whose granules' metadata are attributes of these.
                    groups[member] = self._attributes(node, member)
        renamed = {name.removeprefix(NOT_COORDINATE): array for name, array in arrays.items()}
        arrays = renamed if len(renamed) == len(arrays) else arrays
        self.manifests.arrays |= {join(path, name): array for name, array in arrays.items()}

    def _note_unlimited(
        self, dataset: h5py.Dataset, array: ManifestArray, paths: Sequence[str | None]
    ) -> None:
        scales = {
            axis: path
            for axis, (path, most) in enumerate(zip(paths, dataset.maxshape or (), strict=True))
            if most is None and path is not None
        }
        if dataset.maxshape == (None,) and not scales and h5py.h5ds.is_scale(dataset.id):
            scales = {0: str(dataset.name)}
        for axis, scale in scales.items():
            self.lengths[scale] = max(self.lengths.get(scale, 0), dataset.shape[axis])
        if scales:
            self.unlimited[id(array)] = scales

    def pad(self) -> None:
        """Make arrays as long as their unlimited dimensions.

        netCDF reads what was written less far than another variable as fill values.
        """
        arrays = self.manifests.arrays
        for path, array in list(arrays.items()):
            scales = self.unlimited.get(id(array), {})
            longer = [
                self.lengths[scales[axis]] if axis in scales else length
                for axis, length in enumerate(array.shape)
            ]
            arrays[path] = array if longer == list(array.shape) else _with_shape(array, longer)

    def _parse_dataset(
        self, dataset: h5py.Dataset, path: str, names: Sequence[str]
    ) -> ManifestArray:
        """Refer to a dataset, or copy it; an `IngestError` says why neither can be."""
        described: JSON = {
            "dimension_names": names or None,
            "attributes": self._attributes(dataset, path),
        }
        reason = _reason_to_copy(dataset.id)
        if reason is None:
            try:
                return _refer(self.url, dataset, described)
            except Exception as error:  # of the data type or a filter
                reason = first_line(error)
        try:
            return _copy(dataset, described, self.threshold)
        except (IngestError, OSError, TypeError, ValueError, RuntimeError) as error:
            raise IngestError(f"{reason}; {first_line(error)}") from error

    def _attributes(self, node: h5py.Group | h5py.Dataset, path: str) -> JSON:
        """Return the attributes of a group or dataset, without those that are HDF5's own."""
        attributes: JSON = {}
        for name in node.attrs:
            if name in OWN or name.startswith("_Netcdf4"):
                continue
            try:
                attributes[name] = _json(node.attrs[name], node.file)
            except Exception as error:  # of HDF5 or h5py, which lack some types
                self.manifests.omitted[f"{path} attribute {name}"] = first_line(error)
        return attributes


def _with_shape(array: ManifestArray, shape: Sequence[int]) -> ManifestArray:
    """Return a longer array, of whose further chunks there are none."""
    metadata = copy_and_replace_metadata(array.metadata, new_shape=list(shape))
    chunks, manifest = Chunks.missing(metadata.to_dict()), array.manifest
    inside = tuple(map(slice, manifest.shape_chunk_grid))
    if (manifest._paths != "").any():  # without entries its grid may have another shape
        chunks.paths[inside], chunks.offsets[inside] = manifest._paths, manifest._offsets
        chunks.lengths[inside] = manifest._lengths
    chunks.inlined.update(manifest._inlined)
    return ManifestArray(metadata, chunks.to_manifest())


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
    if (dtype := dataset.dtype).hasobject:
        return "its values are neither numbers nor texts of one length"
    if _packed(dtype).itemsize != dtype.itemsize:
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
    if filters and dataset.chunk_iter(lambda chunk: chunk.filter_mask or None) is not None:
        return "some of its chunks skip a filter"
    return None


def _packed(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return a data type whose records have no padding."""
    return repack_fields(dtype, align=False, recurse=True) if dtype.names else dtype


def _is_pure_dimension(dataset: h5py.Dataset) -> bool:
    """Return whether a dataset is only a dimension of netCDF-4."""
    name = dataset.attrs.get("NAME")
    text = name.encode(errors="replace") if isinstance(name, str) else name
    return isinstance(text, bytes) and text.startswith(PURE_DIMENSION)


def _scale_paths(dataset: h5py.Dataset) -> list[str | None]:
    """Return the path of the scale of each dimension, None without one or with several.

    One that was deleted is still attached, and can't be followed.
    """
    paths: list[str | None] = []
    for axis in range(dataset.ndim):
        try:
            scales = dataset.dims[axis]
            paths.append(scales[0].name if len(scales) == 1 else None)
        except (KeyError, RuntimeError, ValueError):
            paths.append(None)
    return paths


def _dimension_names(dataset: h5py.Dataset, scales: Sequence[str | None]) -> list[str]:
    """Return the names of a dataset's dimensions, as paths below its group where they lie there.

    A scale along several dimensions has the name of the first; netCDF-4 keeps the numbers of all
    (``_Netcdf4Coordinates``).
    """
    names = [path or f"phony_dim_{axis}" for axis, path in enumerate(scales)]
    if names and scales[0] is None and h5py.h5ds.is_scale(dataset.id):
        names[0] = dataset.name
        numbers = np.ravel(dataset.attrs.get("_Netcdf4Coordinates", [])).tolist()
        if dataset.ndim > 1 and len(numbers) == dataset.ndim:
            known = _numbered_dimensions(dataset.parent)
            names = [known.get(number, name) for number, name in zip(numbers, names, strict=True)]
    return [name.removeprefix(str(dataset.parent.name)).removeprefix("/") for name in names]


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


def _refer(url: str, dataset: h5py.Dataset, described: JSON) -> ManifestArray:
    """Return a dataset as chunks of its file."""
    chunks = _chunk_shape(dataset)
    fill_value = _fill_value(dataset, dataset.dtype)
    metadata = create_v3_array_metadata(
        shape=dataset.shape,
        data_type=dataset.dtype,
        chunk_shape=chunks,
        fill_value=fill_value.item() if isinstance(fill_value, np.generic) else fill_value,
        codecs=_codecs(dataset),
        **described,
    )
    document = metadata.to_dict()
    chunk_grid(document)
    if not dataset.id.get_storage_size():
        # VirtualiZarr's manifest of no chunks has an entry for each value.
        return ManifestArray(metadata, Chunks.missing(document).to_manifest())
    kind = f"{dataset.dtype} {dataset._filters}"
    if dataset._filters and kind not in _compared:
        _compare(dataset, copy_and_replace_metadata(metadata, new_shape=list(chunks)))
        _compared.add(kind)
    return ManifestArray(metadata, _dataset_chunk_manifest(url, dataset, chunks=chunks))


_compared: set[str] = set()
"""The data types with filters of which this process has compared a chunk."""


def _codecs(dataset: h5py.Dataset) -> list[Any]:
    """Return Zarr's codecs of a dataset's filters; an `IngestError` names one without."""
    codecs: list[Any] = []
    for number, (name, values) in enumerate(dataset._filters.items()):
        try:
            config = CODECS.get(name) or _filter_to_codec(name, values).get_config()
            codecs.append(zarr_codec_config_to_v3(config))
            get_codec_class(codecs[-1]["name"])
        except Exception as error:  # of VirtualiZarr, numcodecs or zarr
            label = dataset.id.get_create_plist().get_filter(number)[3].decode(errors="replace")
            label = label.partition(";")[0] or name
            raise IngestError(f"Zarr has no codec for its filter {label}") from error
    return codecs


def _compare(dataset: h5py.Dataset, metadata: Any) -> None:
    """Raise an `IngestError` where the last chunk doesn't decode to the values that HDF5 reads."""
    count = dataset.id.get_num_chunks()
    if not count or math.prod(metadata.shape) * dataset.dtype.itemsize > LARGEST:
        return
    begin = dataset.id.get_chunk_info(count - 1).chunk_offset
    values = decode_chunk(metadata, dataset.id.read_direct_chunk(begin)[1])
    pairs = zip(begin, metadata.shape, strict=True)
    expected = dataset[tuple(slice(at, at + length) for at, length in pairs)]
    inside = values[tuple(map(slice, expected.shape))]
    if inside.tobytes() != expected.astype(values.dtype).tobytes():
        raise IngestError("its chunks don't decode to the values that HDF5 reads")


def _copy(dataset: h5py.Dataset, described: JSON, threshold: int) -> ManifestArray:
    """Return a dataset as an array that holds its own values.

    An `IngestError` says that its data type has no Zarr form, or that it is too large.
    """
    dtype: Any = _packed(dataset.dtype)
    texts = h5py.check_vlen_dtype(dtype) in (str, bytes)
    if not texts and dtype.kind not in "biufcSV":
        raise IngestError(f"HDF5's {dataset.id.get_type().__class__.__name__} has no Zarr form")
    allocated = dataset.size and dataset.id.get_storage_size()
    # Of a text of any length there are at least four bytes.
    nbytes = 4 * dataset.size if texts else dataset.nbytes
    if allocated and nbytes > threshold:
        raise IngestError(size_reason(nbytes, threshold))
    fill_value = "" if texts else _fill_value(dataset, dtype)
    values = None
    if any(dtype[name].kind == "O" for name in dtype.names or ()):
        values, _ = _read_compound(dataset, False)  # with texts of one length each
        dtype, fill_value = values.dtype, None
    elif allocated:
        values = _read_texts(dataset) if texts else dataset[()].astype(dtype)
    store = MemoryStore()
    array = zarr.create_array(
        store,
        shape=dataset.shape,
        chunks=tuple(max(length, 1) for length in dataset.shape),
        dtype="string" if texts else dtype.newbyteorder("="),
        fill_value=fill_value,
        compressors=None if texts else "auto",
        **described,
    )
    if values is not None:
        array[...] = values
    data = sync(store.get("/".join(["c", *"0" * dataset.ndim]), default_buffer_prototype()))
    metadata: Any = array.metadata
    return copied_array(metadata, b"" if data is None else data.to_bytes())


def _read_texts(dataset: h5py.Dataset) -> Any:
    """Return texts, in Latin-1 where one isn't UTF-8."""
    try:
        return dataset.asstr()[()]
    except UnicodeDecodeError:
        return dataset.asstr("latin-1")[()]


def _fill_value(dataset: h5py.Dataset, dtype: np.dtype[Any]) -> Any:
    try:
        return np.asarray(dataset.fillvalue).astype(dtype)[()]
    except RuntimeError:  # it is undefined: what wasn't written may be anything
        return np.zeros((), dtype)[()]


def _json(value: Any, file: h5py.File) -> Any:
    """Return an HDF5 attribute as JSON has it: a single value as that, references as paths."""
    if isinstance(value, h5py.Empty):
        return ""
    if isinstance(value, h5py.Reference):
        return str(file[value].name) if value else ""
    if isinstance(value, np.ndarray) and value.size == 1:
        return _json(value.reshape(-1)[0], file)
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        return [_json(item, file) for item in value]
    return json_attribute(value)
