"""Ingest: many granules in, all of them or none, and out again as they were."""

from __future__ import annotations

import glob
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import h5py
import icechunk
import numpy as np
import pytest
import shapely
import xarray as xr
import zarr
from builders import write_swath
from command_line import run
from hypothesis import given, settings
from hypothesis import strategies as st

import l2view
from l2view.errors import (
    AuthorizationError,
    ChunkError,
    IngestError,
    L2ViewWarning,
    QueryError,
    UnsupportedArrayError,
)


def assert_as_in_files(view: l2view.View, folder: Path) -> None:
    for name in view.names:
        with h5py.File(next(folder.rglob(glob.escape(f"{name}.h5")))) as file:
            for array in ("sst", "lat", "lon"):
                np.testing.assert_array_equal(view[f"{name}/{array}"][...], file[array][...])
            scale = float(np.ravel(file["sst"].attrs["scale_factor"])[0])
        assert view[f"{name}/sst"].attrs["scale_factor"] == scale


def test_a_folder_becomes_a_collection(swaths: Path, tmp_path: Path) -> None:
    report = l2view.ingest(swaths, tmp_path / "c", batch=7, collection="sst")
    assert (report.added.count, report.failures, len(report.snapshots)) == (20, 0, 3)
    assert report.added.ids[:2] == ["s00", "s01"]
    assert report.containers == [f"{swaths.as_uri()}/"]
    assert report.bytes > 0
    assert "added             20" in str(report)
    view = l2view.open(tmp_path / "c")
    assert_as_in_files(view, swaths)
    row = l2view.search(tmp_path / "c", "id = 's03'").to_pylist()[0]
    assert str(row["datetime"]) == str(row["start_datetime"]) == "2025-06-04 10:00:00"
    assert row["orbit"] == 3
    assert row["collection"] == "sst"
    assert row["href"] == f"{swaths.as_uri()}/s03.h5"
    with h5py.File(swaths / "s03.h5") as file:
        bounds = shapely.from_wkb(row["bbox"]).bounds
        expected = file["lon"][:].min(), file["lat"][:].min(), file["lon"][:].max()
        assert bounds[:3] == pytest.approx(expected, abs=0.5)  # half a pixel
    xr.testing.assert_identical(
        xr.open_datatree(view.store, engine="zarr")["s05"].to_dataset().load(),
        view.to_datatree()["s05"].to_dataset().load(),
    )


def read_without_l2view(path: Path, files: Path) -> icechunk.IcechunkStore:
    """A collection's store as Icechunk opens it."""
    access = {f"{files.as_uri()}/": icechunk.credentials.LocalFileSystemAccess}
    storage = icechunk.local_filesystem_storage(str(path))
    repository = icechunk.Repository.open(storage, authorize_virtual_chunk_access=access)
    return repository.readonly_session("main").store


def test_nodes_depend_on_product_versions_alone(swaths: Path, tmp_path: Path) -> None:
    l2view.ingest(swaths, tmp_path / "c")
    store = read_without_l2view(tmp_path / "c", swaths)
    granules = zarr.open_group(store, path="granules", mode="r")
    assert len(list(granules.group_keys())) == 1
    (profile,) = granules.groups()
    # Two chunk shapes lie in it, so that no other reader may take it for one grid.
    with pytest.raises(UnsupportedArrayError, match="open the collection with l2view.open"):
        profile[1]["sst"][0]
    assert profile[1]["lat"].shape[0] == 20


def test_one_grid_is_an_array_that_anyone_reads(tmp_path: Path) -> None:
    for number in range(3):
        write_swath(tmp_path / f"s{number}.h5", number, 12, chunk=5)
    l2view.ingest(tmp_path / "*.h5", tmp_path / "c")
    root = zarr.open_group(read_without_l2view(tmp_path / "c", tmp_path), mode="r")
    ((_, profile),) = root["granules"].groups()
    with h5py.File(tmp_path / "s2.h5") as file:
        np.testing.assert_array_equal(profile["sst"][2], file["sst"][:])


