"""HDF4 files: datasets as the HDF4 library describes them, chunks where the file says.

Names, dimensions, data types and attributes are pyhdf's. The library doesn't say where values
lie, but the file's data descriptors do. So each array is compared: a chunk that is decoded from
its reference has the values that pyhdf reads, else the array is copied or left out.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
from pyhdf.HDF import HDF
from pyhdf.SD import SD
from pyhdf.VS import VS
from virtualizarr.manifests import ChunkManifest, ManifestArray, ManifestGroup, ManifestStore
from virtualizarr.manifests.manifest import INLINED_CHUNK_PATH
from virtualizarr.manifests.utils import create_v3_array_metadata
from zarr.core.metadata.v3 import ArrayV3Metadata

from l2view.errors import IngestError
from l2view.ingest.check import decode_chunk
from l2view.ingest.hdf4_elements import LITTLE_ENDIAN, Elements, Extent, Layout, Table, dtype_of
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
) -> tuple[ManifestStore, dict[str, str]]:
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
            parser = _Parser(url, path, elements, threshold)
            return ManifestStore(parser.parse(datasets), registry=stores), parser.omitted
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
        default = FILLS[dtype.str[1:]]
        value = self.attributes.get("_FillValue", default)
        if dtype.kind == "S" and isinstance(value, str):
            value = value.encode("latin-1")
        try:
            with np.errstate(all="ignore"):
                said = np.asarray(value).reshape(-1)[:1]
                fill = said.astype(dtype)
            if dtype.kind == "S" or np.array_equal(fill, said, equal_nan=dtype.kind == "f"):
                return fill[0]
        except (ValueError, IndexError):  # a text, or nothing
            pass
        return np.array(default, dtype)[()]

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
    path: str
    elements: Elements
    threshold: int
    omitted: dict[str, str] = field(default_factory=dict)
    """Why datasets and other members are left out, by path."""

    def parse(self, file: Any) -> ManifestGroup:
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
                arrays |= self._columns(table, name)
            except (HDF4Error, IngestError, ValueError) as error:
                self.omitted[name] = first_line(error)
        for name in self.elements.raster_images:
            self.omitted[_clean(name)] = "it is a raster image, which pyhdf doesn't read"
        groups: dict[str, dict[str, ManifestArray]] = {"": {}}
        for path, array in arrays.items():
            group, _, name = path.rpartition("/")
            groups.setdefault(group, {})[name] = array
        members = groups.pop("")
        children = {name: ManifestGroup(inside) for name, inside in groups.items()}
        return ManifestGroup(members, children, self._attributes(file, "its own"))

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
            return _array(dataset.metadata(dataset.shape, layout), layout.chunks, self.url)
        except Exception as error:  # codecs have errors of their own
            reason = first_line(error)
        self._require_small(prod(shape) * dtype.itemsize, reason)
        try:
            values = dataset.read([0] * len(shape), shape)
        except IngestError as error:
            raise IngestError(f"{reason}; {error}") from error
        chunks = {(0,) * len(shape): values.tobytes()} if values.size else {}
        return _array(dataset.metadata(dataset.shape, Layout(shape, {}, False, "=")), chunks)

    def _require_small(self, nbytes: int, *reasons: str) -> None:
        """Raise an `IngestError` with reasons where so many bytes aren't copied."""
        if nbytes > self.threshold:
            size = f"its {nbytes:,} bytes are more than inline_threshold={self.threshold:,}"
            raise IngestError("; ".join([*reasons, size]))

    def _compare(self, dataset: _Dataset, layout: Layout) -> None:
        """Raise an `IngestError` where chunks decode to other values than pyhdf reads.

        Compared are the last chunk that is stored, and the first one that isn't.
        """
        shape, chunk_shape = dataset.stored_shape, layout.chunk_shape
        metadata = dataset.metadata(chunk_shape, layout)
        missing = (i for i in np.ndindex(_grid(shape, chunk_shape)) if i not in layout.chunks)
        for index in (*list(layout.chunks)[-1:], *islice(missing, 1)):
            start = [place * n for place, n in zip(index, chunk_shape, strict=True)]
            count = [
                min(n, length - first)
                for n, length, first in zip(chunk_shape, shape, start, strict=True)
            ]
            extent = layout.chunks.get(index)
            values = decode_chunk(metadata, self.elements.read_extent(extent) if extent else None)
            inside = values[tuple(slice(length) for length in count)]
            if inside.tobytes() != dataset.read(start, count).tobytes():
                raise IngestError("its bytes don't decode to the values that pyhdf reads")

    def _columns(self, table: Table, name: str) -> dict[str, ManifestArray]:
        """Return the fields of a Vdata as arrays of one group, copied.

        A single field called like its table, as HDF-EOS writes them, is an array without a group.
        """
        dtypes = [
            np.dtype(f"S{order}")
            if dtype.kind == "S"
            else np.dtype((dtype, (order,) if order > 1 else ()))
            for _, code, order in table.fields
            for dtype in [dtype_of(code).newbyteorder("=")]
        ]
        self._require_small(table.records * sum(dtype.itemsize for dtype in dtypes))
        rows = _read_table(self.path, table) if table.records else []
        columns: dict[str, ManifestArray] = {}
        for place, (field_name, _, _) in enumerate(table.fields):
            items, dtype = [row[place] for row in rows], dtypes[place]
            if dtype.kind == "S":
                # pyhdf has a single character as its number.
                items = [
                    bytes([item & 0xFF]) if isinstance(item, int) else item.encode("latin-1")
                    for item in items
                ]
            values = np.array(items, dtype.base).reshape(table.records, *dtype.shape)
            metadata = create_v3_array_metadata(
                shape=values.shape,
                data_type=values.dtype,
                chunk_shape=tuple(max(length, 1) for length in values.shape),
                dimension_names=[name, f"{field_name}_values"][: values.ndim],
            )
            chunks = {(0,) * values.ndim: values.tobytes()} if values.size else {}
            is_alone = len(table.fields) == 1 and field_name == table.name
            columns[name if is_alone else join(name, _clean(field_name))] = _array(metadata, chunks)
        return columns


