"""HDF4 files: their arrays have the values and attributes that pyhdf reads, or are named."""

from __future__ import annotations

import ctypes
import functools
import math
import shutil
import struct
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import zarr
from hypothesis import given
from hypothesis import strategies as st
from originals import Handler, Server
from pyhdf import _hdfext, hdfext
from pyhdf.HDF import HC, HDF
from pyhdf.SD import SD, SDC
from pyhdf.V import V
from pyhdf.VS import VS

import l2view
from l2view.ingest import hdf4_elements
from l2view.ingest.report import IngestReport

CODES = {
    "S1": SDC.CHAR8,
    "i1": SDC.INT8,
    "u1": SDC.UINT8,
    "i2": SDC.INT16,
    "u2": SDC.UINT16,
    "i4": SDC.INT32,
    "u4": SDC.UINT32,
    "f4": SDC.FLOAT32,
    "f8": SDC.FLOAT64,
}
LITTLE_ENDIAN = 0x4000
RECORDS = SDC.UNLIMITED
FIELDS = {"datetime": "2020-01-01", "bbox": shapely.box(0, 0, 1, 1)}
LIBRARY = ctypes.CDLL(_hdfext.__file__)
"""Of HDF4, with functions that pyhdf has no names for."""


class ChunkDefinition(ctypes.Structure):
    """HDF_CHUNK_DEF: the lengths along 32 dimensions, then the codec, its model and its level."""

    _fields_ = [("words", ctypes.c_int32 * 40)]


def set_chunks(dataset: Any, shape: tuple[int, ...], level: int | None) -> None:
    definition = ChunkDefinition()
    definition.words[: len(shape)] = shape
    if level is not None:
        definition.words[32], definition.words[34] = SDC.COMP_DEFLATE, level
    flags = 1 if level is None else 3
    assert LIBRARY.SDsetchunk(ctypes.c_int32(dataset._id), definition, flags) == 0


@dataclass(frozen=True)
class Dataset:
    """What is written: `written` rows of values, along an unlimited dimension where `records`."""

    name: str
    values: np.ndarray[Any, Any]
    dimensions: tuple[str, ...] = ()
    records: bool = False
    written: int | None = None
    chunks: tuple[int, ...] | None = None
    level: int | None = None
    fill: Any = None
    little: bool = False
    attributes: tuple[tuple[str, int, Any], ...] = ()

    def write(self, file: Any) -> None:
        values = self.values
        code = CODES[values.dtype.str[1:]]
        shape = (RECORDS, *values.shape[1:]) if self.records else values.shape
        made = file.create(self.name, code | (LITTLE_ENDIAN if self.little else 0), shape)
        for axis, name in enumerate(self.dimensions):
            made.dim(axis).setname(name)
        if self.fill is not None:
            made.attr("_FillValue").set(code, self.fill)
        for name, kind, value in self.attributes:
            made.attr(name).set(kind, value)
        if self.chunks is not None:
            set_chunks(made, self.chunks, self.level)
        elif self.level is not None:
            made.setcompress(SDC.COMP_DEFLATE, self.level)
        rows = values[: len(values) if self.written is None else self.written]
        if rows.size:
            start, steps = [0] * rows.ndim, [1] * rows.ndim
            data = np.ascontiguousarray(rows)
            hdfext._SDwritedata_0(made._id, code, start, list(rows.shape), data, steps)
        made.endaccess()


def write(path: Path, *datasets: Dataset) -> Path:
    file = SD(str(path), SDC.WRITE | SDC.CREATE)
    for dataset in datasets:
        dataset.write(file)
    file.end()
    return path


def ingested(path: Path, **options: Any) -> tuple[zarr.Group, IngestReport]:
    """The granule, its file being the only one of a new collection."""
    store = tempfile.mkdtemp(dir=path.parent)
    report = l2view.ingest(path, store, defaults=FIELDS, **options)
    assert report.failed == []
    view = l2view.open(store)
    view.to_datatree().load()  # xarray opens all of it
    (name,) = view.group_keys()
    return view[name], report


def reasons(report: IngestReport) -> dict[str, str]:
    return dict(tuple(report.omitted))


def assert_same(array: Any, expected: np.ndarray[Any, Any]) -> None:
    values = array[...]
    assert values.dtype == expected.dtype
    assert values.shape == expected.shape
    assert values.tobytes() == expected.tobytes()


