"""HDF5 datasets that aren't chunks of their file: loaded, or left out by name, never made up."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numcodecs
import numpy as np
import pytest
from builders import write_swath
from virtualizarr.codecs import zarr_codec_config_to_v3

import l2view
from l2view.ingest import hdf5
from l2view.ingest.report import IngestReport


def ingested(path: Path, **options: Any) -> tuple[l2view.View, IngestReport]:
    store = path.parent / f"collection-{path.stem}"
    report = l2view.ingest(path, store, **options)
    assert report.failed == []
    return l2view.open(store, fields=[]), report


def reasons(report: IngestReport) -> dict[str, str]:
    return dict(tuple(report.omitted))


def compact(group: h5py.Group, name: str, values: Any) -> None:
    """Write values into a dataset's header."""
    values = np.asarray(values)
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple(values.shape)
    kind = h5py.h5t.py_create(values.dtype)
    made = h5py.h5d.create(group.id, name.encode(), kind, space, properties)
    h5py.Dataset(made)[...] = values


@pytest.fixture
def swath(tmp_path: Path) -> Path:
    return write_swath(tmp_path / "s.h5", 1)


@pytest.mark.parametrize("where", ["", "nested/deeper/"])
def test_values_in_headers(swath: Path, where: str) -> None:
    with h5py.File(swath, "a") as file:
        group = file.require_group(where) if where else file
        compact(group, "gain", np.arange(6, dtype=">i2").reshape(2, 3))
        group["gain"].attrs["units"] = "dB"
        group["gain"].attrs["_FillValue"] = np.array([-1], dtype=">i2")
    view, report = ingested(swath)
    found = view[f"s/{where}gain"]
    np.testing.assert_array_equal(found[...], np.arange(6).reshape(2, 3))
    assert found.attrs["units"] == "dB"
    np.testing.assert_array_equal(
        view.to_datatree()[f"s/{where}gain"].values, np.arange(6).reshape(2, 3)
    )
    assert report.omitted == {}
    with h5py.File(swath) as file:
        np.testing.assert_array_equal(view["s/sst"][...], file["sst"][...])


