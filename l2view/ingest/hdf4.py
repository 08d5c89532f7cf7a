"""HDF4 files: datasets as the HDF4 library describes them, chunks where the file says.

Names, dimensions, data types and attributes are pyhdf's. The library doesn't say where values
lie, but the file's data descriptors do. So each array is compared: a chunk that is decoded from
its reference has the values that pyhdf reads, else the array is copied or left out.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from math import prod
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from obspec_utils.protocols import ReadableFile
from obspec_utils.registry import ObjectStoreRegistry
from pyhdf import hdfext
from pyhdf.error import HDF4Error
from pyhdf.SD import SD
from virtualizarr.manifests import ManifestArray
from virtualizarr.manifests.utils import create_v3_array_metadata
from zarr.core.metadata.v3 import ArrayV3Metadata

from l2view.arrays.cf import Packing
from l2view.errors import IngestError
from l2view.ingest.check import decode_chunk, size_reason
from l2view.ingest.hdf4_elements import LITTLE_ENDIAN, Elements, Extent, Layout, Table, dtype_of
from l2view.ingest.manifests import Chunks, Manifests, copied_array
from l2view.stores.hierarchy import JSON, join
from l2view.text import first_line, replace_surrogates

INTERNAL = ("Attr0.0", "DimVal0.", "SDSVar", "CoordVar", "_HDF_CHK_TBL_", "RIATTR0.0")
"""How the classes begin of Vdatas in which the library keeps attributes and the like."""
FILLS: dict[str, Any] = {
    "S1": b"", "i1": -127, "u1": 129, "i2": -32767, "u2": 32769, "i4": -(2**31) + 1,
    "u4": 2**31 + 1, "f4": 9.96921e36, "f8": 9.969209968386869e36,
}  # fmt: skip
"""What the library reads where nothing was written, by data type (``NC_FILL_…``)."""
LARGEST = 2**31
"""The bytes that a file can have at most, by its descriptors."""
LIBRARY = Lock()
"""The library has one state for all threads."""


def parse_hdf4(
    url: str, reader: ReadableFile, stores: ObjectStoreRegistry[Any], threshold: int
) -> Manifests:
    """Return an HDF4 file as references (see `l2view.ingest.formats.CheckedParser`).

    A file that isn't on a local disk is copied to one for as long as this takes. An `IngestError`
    says that it is no HDF4 file, or is cut off.
    """
    with _local_path(url, reader) as path, LIBRARY, Path(path).open("rb") as file:
        elements = Elements.of(file)
        try:
            datasets = SD(path)
        except HDF4Error as error:
            raise IngestError(f"pyhdf can't open it: {error}") from error
        try:
            return _Parser(url, elements, threshold, {}).parse(datasets)
        finally:
            datasets.end()


@contextmanager
def _local_path(url: str, reader: ReadableFile) -> Iterator[str]:
    """Give the path of a file, of a temporary copy where it isn't local."""
    if url.startswith("file://"):
        yield url.removeprefix("file://")
        return
    if reader.seek(0, 2) > LARGEST:
        raise IngestError("it is larger than an HDF4 file can be")
    reader.seek(0)
    with tempfile.NamedTemporaryFile(suffix=".hdf") as copy:
        shutil.copyfileobj(reader, copy, 2**24)
        copy.flush()
        yield copy.name


@dataclass(frozen=True)
class _Dataset:
    """A scientific dataset.

    Attributes
    ----------
    handle
        pyhdf's.
    stored_shape
        That of its own values; other datasets may have more records along its first dimension.
    """

    path: str
    handle: Any
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    stored_shape: tuple[int, ...]
    dimensions: tuple[str, ...]
    attributes: JSON

    def metadata(self, shape: Sequence[int], layout: Layout) -> ArrayV3Metadata:
        """Return the metadata of an array with its values."""
        dtype = self.dtype.newbyteorder(layout.order)
        return create_v3_array_metadata(
            shape=tuple(shape),
            data_type=dtype,
            chunk_shape=tuple(max(length, 1) for length in layout.chunk_shape),
            fill_value=np.frombuffer(layout.fill, dtype)[0] if layout.fill else self._fill(dtype),
            codecs=[{"name": "numcodecs.zlib", "configuration": {}}] * layout.is_deflated,
            attributes=self.attributes,
            dimension_names=self.dimensions,
        )

    def _fill(self, dtype: np.dtype[Any]) -> Any:
        """Return the value that stands where none was written."""
        value, default = self.attributes.get("_FillValue"), FILLS[dtype.str[1:]]
        if dtype.kind == "S":
            value = value.encode("latin-1") if isinstance(value, str) else default
        else:
            packing = Packing.of({"_FillValue": value}, dtype)
            value = packing.attributes.get("_FillValue", default)
        return np.array(value, dtype)[()]

    def read(self, start: Sequence[int], count: Sequence[int]) -> NDArray[Any]:
        """Read values; an `IngestError` says that the library can't."""
        if not prod(count):
            return np.empty(count, self.dtype.newbyteorder("="))
        # pyhdf's own method refuses little-endian values.
        code, steps = self.handle.info()[3] & ~LITTLE_ENDIAN, [1] * len(start)
        try:
            values = hdfext._SDreaddata_0(self.handle._id, code, list(start), list(count), steps)
        except ValueError as error:
            raise IngestError("pyhdf can't read it") from error
        return np.asarray(values)