def test_again_it_skips_replaces_or_fails(swaths: Path, tmp_path: Path) -> None:
    files = [swaths / f"s{number:02d}.h5" for number in range(4)]
    l2view.ingest(files, tmp_path / "c")
    before = l2view.open(tmp_path / "c").attrs["l2view"]["snapshot"]
    report = l2view.ingest(files, tmp_path / "c")
    assert (report.added.count, report.skipped.count, report.snapshots) == (0, 4, [])
    report = l2view.ingest(files[:2], tmp_path / "c", on_conflict="error")
    assert [one.reason for one in report.failed] == ["its id is in the collection already"] * 2
    copy = tmp_path / "new" / "s01.h5"
    copy.parent.mkdir()
    write_swath(copy, 33, 40)
    report = l2view.ingest(copy, tmp_path / "c", on_conflict="replace")
    assert report.replaced.ids == ["s01"]
    view = l2view.open(tmp_path / "c")
    assert len(view.names) == 4
    assert view["s01/sst"].shape == (40, 8)
    assert l2view.search(tmp_path / "c", "id = 's01'")["orbit"].to_pylist() == [33]
    assert l2view.open(tmp_path / "c", snapshot=before)["s01/sst"].shape == (11, 8)
    twice = l2view.ingest([files[3], files[3]], tmp_path / "d", on_conflict="error")
    assert (twice.added.ids, twice.failures) == (["s03"], 1)
    assert twice.failed[0].reason == "its id is twice in this ingest"
    assert l2view.ingest([files[2], files[2]], tmp_path / "e").skipped.ids == ["s02"]