def as_pyhdf(path: Path) -> Iterator[tuple[str, np.ndarray[Any, Any], dict[str, Any], list[str]]]:
    """Yield the names, values, attributes and dimensions of datasets, as pyhdf reads them."""
    file = SD(str(path))
    for index in range(file.info()[0]):
        dataset = file.select(index)
        name, rank, shape, code, _ = dataset.info()
        shape = [shape] if rank == 1 else shape
        dimensions = [dataset.dim(axis).info()[0] for axis in range(rank)]
        if 0 in shape:
            dtype = next(name for name, other in CODES.items() if other == code & ~LITTLE_ENDIAN)
            yield name, np.empty(shape, dtype), dataset.attributes(), dimensions
            continue
        values = hdfext._SDreaddata_0(
            dataset._id, code & ~LITTLE_ENDIAN, [0] * rank, list(shape), [1] * rank
        )
        yield name, values, dataset.attributes(), dimensions
    file.end()


NAMES = st.sampled_from(["a", "b", "a b", "c/d", "é"])


@st.composite
def datasets(draw: st.DrawFn) -> Dataset:
    dtype = np.dtype(draw(st.sampled_from(list(CODES))))
    shape = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    size = math.prod(shape) * dtype.itemsize
    values = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), dtype).reshape(shape)
    kind = draw(st.sampled_from(["plain", "records", "chunks"]))
    chunks = tuple(draw(st.integers(1, n)) for n in shape) if kind == "chunks" else None
    fill = draw(st.none() | st.integers(0, 100))
    if dtype.kind == "S" and fill is not None:
        fill = "x"
    return Dataset(
        draw(NAMES),
        values,
        records=kind == "records",
        written=draw(st.integers(0, shape[0])),
        chunks=chunks,
        level=None if kind == "records" else draw(st.none() | st.integers(1, 9)),
        fill=fill,
        little=draw(st.booleans()),
    )


@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
@given(st.lists(datasets(), min_size=1, max_size=4))
def test_values_are_pyhdfs(written: list[Dataset]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "g.hdf", *written)
        granule, report = ingested(path, inline_threshold=0)
        assert report.omitted == {}
        seen: list[str] = []
        for name, values, attributes, dimensions in as_pyhdf(path):
            base = name.replace("/", "_")
            seen.append(base)
            number = seen.count(base)
            array = granule[base if number == 1 else f"{base}_{number}"]
            assert_same(array, values)
            assert array.metadata.dimension_names == tuple(dimensions)
            # A character that stands for what is missing is none of Zarr's encodings.
            without = {"_FillValue"} if values.dtype.kind == "S" else set()
            assert array.attrs.keys() >= attributes.keys() - without
        assert len(list(granule.array_keys())) == len(written)


@pytest.mark.parametrize("chunks", [None, (3, 4)])
@pytest.mark.parametrize("level", [None, 6])
@pytest.mark.parametrize("little", [False, True])
def test_values_are_referred_to(
    tmp_path: Path, chunks: tuple[int, int] | None, level: int | None, little: bool
) -> None:
    values = np.arange(70, dtype="i4").reshape(7, 10)
    dataset = Dataset("v", values, chunks=chunks, level=level, little=little)
    granule, report = ingested(write(tmp_path / "g.hdf", dataset), inline_threshold=0)
    assert report.omitted == {}
    assert report.references == (1 if chunks is None else 9)
    np.testing.assert_array_equal(granule["v"][...], values)


def test_attributes(tmp_path: Path) -> None:
    attributes = (
        ("scale_factor", SDC.FLOAT64, 0.02),
        ("add_offset", SDC.FLOAT64, 0.0),
        ("valid_range", SDC.UINT16, [7500, 65535]),
        ("single", SDC.FLOAT32, 0.02),
        ("long_name", SDC.CHAR, "LST"),
        ("text", SDC.CHAR, "short\0garbage"),
        ("latin", SDC.CHAR, "Zürich"),
        ("signed", SDC.INT8, [-1, 5]),
        ("large", SDC.UINT32, 2**32 - 1),
    )
    values = np.arange(14000, 14020, dtype="u2").reshape(4, 5)
    path = write(tmp_path / "é g%.hdf", Dataset("LST", values, ("y", "x"), attributes=attributes))
    file = SD(str(path), SDC.WRITE)
    file.attr("StructMetadata.0").set(SDC.CHAR, "GROUP=SwathStructure\nEND\0\0\0")
    file.end()
    granule, _ = ingested(path)
    expected = {
        "scale_factor": 0.02,
        "add_offset": 0.0,
        "valid_range": [7500, 65535],
        "single": float(np.float32(0.02)),
        "long_name": "LST",
        "text": "short",
        "latin": "Zürich",
        "signed": [-1, 5],
        "large": 2**32 - 1,
    }
    assert {name: granule["LST"].attrs[name] for name in expected} == expected
    assert granule.attrs["StructMetadata.0"] == "GROUP=SwathStructure\nEND"
    np.testing.assert_array_equal(granule["LST"][...], values)