def _read_table(path: str, table: Table) -> list[list[Any]]:
    """Return the records of a Vdata."""
    file = HDF(path)
    tables = VS(file)
    try:
        vdata = tables.attach(table.ref)
        rows: list[list[Any]] = vdata.read(table.records)
        vdata.detach()
        return rows
    finally:
        tables.end()
        file.close()


def _array(
    metadata: ArrayV3Metadata, chunks: Mapping[tuple[int, ...], Extent | bytes], url: str = ""
) -> ManifestArray:
    """Return an array of chunks that are ranges of a file, or their own bytes."""
    grid = _grid(metadata.shape, metadata.chunks)
    paths = np.full(grid, "", dtype=np.dtypes.StringDType())
    offsets, lengths = np.zeros(grid, np.uint64), np.zeros(grid, np.uint64)
    for index, chunk in chunks.items():
        if isinstance(chunk, bytes):
            paths[index], lengths[index] = INLINED_CHUNK_PATH, len(chunk)
        else:
            paths[index], (offsets[index], lengths[index]) = url, chunk
    inlined = {index: chunk for index, chunk in chunks.items() if isinstance(chunk, bytes)}
    manifest = ChunkManifest.from_arrays(
        paths=paths, offsets=offsets, lengths=lengths, inlined=inlined
    )
    return ManifestArray(metadata, manifest)


def _grid(shape: Sequence[int], chunk_shape: Sequence[int]) -> tuple[int, ...]:
    """Return the number of chunks along each dimension."""
    return tuple(-(-n // max(length, 1)) for n, length in zip(shape, chunk_shape, strict=True))


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