def bad_files(folder: Path) -> dict[str, str]:
    """Files that are none, and what is said of each."""
    good = write_swath(folder / "good.h5", 1)
    raw = good.read_bytes()
    (folder / "empty.h5").write_bytes(b"")
    (folder / "short.h5").write_bytes(raw[: len(raw) // 3])
    (folder / "page.nc").write_text("<!DOCTYPE html><html>404</html>")
    (folder / "zeros.nc").write_bytes(bytes(5000))
    (folder / "text.tif").write_text("not a picture")
    (folder / "grib.grb").write_bytes(b"GRIB" + bytes(50))
    (folder / "cut.nc").write_bytes(b"CDF\x01" + bytes(3))
    (folder / "cut.tif").write_bytes(b"II*\x00\xff\xff\xff\x7f")
    return {
        "empty": "it is empty",
        "short": "",
        "page": "a page of HTML",
        "zeros": "it begins with zeros",
        "text": "it begins with b'not a pi'",
        "grib": "No valid GRIB messages found",
        "cut": "",
    }


def test_bad_files_cost_one_granule_each(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    said = bad_files(folder)
    missing = folder / "nowhere.h5"
    report = l2view.ingest([folder, missing], tmp_path / "c")
    assert report.added.ids == ["good"]
    found = {one.id: one.reason for one in report.failed}
    assert found.pop("nowhere") == "there is no such file"
    assert set(found) == set(said)
    for name, reason in said.items():
        assert reason in found[name], name
        assert "\n" not in found[name]
    assert l2view.search(tmp_path / "c")["id"].to_pylist() == ["good"]
    with pytest.raises(IngestError, match="it is empty. 0 granules were added before"):
        l2view.ingest(folder / "empty.h5", tmp_path / "d", strict=True)


def test_fields_that_clash(tmp_path: Path) -> None:
    for number in range(3):
        write_swath(tmp_path / f"s{number}.h5", number)
    values: dict[str, Any] = {"s0": 1, "s1": 2.5, "s2": "three"}

    def harvest(group: zarr.Group, url: str) -> dict[str, Any]:
        name = url.rpartition("/")[2].removesuffix(".h5")
        return {"grade": values[name], "late": True if name == "s1" else None, "tags": [1, "a"]}

    report = l2view.ingest(tmp_path / "*.h5", tmp_path / "c", harvest=harvest, batch=1)
    assert [one.id for one in report.failed] == ["s2"]
    assert report.failed[0].reason == 'the field "grade" is string, and float so far'
    table = l2view.search(tmp_path / "c")
    assert table["grade"].to_pylist() == [1.0, 2.5]
    assert table["late"].to_pylist() == [None, True]
    assert json.loads(table["tags"][0].as_py()) == [1, "a"]


def test_a_file_that_changed_is_an_error_not_wrong_data(tmp_path: Path) -> None:
    path = write_swath(tmp_path / "s.h5", 1)
    l2view.ingest(path, tmp_path / "c")
    view = l2view.open(tmp_path / "c")
    assert view["s/sst"].shape == (12, 8)
    view["s/sst"][:]
    write_swath(path, 2)
    with pytest.raises(ChunkError, match=r"checksum .* has changed .*s\.h5"):
        l2view.open(tmp_path / "c")["s/sst"][:]


def test_verify_finds_what_changed_and_what_is_gone(tmp_path: Path) -> None:
    for number in range(4):
        write_swath(tmp_path / f"s{number}.h5", number)
    l2view.ingest(tmp_path / "*.h5", tmp_path / "c")
    assert l2view.open(tmp_path / "c").verify() == {}
    write_swath(tmp_path / "s1.h5", 9)
    (tmp_path / "s2.h5").unlink()
    found = l2view.open(tmp_path / "c").verify()
    assert set(found) == {"s1", "s2"}
    assert "has changed" in found["s1"]
    done = run("verify", str(tmp_path / "c"), code=3)
    assert "2 of 4 granules have files that changed or are missing" in done.stdout
    assert run("verify", str(tmp_path / "c"), "--where", "id = 's0'").stdout.startswith("0 of 1")


def test_deleted_granules_are_found_in_the_past_alone(swaths: Path, tmp_path: Path) -> None:
    l2view.ingest(swaths, tmp_path / "c")
    collection = l2view.Collection(tmp_path / "c")
    assert collection.delete("orbit % 2 = 1 AND orbit < $most", params={"most": 10}) == 5
    left = l2view.search(tmp_path / "c")
    assert left["orbit"].to_pylist() == [0, 2, 4, 6, 8, *range(10, 20)]
    assert_as_in_files(l2view.open(tmp_path / "c"), swaths)
    assert len(collection) == 20
    with pytest.warns(L2ViewWarning, match="no granule has the id nothing"):
        assert collection.delete(ids=["nothing"]) == 0
    with pytest.raises(QueryError, match="name the granules to delete"):
        collection.delete()
    shown = run("delete", str(tmp_path / "c"), "--where", "orbit > 17", "--yes").stdout
    assert shown == "2 granules deleted\n"
    assert run("delete", str(tmp_path / "c"), "--where", "orbit > 10", code=1).stdout.strip() == ""
    report = l2view.ingest(swaths, tmp_path / "c")
    assert (report.added.count, report.skipped.count) == (7, 13)
    again = l2view.search(tmp_path / "c")
    assert sorted(again["orbit"].to_pylist()) == list(range(20))
    assert_as_in_files(l2view.open(tmp_path / "c"), swaths)


def test_what_one_ingested_needs_no_authorisation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    l2view.ingest(write_swath(tmp_path / "s.h5", 1), tmp_path / "c")
    assert l2view.open(tmp_path / "c")["s/sst"][0, 0] == 1
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))
    with pytest.raises(AuthorizationError, match="authorize="):
        l2view.open(tmp_path / "c")


def test_the_command(swaths: Path, tmp_path: Path) -> None:
    store = str(tmp_path / "c")
    shown = run("ingest", *(str(swaths / f"s0{n}.h5") for n in range(3)), "--store", store).stdout
    assert "added              3" in shown
    assert f"may be read: {swaths.as_uri()}/" in shown
    (tmp_path / "bad.h5").write_bytes(b"")
    done = run("ingest", str(tmp_path / "bad.h5"), "--store", store, code=1)
    assert "left out: bad" in done.stdout
    assert "no/*.nc names no file" in run("ingest", "no/*.nc", "--store", store, code=1).stdout
    assert (
        "is not skip, replace or error"
        in run("ingest", str(swaths), "--store", store, "--on-conflict", "merge", code=1).stderr
    )
    assert "3 granules" in run("info", store).stdout


PARALLEL = [2, "threads", "dask"]


def test_names_of_files_that_are_odd(tmp_path: Path) -> None:
    folder = tmp_path / "my files"
    folder.mkdir()
    (folder / "#?[%]").mkdir()
    for name in ("plain", "with space", "per%20cent", "ümlaut", "hash#1", "quest?", "#?[%]/deep"):
        write_swath(folder / f"{name}.h5", 1)
    for name in (b"new\nline.h5", b"latin\xe9.h5"):
        shutil.copy(folder / "plain.h5", os.fsencode(folder) + b"/" + name)
    os.mkfifo(folder / "pipe.h5")
    (folder / "gone.h5").symlink_to("nowhere")
    (folder / "loop").symlink_to(folder)
    report = l2view.ingest(folder, tmp_path / "c")
    reasons = {failure.id: failure.reason[:12] for failure in report.failed}
    assert reasons == {
        "gone": "it is a link",
        "pipe": "it is a pipe",
        "new_line": "its path has",
        "latin\ufffd": "its path has",
    }
    assert report.containers == [f"file://{folder}/"]
    view = l2view.open(tmp_path / "c")
    assert len(view.names) == 7
    assert_as_in_files(view, folder)
    assert view.verify() == {}


@pytest.mark.parametrize("parallel", PARALLEL)
def test_parsing_side_by_side(swaths: Path, tmp_path: Path, parallel: Any) -> None:
    report = l2view.ingest(swaths, tmp_path / "c", parallel=parallel)
    assert report.added.count == 20
    assert report.added.ids == sorted(report.added.ids)
    assert_as_in_files(l2view.open(tmp_path / "c"), swaths)


KILLED = """
import sys, l2view
l2view.ingest(sys.argv[1], sys.argv[2], batch=2)
"""


def committed(path: Path) -> list[str]:
    """The ids of a repository that may have none yet."""
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(path)))
    if len(list(repository.ancestry(branch="main"))) == 1:
        return []
    ids: list[str] = l2view.search(repository)["id"].to_pylist()
    return ids


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on(swaths: Path, tmp_path: Path) -> None:
    """Nothing is lost, nothing is there twice, and what is there is whole."""
    moments = int(os.environ.get("L2VIEW_KILLS", "2"))
    generator = random.Random(0)
    for moment in range(moments):
        path = tmp_path / f"c{moment}"
        command = [sys.executable, "-W", "ignore", "-c", KILLED, str(swaths), str(path)]
        for _ in range(2):
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            time.sleep(generator.uniform(1.0, 4.0))
            process.send_signal(signal.SIGKILL)
            process.wait()
            if (path / "repo").exists():
                ids = committed(path)
                assert len(set(ids)) == len(ids)
        l2view.ingest(swaths, path)
        table = l2view.search(path)
        assert sorted(table["id"].to_pylist()) == [f"s{n:02d}" for n in range(20)]
        assert len(set(table["slot"].to_pylist())) == 20
        assert_as_in_files(l2view.open(path), swaths)
        shutil.rmtree(path)