def test_scaled_values_are_decoded(tmp_path: Path) -> None:
    attributes = (("scale_factor", SDC.FLOAT64, 0.5), ("add_offset", SDC.FLOAT64, 10.0))
    values = np.array([2, 4, 0], "u2")
    path = write(tmp_path / "g.hdf", Dataset("v", values, ("x",), fill=0, attributes=attributes))
    store = tmp_path / "store"
    report = l2view.ingest(path, store, defaults=FIELDS)
    (note,) = report.notes
    assert note.startswith("v decode to scale_factor * stored + add_offset (CF), where products in")
    decoded = l2view.open(store).to_datatree()["g/v"].values
    np.testing.assert_array_equal(decoded, [11, 12, np.nan])


def test_records_up_to_the_longest(tmp_path: Path) -> None:
    long = Dataset("long", np.arange(6, dtype="i2").reshape(3, 2), ("time", "x"), records=True)
    short = Dataset("short", np.array([7.0, 8.0]), ("time",), records=True, fill=-1)
    empty = Dataset("empty", np.array([1], "u1"), ("time",), records=True, written=0)
    granule, _ = ingested(write(tmp_path / "g.hdf", long, short, empty))
    assert granule["long"][...].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert granule["short"][...].tolist() == [7, 8, -1]
    assert granule["empty"].shape == (3,)


def append(path: Path, name: str, values: np.ndarray[Any, Any], start: int) -> None:
    file = SD(str(path), SDC.WRITE)
    dataset = file.select(name)
    dataset[start : start + len(values)] = values
    dataset.endaccess()
    file.end()


def way_out(nbytes: int, threshold: int) -> str:
    return (
        f"its {nbytes:,} bytes are more than inline_threshold={threshold:,} "
        f"(--inline-threshold {nbytes} copies it)"
    )


def test_whole_records_in_linked_blocks_are_referred_to(tmp_path: Path) -> None:
    values = np.arange(6400, dtype="f8").reshape(1600, 4)
    path = write(tmp_path / "g.hdf", Dataset("long", np.arange(2000, dtype="u1"), ("y",), True))
    short = Dataset("v", values[:800], ("y", "x"), records=True)
    for dataset in (short, Dataset("w", values)):  # which stands behind the blocks of v
        file = SD(str(path), SDC.WRITE)
        dataset.write(file)
        file.end()
    append(path, "v", values[800:], 800)
    granule, report = ingested(path)
    padding = np.full((400, 4), 9.969209968386869e36)
    np.testing.assert_array_equal(granule["v"][...], np.concatenate([values, padding]))
    (rows, _), (_, report) = granule["v"].chunks, ingested(path, inline_threshold=100)
    assert rows < 1600
    size = way_out(rows * 32, 100)
    assert reasons(report) == {"v": f"its values lie in several blocks of the file; {size}"}
    _, report = ingested(path, inline_threshold=rows * 32)
    assert report.omitted == {}


def test_compressed_values_in_linked_blocks(tmp_path: Path) -> None:
    """What two datasets that are written at a time flush at their end lies behind both."""
    values = np.random.default_rng(0).integers(0, 1000, (600, 100), "i2")
    file = SD(str(tmp_path / "g.hdf"), SDC.WRITE | SDC.CREATE)
    datasets = [file.create(name, SDC.INT16, values.shape) for name in "ab"]
    for dataset in datasets:
        dataset.setcompress(SDC.COMP_DEFLATE, 6)
        dataset[:] = values
    for dataset in datasets:
        dataset.endaccess()
    file.end()
    granule, report = ingested(tmp_path / "g.hdf", inline_threshold=100_000)
    assert report.omitted == {}
    for name in "ab":
        assert granule[name].nbytes > 100_000
        assert_same(granule[name], values)