@dataclass
class _Parser:
    url: str
    elements: Elements
    threshold: int
    omitted: dict[str, str]  # why datasets and other members are left out, by path

    def parse(self, file: Any) -> Manifests:
        """Return all of a file."""
        arrays: dict[str, ManifestArray] = {}
        for dataset in self._datasets(file):
            try:
                arrays[dataset.path] = self._array(dataset)
            except IngestError as error:
                self.omitted[dataset.path] = str(error)
        for table in self.elements.tables:
            if table.kind.startswith(INTERNAL):
                continue
            name = _clean(table.name)
            try:
                if any(name == path.partition("/")[0] for path in arrays):
                    raise IngestError("it is a table with the name of something else")
                self._require_small(table.records * table.width)
                arrays |= self._columns(table)
            except (IngestError, TypeError, ValueError) as error:
                self.omitted[name] = first_line(error)
        for name in self.elements.raster_images:
            self.omitted[_clean(name)] = "it is a raster image, which pyhdf doesn't read"
        return Manifests(arrays, {"": self._attributes(file, "its own")}, self.omitted)

    def _datasets(self, file: Any) -> list[_Dataset]:
        """Return the datasets, each with as many records as the longest along its dimension."""
        every = (file.select(index) for index in range(file.info()[0]))
        handles = [handle for handle in every if not self._is_pure_dimension(handle)]
        paths = self._paths([(handle.info()[0], handle.ref()) for handle in handles])
        datasets: list[_Dataset] = []
        records: Counter[str] = Counter()
        for handle, path in zip(handles, paths, strict=True):
            _, rank, lengths, code, _ = handle.info()
            shape = tuple(np.atleast_1d(lengths).tolist()[:rank])
            names = tuple(_clean(handle.dim(axis).info()[0]) for axis in range(rank))
            try:
                dtype = dtype_of(code)
            except IngestError as error:
                self.omitted[path] = str(error)
                continue
            attributes = self._attributes(handle, path)
            datasets.append(_Dataset(path, handle, dtype, shape, shape, names, attributes))
            if shape:
                records[names[0]] = max(records[names[0]], shape[0])
        return [
            replace(dataset, shape=(records[dataset.dimensions[0]], *dataset.shape[1:]))
            if dataset.handle.isrecord()
            else dataset
            for dataset in datasets
        ]

    def _is_pure_dimension(self, handle: Any) -> bool:
        """Return whether the library makes up a dataset of a dimension, as for old files."""
        is_empty = handle.iscoordvar() and handle.checkempty()
        return is_empty and self.elements.dataset_tag(handle.ref()) is None

    def _paths(self, datasets: Sequence[tuple[str, int]]) -> list[str]:
        """Return the paths of datasets with these names and reference numbers.

        They are the names alone, as readers of HDF4 give them. Where two are the same, the
        datasets of HDF-EOS's swaths and grids lie in groups of these, and what still has the name
        of another one gets a number.
        """
        names = [_clean(name) for name, _ in datasets]
        if len(set(names)) < len(names):
            owners = self.elements.structures
            groups = (_clean(owners[ref]) if ref in owners else "" for _, ref in datasets)
            names = [join(group, name) for group, name in zip(groups, names, strict=True)]
        taken = {name.rpartition("/")[0] for name in names}  # by groups
        paths: list[str] = []
        for name in names:
            path, number = name, 1
            while path in taken or (number > 1 and path in names):
                number += 1
                path = f"{name}_{number}"
            taken.add(path)
            paths.append(path)
        return paths

    def _attributes(self, node: Any, path: str) -> JSON:
        """Return the attributes of a file or dataset."""
        attributes: JSON = {}
        for index in range(node.info()[-1]):
            name = node.attr(index).info()[0]
            try:
                value = node.attr(index).get()
                attributes[name] = _text(value) if isinstance(value, str) else value
            except HDF4Error as error:
                self.omitted[f"{path} attribute {name}"] = first_line(error)
        return attributes

    def _array(self, dataset: _Dataset) -> ManifestArray:
        """Return a dataset as references, or copied; an `IngestError` says why as neither."""
        shape, dtype = dataset.stored_shape, dataset.dtype
        try:
            layout = self.elements.layout(dataset.handle.ref(), shape, dtype.itemsize)
            self._compare(dataset, layout)
        except Exception as error:  # codecs have errors of their own
            reason = first_line(error)
        else:
            return self._refer(dataset, layout)
        self._require_small(prod(shape) * dtype.itemsize, reason)
        try:
            values = dataset.read([0] * len(shape), shape)
        except IngestError as error:
            raise IngestError(f"{reason}; {error}") from error
        metadata = dataset.metadata(dataset.shape, Layout(shape, {}, False, "="))
        return copied_array(metadata, values.tobytes())

    def _refer(self, dataset: _Dataset, layout: Layout) -> ManifestArray:
        """Return a dataset as ranges of the file; chunks that aren't one range are copied."""
        metadata = dataset.metadata(dataset.shape, layout)
        scattered = {i: extents for i, extents in layout.chunks.items() if len(extents) > 1}
        if layout.is_deflated:
            size = sum(extent.length for extents in scattered.values() for extent in extents)
        else:
            size = len(scattered) * prod(layout.chunk_shape) * dataset.dtype.itemsize
        self._require_small(size, "its values lie in several blocks of the file")
        chunks = Chunks.missing(metadata.to_dict())
        for index, extents in layout.chunks.items():
            if index in scattered:
                chunks.copy(index, self._read_chunk(layout, extents, metadata))
            else:
                chunks.refer(index, self.url, *extents[0])
        return ManifestArray(metadata, chunks.to_manifest())

    def _read_chunk(
        self, layout: Layout, extents: Sequence[Extent], metadata: ArrayV3Metadata
    ) -> bytes:
        """Return the bytes of a chunk, with fill values behind records that aren't all of it."""
        data = self.elements.read_extents(extents)
        if layout.is_deflated:
            return data
        fill = np.array(metadata.fill_value, metadata.dtype.to_native_dtype()).tobytes()
        return data + fill * (prod(layout.chunk_shape) - len(data) // len(fill))

    def _require_small(self, nbytes: int, *reasons: str) -> None:
        """Raise an `IngestError` with reasons where so many bytes aren't copied."""
        if nbytes > self.threshold:
            raise IngestError("; ".join([*reasons, size_reason(nbytes, self.threshold)]))

    def _compare(self, dataset: _Dataset, layout: Layout) -> None:
        """Raise an `IngestError` where chunks decode to other values than pyhdf reads.

        Compared are the last chunk that is stored, the first in several places, and the first one
        that isn't stored.
        """
        shape, chunk_shape = dataset.stored_shape, layout.chunk_shape
        metadata = dataset.metadata(chunk_shape, layout)
        grid = [-(-n // max(length, 1)) for n, length in zip(shape, chunk_shape, strict=True)]
        missing = (index for index in np.ndindex(*grid) if index not in layout.chunks)
        scattered = (index for index, extents in layout.chunks.items() if len(extents) > 1)
        last = list(layout.chunks)[-1:]
        for index in (*last, *islice(scattered, 1), *islice(missing, 1)):
            start = [place * n for place, n in zip(index, chunk_shape, strict=True)]
            count = [
                min(n, length - first)
                for n, length, first in zip(chunk_shape, shape, start, strict=True)
            ]
            extents = layout.chunks.get(index)
            data = self._read_chunk(layout, extents, metadata) if extents else None
            inside = decode_chunk(metadata, data)[tuple(slice(length) for length in count)]
            if inside.tobytes() != dataset.read(start, count).tobytes():
                raise IngestError("its bytes don't decode to the values that pyhdf reads")

    def _columns(self, table: Table) -> dict[str, ManifestArray]:
        """Return the fields of a Vdata as arrays of one group, copied.

        A single field called like its table, as HDF-EOS writes them, is an array without a group.
        """
        name = _clean(table.name)
        columns: dict[str, ManifestArray] = {}
        for field_name, values in self.elements.read_table(table).items():
            metadata = create_v3_array_metadata(
                shape=values.shape,
                data_type=values.dtype,
                chunk_shape=tuple(max(length, 1) for length in values.shape),
                dimension_names=[name, f"{field_name}_values"][: values.ndim],
            )
            is_alone = len(table.fields) == 1 and field_name == table.name
            path = name if is_alone else join(name, _clean(field_name))
            columns[path] = copied_array(metadata, values.tobytes())
        return columns


def _clean(name: str) -> str:
    """Return a name that an array, group or dimension of Zarr can have."""
    name = replace_surrogates(name).replace("/", "_")
    return name if name.strip(".") else f"_{name}"


def _text(value: str) -> str:
    """Return a text of which pyhdf gives each byte as a character, up to its first NUL, as in C."""
    data = value.partition("\0")[0].encode("latin-1")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")