CONCURRENT = """
import sys, icechunk, l2view
icechunk.set_logs_filter("error")
l2view.ingest(sys.argv[2:], sys.argv[1], batch=2)
"""


@pytest.mark.slow
def test_several_at_once_lose_and_double_nothing(bucket: str, swaths: Path) -> None:
    store = f"{bucket}/collection"
    l2view.ingest(swaths / "s00.h5", store)
    files = [str(path) for path in sorted(swaths.glob("*.h5"))]
    # Each of four takes two thirds of the files: many of them are taken by several.
    parts = [files[n * 3 : n * 3 + 12] for n in range(4)]
    command = [sys.executable, "-W", "ignore", "-c", CONCURRENT, store]
    running = [subprocess.Popen([*command, *part], stderr=subprocess.PIPE) for part in parts]
    for process in running:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors.decode()
    table = l2view.search(store)
    wanted = {"s00", *(Path(path).stem for part in parts for path in part)}
    assert sorted(table["id"].to_pylist()) == sorted(wanted)
    assert len(set(table["slot"].to_pylist())) == len(wanted)
    assert_as_in_files(l2view.open(store, authorize=True), swaths)


def test_granules_in_a_bucket(bucket: str, swaths: Path, tmp_path: Path) -> None:
    import boto3

    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    name = bucket.removeprefix("s3://")
    for number in range(3):
        client.upload_file(str(swaths / f"s0{number}.h5"), name, f"l2/2025/s0{number}.h5")
    report = l2view.ingest(f"{bucket}/l2/**/*.h5", tmp_path / "c")
    assert report.containers == [f"{bucket}/l2/2025/"]
    view = l2view.open(tmp_path / "c")
    assert_as_in_files(view, swaths)
    client.upload_file(str(swaths / "s09.h5"), name, "l2/2025/s01.h5")
    with pytest.raises(ChunkError, match="has changed"):
        l2view.open(tmp_path / "c")["s01/sst"][:]