def test_an_empty_block_before_those_of_a_table(tmp_path: Path) -> None:
    values = np.arange(1200, dtype="i2").reshape(60, 20)
    path = write(tmp_path / "g.hdf", Dataset("v", values, chunks=(20, 20), level=6, written=20))
    append(path, "v", values[20:], 20)
    data = bytearray(path.read_bytes())
    with path.open("rb") as file:
        blocks = hdf4_elements.Elements.of(file)._extents
    first, second = (blocks[hdf4_elements.LINKED_BLOCK, ref] for ref in (1, 3))
    data[second.offset : sum(second)] = (
        data[first.offset : sum(first)] + data[second.offset : sum(second) - first.length]
    )
    descriptor = struct.pack(">HHii", hdf4_elements.LINKED_BLOCK, 1, *first)
    at = data.index(descriptor)
    data[at + 8 : at + 12] = bytes(4)
    path.write_bytes(data)
    granule, report = ingested(path, inline_threshold=0)
    assert report.omitted == {}
    assert_same(granule["v"], values)


@pytest.mark.parametrize(
    ("codec", "name"), [(SDC.COMP_RLE, "run lengths"), (SDC.COMP_SKPHUFF, "Huffman")]
)
def test_codecs_that_zarr_lacks(tmp_path: Path, codec: int, name: str) -> None:
    values = np.arange(40, dtype="i2")
    file = SD(str(tmp_path / "g.hdf"), SDC.WRITE | SDC.CREATE)
    made = file.create("v", SDC.INT16, (40,))
    made.setcompress(codec, *([2] if codec == SDC.COMP_SKPHUFF else []))
    made[:] = values
    made.endaccess()
    nbit = file.create("n", SDC.INT16, (40,))
    assert LIBRARY.SDsetnbitdataset(ctypes.c_int32(nbit._id), 9, 10, 0, 0) > 0
    nbit[:] = values
    nbit.endaccess()
    Dataset("plain", values).write(file)
    file.end()
    granule, _ = ingested(tmp_path / "g.hdf")
    assert_same(granule["v"], values)
    assert_same(granule["n"], values)
    granule, report = ingested(tmp_path / "g.hdf", inline_threshold=10)
    size = way_out(80, 10)
    assert reasons(report) == {
        "v": f"it is compressed by {name}, for which Zarr has no codec; {size}",
        "n": f"it is compressed by N-bit, for which Zarr has no codec; {size}",
    }
    assert_same(granule["plain"], values)


def test_values_in_another_file(tmp_path: Path) -> None:
    file = SD(str(tmp_path / "g.hdf"), SDC.WRITE | SDC.CREATE)
    made = file.create("v", SDC.INT16, (4,))
    made.setexternalfile(str(tmp_path / "other.bin"), 0)
    made[:] = np.arange(4, dtype="i2")
    made.endaccess()
    Dataset("plain", np.arange(3, dtype="i4")).write(file)
    file.end()
    granule, _ = ingested(tmp_path / "g.hdf")
    assert granule["v"][...].tolist() == [0, 1, 2, 3]
    _, report = ingested(tmp_path / "g.hdf", inline_threshold=4)
    assert reasons(report)["v"].startswith("its values lie in another file; its 8 bytes")


def test_references_that_decode_to_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "g.hdf", Dataset("v", np.arange(6, dtype="i2")))
    monkeypatch.setitem(hdf4_elements.ORDERS, 1, "<")
    granule, _ = ingested(path)
    assert granule["v"][...].tolist() == [0, 1, 2, 3, 4, 5]
    store = tmp_path / "store"
    report = l2view.ingest(path, store, defaults=FIELDS, inline_threshold=4)
    assert report.failed[0].reason == (
        "no array of it can be taken in; v: its bytes don't decode to the values that pyhdf "
        f"reads; {way_out(12, 4)}"
    )


def structure(path: Path, name: str, kind: str, *members: int) -> None:
    """Write a swath or grid of HDF-EOS around datasets."""
    file = HDF(str(path), HC.WRITE)
    groups = V(file)
    outer, inner = groups.create(name), groups.create("Data Fields")
    outer._class, inner._class = kind, f"{kind} Vgroup"
    for ref in members:
        inner.add(720, ref)
    outer.insert(inner)
    inner.detach()
    outer.detach()
    groups.end()
    file.close()