def test_values_in_other_files(swath: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.arange(4.0)
    layout = h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource("other.h5", "x", (4,))
    with h5py.File(swath, "a") as file:
        file.create_virtual_dataset("virtual", layout)
        raw = file.create_dataset("raw", (4,), "f8", external=[(str(tmp_path / "r.bin"), 0, 32)])
        raw[:] = 1
        file["elsewhere"] = h5py.ExternalLink("other.h5", "/x")
        file["nowhere"] = h5py.SoftLink("/gone")
        file["alias"] = h5py.SoftLink("/lat")
    view, report = ingested(swath)
    assert sorted(view["s"].array_keys()) == ["alias", "lat", "lon", "sst"]
    np.testing.assert_array_equal(view["s/alias"][...], view["s/lat"][...])
    assert reasons(report) == {
        "virtual": "it is a virtual dataset of other files",
        "raw": "its values lie in another file",
        "elsewhere": "it is a link into another file",
        "nowhere": "it is a link to nothing",
    }
    assert "without virtual: 1 granules, s the first: it is a virtual dataset" in str(report)


def test_chunks_that_skip_a_filter(swath: Path) -> None:
    values = np.arange(20, dtype="f4")
    with h5py.File(swath, "a") as file:
        made = file.create_dataset("m", (20,), "f4", chunks=(5,), compression="gzip", shuffle=True)
        made[5:] = values[5:]
        made.id.write_direct_chunk((0,), values[:5].tobytes(), 3)
    view, _ = ingested(swath)
    np.testing.assert_array_equal(view["s/m"][...], values)
    _, report = ingested(swath.rename(swath.with_name("t.h5")), inline_threshold=10)
    assert reasons(report) == {
        "m": "some of its chunks skip a filter; its 80 bytes are more than inline_threshold=10 "
        "(--inline-threshold 80 copies it)"
    }


def test_data_types_without_a_form(swath: Path) -> None:
    texts = np.array(["one", "zwö", ""], dtype=object)
    with h5py.File(swath, "a") as file:
        lists = file.create_dataset("lists", (2,), h5py.vlen_dtype("i4"))
        lists[0] = [1, 2]
        file.create_dataset("texts", data=texts, dtype=h5py.string_dtype())
        file.create_dataset("nested/refs", (1,), h5py.ref_dtype)
        file["nested/number"] = 7
        file["nothing"] = h5py.Empty("f4")
        file["flags"] = np.array([1, 0], dtype=h5py.enum_dtype({"A": 0, "B": 1}))
        file["pairs"] = np.array([(1, 2.5)], dtype=[("a", ">i4"), ("b", "<f8")])
    view, report = ingested(swath)
    assert view["s/texts"][...].tolist() == texts.tolist()
    assert view["s/nested/number"][...] == 7
    np.testing.assert_array_equal(view["s/flags"][...], [1, 0])
    assert view["s/pairs"][...].tolist() == [(1, 2.5)]
    assert set(reasons(report)) == {"lists", "nested/refs", "nothing"}
    assert "has no Zarr form" in reasons(report)["lists"]
    assert "it has no dataspace" in reasons(report)["nothing"]


def test_strings_are_copied_up_to_a_size(swath: Path) -> None:
    with h5py.File(swath, "a") as file:
        file.create_dataset("texts", data=["long" * 100] * 10, dtype=h5py.string_dtype())
    view, report = ingested(swath, inline_threshold=100)
    assert "texts" not in view["s"]
    assert reasons(report)["texts"].startswith("it can't be referred to, and its 4,0")


def test_values_that_were_never_written(swath: Path) -> None:
    with h5py.File(swath, "a") as file:
        file.create_dataset("later", (3,), "f4", chunks=(2,), fillvalue=-5)
        file.create_dataset("none", (0, 4), "i2")
        file.create_dataset("deep/none", (0,), "f8").attrs["_FillValue"] = np.nan
    view, report = ingested(swath)
    assert view["s/later"][...].tolist() == [-5, -5, -5]
    assert view["s/none"].shape == (0, 4)
    assert view["s/deep/none"].shape == (0,)
    assert report.omitted == {}


def test_a_file_in_which_nothing_can_be_taken_in(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.create_dataset("lists", (2,), h5py.vlen_dtype("i4"))
        file.attrs["time_coverage_start"] = "2025-06-01T00:00:00Z"
    report = l2view.ingest(tmp_path / "f.h5", tmp_path / "c")
    assert report.added.count == 0
    assert report.failed[0].reason.startswith("no array of it can be taken in; lists: ")


def test_values_in_headers_by_all_their_names(swath: Path) -> None:
    with h5py.File(swath, "a") as file:
        compact(file.create_group("g"), "k", [1, 2, 3])
        file["alias"] = h5py.SoftLink("/g/k")
        file["g2"] = file["g"]
        file["g/loop"] = h5py.SoftLink("/")
        file["elsewhere"] = h5py.SoftLink("/g")
    view, report = ingested(swath)
    for path in ("g/k", "alias", "g2/k", "elsewhere/k"):
        assert view[f"s/{path}"][...].tolist() == [1, 2, 3], path
    assert set(reasons(report).values()) == {"it is a link to a group that it lies in"}


def test_chunks_that_are_deflated_twice(tmp_path: Path) -> None:
    values = np.arange(400, dtype="i4").reshape(20, 20)
    with h5py.File(tmp_path / "s.h5", "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((10, 10))
        properties.set_shuffle()
        for level in (1, 9):
            properties.set_deflate(level)
        space, dtype = h5py.h5s.create_simple((20, 20)), h5py.h5t.NATIVE_INT32
        dataset = h5py.h5d.create(file.id, b"twice", dtype, space, properties)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
        file.attrs["time_coverage_start"] = "2025-06-01T00:00:00Z"
    view, report = ingested(tmp_path / "s.h5")
    np.testing.assert_array_equal(view["s/twice"][...], values)
    assert report.omitted == {}


def test_variables_called_like_dimensions(tmp_path: Path) -> None:
    with netCDF4.Dataset(tmp_path / "s.nc", "w") as file:
        file.createDimension("lat", 4)
        file.createDimension("lon", 3)
        for name in ("lat", "lon"):
            made = file.createVariable(name, "f8", ("lat", "lon"))
            made[:] = np.arange(12).reshape(4, 3) if name == "lat" else np.arange(3) + 10
            made.units = "degrees_north" if name == "lat" else "degrees_east"
        file.time_coverage_start = "2025-06-01T00:00:00Z"
    view, _ = ingested(tmp_path / "s.nc")
    assert sorted(view["s"].array_keys()) == ["lat", "lon"]
    np.testing.assert_array_equal(view["s/lat"][...], np.arange(12).reshape(4, 3))


def test_dimensions_that_are_no_variables(swath: Path) -> None:
    """They have no values, which would be shown as zeros; not all have netCDF-4's own number."""
    with h5py.File(swath, "a") as file:
        made = file.create_dataset("obs", (12,), ">f4")
        made.make_scale("This is a netCDF dimension but not a netCDF variable.        12")
        compact(file, "gain", [1, 2])
    view, report = ingested(swath)
    assert sorted(view["s"].array_keys()) == ["gain", "lat", "lon", "sst"]
    assert report.omitted == {}


@pytest.mark.parametrize("layout", [{}, {"chunks": (2,)}, {"chunks": (2,), "compression": "gzip"}])
def test_records_with_padding(tmp_path: Path, layout: dict[str, Any]) -> None:
    dtype = np.dtype([("a", "i1"), ("b", "f8")], align=True)
    values = np.array([(1, 2.5), (3, 4.5), (5, 6.5)], dtype)
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file.create_dataset("v", data=values, **layout)
        file["w"] = np.arange(3)
    view, report = ingested(tmp_path / "s.h5")
    assert report.omitted == {}
    assert view["s/v"][...].tolist() == values.tolist()


def test_attributes_and_names_that_json_lacks_cost_nothing_else(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "s.h5", "w") as file:
        for name in ("good", "odd"):
            file[name] = np.arange(3)
        for node in (file, file["odd"]):
            node.attrs["gain"] = 1 + 2j
            node.attrs["long"] = np.longdouble(1.5)
            node.attrs["where"] = file["good"].ref
        file["odd"].attrs["NAME"] = h5py.Empty("S4")
        file[b"caf\xe9"] = np.arange(2)
    view, _ = ingested(tmp_path / "s.h5")
    assert view["s/good"][:].tolist() == [0, 1, 2]
    assert view["s"].attrs["gain"] == "(1+2j)"


FILTERED = """
import sys, h5py, hdf5plugin, numpy as np
with h5py.File(sys.argv[1], "w") as file:
    values = np.arange(20_000, dtype=np.float32).reshape(100, 200)
    filters = getattr(hdf5plugin, sys.argv[2])()
    file.create_dataset("red", data=values, chunks=(50, 100), shuffle=True, **filters)
"""


@pytest.mark.parametrize("compression", ["Zstd", "Blosc", "LZ4", "Bitshuffle", "BZip2"])
def test_filters_of_other_packages(tmp_path: Path, compression: str) -> None:
    """Virtual where Zarr has their codec, else copied."""
    values = np.arange(20_000, dtype=np.float32).reshape(100, 200)
    path = tmp_path / "g.h5"
    # netCDF4 has filters of its own, which h5py finds by this, and which take another HDF5.
    environment = {n: value for n, value in os.environ.items() if n != "HDF5_PLUGIN_PATH"}
    arguments = [sys.executable, "-c", FILTERED, path, compression]
    subprocess.run(arguments, check=True, env=environment)
    report = l2view.ingest([path], tmp_path / "c", inline_threshold=0)
    if compression not in ("Zstd", "Blosc", "BZip2"):
        (reason,) = re.findall("no array of it can be taken in; (.*)", report.failed[0].reason)
        assert re.match("red: Zarr has no codec for its filter .*(lz4|bitshuffle)", reason)
        assert reason.endswith("(--inline-threshold 80000 copies it)")
        report = l2view.ingest([path], tmp_path / "c", inline_threshold=values.nbytes)
    assert report.omitted == {}
    group: Any = l2view.open(tmp_path / "c", authorize=True)["g"]
    np.testing.assert_array_equal(group["red"], values)


@pytest.mark.parametrize("is_wrong", [True, False])
def test_chunks_are_compared(swath: Path, monkeypatch: pytest.MonkeyPatch, is_wrong: bool) -> None:
    """What a codec gets wrong, or can't decode, is copied where it is small."""
    values = np.arange(3_000, dtype="f4")
    with h5py.File(swath, "a") as file:
        file.create_dataset("x", data=values, chunks=(1_000,), shuffle=True, compression="gzip")

    def codecs(dataset: h5py.Dataset) -> list[Any]:
        wrong = [numcodecs.Shuffle(2), numcodecs.Zlib()] if is_wrong else [numcodecs.Zstd()]
        configs = [zarr_codec_config_to_v3(codec.get_config()) for codec in wrong]
        return configs if dataset._filters else []

    monkeypatch.setattr(hdf5, "_compared", set())
    monkeypatch.setattr(hdf5, "_codecs", codecs)
    view, report = ingested(swath)
    assert report.omitted == {}
    np.testing.assert_array_equal(view["s/x"][...], values)
    _, report = ingested(swath.rename(swath.with_name("t.h5")), inline_threshold=10)
    reason = "don't decode to the values that HDF5 reads" if is_wrong else "Zstd decompression"
    assert reason in reasons(report)["x"]


def test_attributes_that_json_lacks(swath: Path) -> None:
    """They are text, alike on groups and arrays, and make no copy of an array."""
    fields = np.array((3, 0.5), dtype=[("n", "i4"), ("gain", "f4")])
    values = {
        "complex": 1 + 2j,
        "complexes": np.array([1j, 2.0]),
        "longdouble": np.longdouble(1.5),
        "third": np.longdouble(1) / 3,
        "structure": fields,
        "opaque": np.void(b"\x01\xff"),
        "latin": np.bytes_("°C".encode("latin-1")),
        "pair": np.array([1, 2], "u1"),
        "single": np.array([7], "i2"),
        "texts": np.array(["a", "b"], dtype=object),
        "empty": h5py.Empty("f4"),
    }
    with h5py.File(swath, "a") as file:
        lists = np.empty(1, object)
        lists[0] = np.array([b"x"], "S1")
        for node in (file, file.create_group("g"), file["sst"]):
            for name, value in values.items():
                node.attrs[name] = value
            node.attrs["reference"] = file["lat"].ref
            node.attrs["region"] = file["lat"].regionref[:2]
            node.attrs["references"] = np.array([file["lat"].ref, file["lon"].ref], h5py.ref_dtype)
            node.attrs.create("lists", lists, dtype=h5py.vlen_dtype(np.dtype("S1")))
            space = h5py.h5s.create(h5py.h5s.SCALAR)
            h5py.h5a.create(node.id, b"time", h5py.h5t.UNIX_D32LE, space)
    expected = {
        "complex": "(1+2j)",
        "complexes": ["1j", "(2+0j)"],
        "longdouble": 1.5,
        "third": str(np.longdouble(1) / 3),
        "structure": {"n": 3, "gain": 0.5},
        "opaque": "01ff",
        "latin": "°C",
        "pair": [1, 2],
        "single": 7,
        "texts": ["a", "b"],
        "empty": "",
        "reference": "/lat",
        "region": "/lat",
        "references": ["/lat", "/lon"],
        "lists": "x",
    }
    view, report = ingested(swath)
    for path in ("s", "s/g", "s/sst"):
        attributes = dict(view[path].attrs)
        assert {name: attributes[name] for name in expected} == expected
        assert "time" not in attributes
    assert report.references == 3
    assert set(reasons(report)) == {f"{path} attribute time" for path in ("its own", "g", "sst")}
    view.to_datatree()


def test_scales_that_lead_nowhere(swath: Path) -> None:
    """They cost a dimension its name, also of what is too large to be copied."""
    with h5py.File(swath, "a") as file:
        file["scale"] = np.arange(3.0)
        file["scale"].make_scale("scale")
        file["x"] = np.arange(2)
        file["x"].make_scale("x")
        made = file.create_dataset("counts", data=np.arange(6).reshape(3, 2), maxshape=(None, 2))
        made.dims[0].attach_scale(file["scale"])
        made.dims[1].attach_scale(file["x"])
        del file["scale"]
    view, report = ingested(swath, inline_threshold=0)
    np.testing.assert_array_equal(view["s/counts"][...], np.arange(6).reshape(3, 2))
    names = view["s/counts"].metadata.dimension_names
    assert names is not None
    assert names[1] == "x"
    assert report.omitted == {}


def test_names_that_zarr_lacks(swath: Path) -> None:
    with h5py.File(swath, "a") as file:
        file["a\\b"] = np.arange(3)
        file["a_b"] = np.arange(4)
        file["g\\h/zarr.json"] = np.arange(5)
    view, report = ingested(swath)
    assert view["s/a_b"].shape == (4,)
    assert view["s/a_b_"].shape == (3,)
    assert view["s/g_h/zarr.json_"].shape == (5,)
    assert sum("as Zarr has no such name" in note for note in report.notes) == 3


def test_arrays_that_were_never_written_cost_nothing(tmp_path: Path) -> None:
    """Of as many values as no machine holds: only their chunks are counted."""
    with h5py.File(tmp_path / "s.h5", "w") as file:
        shape, chunks = (100_000, 100_000), (1_000, 1_000)
        file.create_dataset("v", shape, "f4", chunks=chunks, compression="gzip", fillvalue=7)
        file["w"] = np.arange(3)
    view, report = ingested(tmp_path / "s.h5")
    assert report.omitted == {}
    assert view["s/v"].shape == (100_000, 100_000)
    assert view["s/v"][70_000, 5:7].tolist() == [7, 7]