DTYPES = [
    "int8",
    ">i4",
    "uint16",
    "float32",
    ">f8",
    "bool",
    "complex64",
    "S3",
    "datetime64[s]",
    [("a", "<i2"), ("b", "<f4")],
]


@st.composite
def arrays(draw: st.DrawFn) -> dict[str, Any]:
    shape = draw(st.lists(st.integers(0, 7), max_size=3).map(tuple))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    count = int(np.prod(shape))
    raw = draw(st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize))
    if dtype.kind == "b":
        raw = bytes(byte % 2 for byte in raw)
    chunks = tuple(draw(st.integers(1, max(length, 1))) for length in shape)
    options: dict[str, Any] = {"chunks": chunks}
    if shape and draw(st.booleans()):
        options["shards"] = tuple(2 * length for length in chunks)
    if len(shape) > 1 and draw(st.booleans()):
        options["filters"] = [zarr.codecs.TransposeCodec(order=tuple(reversed(range(len(shape)))))]
    return {
        "values": np.frombuffer(raw, dtype).reshape(shape),
        "attributes": draw(
            st.dictionaries(
                st.sampled_from(["units", "comment", "flags"]),
                st.sampled_from(["K", "é", 1, 1.0, True, None, [1, 2], {"a": "b"}]),
            )
        ),
        "options": options,
        # Chunks that were never written are the fill value.
        "written": draw(st.integers(0, shape[0])) if shape else None,
    }


@given(granules=st.lists(st.tuples(arrays(), arrays()), min_size=1, max_size=4))
@settings(max_examples=int(os.environ.get("L2VIEW_EXAMPLES", "8")))
def test_what_goes_in_comes_out(
    granules: list[tuple[dict[str, Any], dict[str, Any]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Whatever shapes, dtypes, codecs and attributes a granule has."""
    folder = tmp_path_factory.mktemp("zarr")
    defaults = {"datetime": "2025-06-01", "bbox": shapely.to_wkb(shapely.Point(1, 2))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of dtypes without a v3 specification
        for number, pair in enumerate(granules):
            root = zarr.create_group(folder / f"g{number}.zarr", attributes={"n": number})
            for name, made in zip(("a", "b/c"), pair, strict=True):
                array = root.create_array(
                    name,
                    shape=made["values"].shape,
                    dtype=made["values"].dtype,
                    attributes=made["attributes"],
                    **made["options"],
                )
                stop = made["written"]
                if stop is None:
                    array[...] = made["values"]
                elif stop:
                    array[:stop] = made["values"][:stop]
        report = l2view.ingest(
            [folder / f"g{number}.zarr" for number in range(len(granules))],
            folder / "collection",
            defaults=defaults,
            batch=2,
        )
        assert report.failed == []
        view = l2view.open(folder / "collection", fields=[])
        for number, pair in enumerate(granules):
            assert view[f"g{number}"].attrs["n"] == number
            for name, made in zip(("a", "b/c"), pair, strict=True):
                source = zarr.open_array(folder / f"g{number}.zarr" / name, mode="r")
                found = view[f"g{number}/{name}"]
                # Names are completed and told apart (test_dimensions.py).
                apart = {"attributes": {}, "dimension_names": ()}
                assert found.metadata.to_dict() | apart == source.metadata.to_dict() | apart
                assert dict(found.attrs) == made["attributes"] | {"idx": number}
                assert np.asarray(found[...]).tobytes() == np.asarray(source[...]).tobytes()
    shutil.rmtree(folder)