def test_names_that_stand_twice(tmp_path: Path) -> None:
    one, two = np.arange(3.0), np.arange(4.0) + 10
    path = write(tmp_path / "g.hdf", *(Dataset(n, v) for n in "ab" for v in (one, two)))
    file = SD(str(path))
    refs = [file.select(index).ref() for index in range(4)]
    file.end()
    granule, _ = ingested(path)
    assert sorted(granule.array_keys()) == ["a", "a_2", "b", "b_2"]
    structure(path, "low", "SWATH", refs[0], refs[2])
    structure(path, "high", "SWATH", refs[1])
    granule, _ = ingested(path)
    assert_same(granule["low/a"], one)
    assert_same(granule["low/b"], one)
    assert_same(granule["high/a"], two)
    assert_same(granule["b"], two)


def test_names_of_a_structure_are_flat(tmp_path: Path) -> None:
    path = write(tmp_path / "g.hdf", Dataset("a", np.arange(3.0)), Dataset("b", np.arange(4.0)))
    file = SD(str(path))
    refs = [file.select(index).ref() for index in range(2)]
    file.end()
    structure(path, "low", "GRID", *refs)
    granule, _ = ingested(path)
    assert sorted(granule.array_keys()) == ["a", "b"]


@pytest.mark.parametrize("interlace", [HC.FULL_INTERLACE, HC.NO_INTERLACE])
def test_tables(tmp_path: Path, interlace: int) -> None:
    path = write(tmp_path / "g.hdf", Dataset("v", np.arange(3.0)), Dataset("taken", np.arange(2.0)))
    file = HDF(str(path), HC.WRITE)
    tables = VS(file)
    fields = (("height", HC.FLOAT32, 1), ("name", HC.CHAR8, 4), ("range", HC.INT16, 2))
    made = tables.create("stations", (*fields, ("grade", HC.CHAR8, 1)))
    made._interlace = interlace
    made.write([[1.5, "here", [1, 2], ord("A")], [2.5, "away", [3, 4], ord("B")]])
    made.detach()
    made = tables.create("Latitude", (("Latitude", HC.FLOAT32, 1),))
    made.write([[10.0], [11.0], [12.0]])
    made.detach()
    tables.create("taken", (("x", HC.INT16, 1),)).detach()
    tables.end()
    file.close()
    granule, report = ingested(path)
    assert granule["stations/height"][...].tolist() == [1.5, 2.5]
    assert granule["stations/name"][...].tolist() == [b"here", b"away"]
    assert granule["stations/range"][...].tolist() == [[1, 2], [3, 4]]
    assert granule["stations/grade"][...].tolist() == [b"A", b"B"]
    assert_same(granule["Latitude"], np.array([10, 11, 12], "f4"))
    assert reasons(report) == {"taken": "it is a table with the name of something else"}
    _, report = ingested(path, inline_threshold=20)
    assert reasons(report)["stations"] == way_out(26, 20)


def pointer(values: np.ndarray[Any, Any]) -> ctypes.c_void_p:
    return values.ctypes.data_as(ctypes.c_void_p)


def test_files_of_before_1993(tmp_path: Path) -> None:
    path = tmp_path / "g.hdf"
    values, scale = np.arange(12, dtype="f4").reshape(3, 4), np.array([10, 20, 30], "f4")
    lengths = (ctypes.c_int32 * 2)(3, 4)
    LIBRARY.DFSDsetdims(2, lengths)
    LIBRARY.DFSDsetdatastrs(b"temperature", b"K", b"", b"")
    LIBRARY.DFSDsetdimscale(1, 3, pointer(scale))
    assert LIBRARY.DFSDadddata(str(path).encode(), 2, lengths, pointer(values)) == 0
    granule, report = ingested(path)
    assert sorted(granule.array_keys()) == ["Data-Set-2", "fakeDim0"]
    assert reasons(report) == {"fakeDim1": "it has no descriptor of its own; pyhdf can't read it"}
    assert_same(granule["Data-Set-2"], values)
    assert_same(granule["fakeDim0"], scale)
    assert granule["Data-Set-2"].attrs["units"] == "K"


def test_raster_images_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "g.hdf", Dataset("v", np.arange(3.0)))
    image = np.arange(20, dtype="u1")
    assert LIBRARY.DFR8addimage(str(path).encode(), pointer(image), 5, 4, 0) == 0
    _, report = ingested(path)
    ((name, reason),) = reasons(report).items()
    assert name.startswith("raster_")
    assert reason == "it is a raster image, which pyhdf doesn't read"


def test_a_file_that_is_cut_off(tmp_path: Path) -> None:
    path = write(tmp_path / "g.hdf", Dataset("v", np.arange(1000.0)))
    path.write_bytes(path.read_bytes()[:1500])
    report = l2view.ingest(path, tmp_path / "store", defaults=FIELDS)
    assert report.added.count == 0
    assert "the file ends before its bytes do" in report.failed[0].reason


def test_an_array_that_is_cut_off(tmp_path: Path) -> None:
    small = Dataset("small", np.arange(3, dtype="i2"))
    path = write(tmp_path / "g.hdf", small, Dataset("large", np.arange(1000.0)))
    data = path.read_bytes()
    offset = data.index(np.arange(1000.0).astype(">f8").tobytes())
    descriptor = data.index(offset.to_bytes(4) + (8000).to_bytes(4))
    beyond = (len(data) - 100).to_bytes(4)
    path.write_bytes(data[:descriptor] + beyond + data[descriptor + 4 :])
    granule, report = ingested(path, inline_threshold=100)
    assert granule["small"][...].tolist() == [0, 1, 2]
    assert reasons(report) == {"large": f"the file ends before its bytes do; {way_out(8000, 100)}"}


def test_a_remote_file(tmp_path: Path) -> None:
    values = np.arange(5000, dtype="i4")
    write(tmp_path / "g.hdf", Dataset("v", values, level=1))
    handler = functools.partial(Handler, directory=str(tmp_path))
    with Server(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/g.hdf"
        report = l2view.ingest(url, tmp_path / "store", defaults=FIELDS)
        assert report.failed == []
        view = l2view.open(tmp_path / "store", authorize=True)
        np.testing.assert_array_equal(view["g/v"][...], values)
        server.shutdown()


@pytest.mark.parametrize(
    ("name", "chunks"),
    [
        ("MOD05_L2.A2019336.2315.061.2019337071952.hdf", 9),
        ("MOD11B2.A2017001.h14v04.006.2017013155631.hdf", 19 * 200),
        ("MOD14.hdf4", 2 * 203 + 4),
        ("f97182070958.hdf", 2 + 4),
    ],
)
def test_real_files(shared_data: Path, tmp_path: Path, name: str, chunks: int) -> None:
    path = tmp_path / name
    shutil.copy(shared_data / "real" / name, path)
    granule, report = ingested(path, inline_threshold=0)
    assert report.omitted == {}
    assert report.references == chunks
    compared = 0
    for dataset, values, attributes, dimensions in as_pyhdf(path):
        array = granule[dataset]
        assert_same(array, values)
        assert array.metadata.dimension_names == tuple(dimensions)
        for key in attributes.keys() - {"_FillValue"}:
            value = attributes[key]
            expected = value.partition("\0")[0] if isinstance(value, str) else value
            assert array.attrs[key] == expected, (dataset, key)
        compared += 1
    assert compared == len(list(granule.array_keys()))


def test_a_fill_value_that_the_type_lacks_is_none(tmp_path: Path) -> None:
    """It would be another number, which stood for records that were never written."""
    file = SD(str(tmp_path / "g.hdf"), SDC.WRITE | SDC.CREATE)
    for name, rows in (("short", 2), ("long", 5)):
        dataset = file.create(name, SDC.UINT8, (SDC.UNLIMITED, 3))
        dataset.dim(0).setname("time")
        dataset.attr("_FillValue").set(SDC.INT16, -999)
        dataset[:rows] = np.ones((rows, 3), np.uint8)
        dataset.endaccess()
    file.end()
    defaults = {"datetime": "2025-06-01"}
    l2view.ingest(tmp_path / "g.hdf", tmp_path / "c", defaults=defaults)
    values = l2view.open(tmp_path / "c")["g/short"][...]
    assert (values[:2] == 1).all()
    assert -999 % 256 not in values
