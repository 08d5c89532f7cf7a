"""Views as collections, as references of other tools, and as copies, read by those tools."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import duckdb
import h5py
import icechunk
import numpy as np
import obstore
import pyarrow.compute as pc
import pytest
import xarray as xr
import zarr
from builders import write_collection, write_swath
from zarr.storage import LocalStore, MemoryStore, ObjectStore

import l2view

ROWS = (12, 9, 12)


@pytest.fixture
def swaths(tmp_path: Path) -> l2view.Collection:
    """Three virtual granules, two of one length and packing."""
    folder = tmp_path / "files"
    folder.mkdir()
    for number, rows in enumerate(ROWS):
        write_swath(folder / f"s{number}.h5", number * 5, rows, chunk=4)
    l2view.ingest(folder, tmp_path / "collection")
    return l2view.Collection(tmp_path / "collection")


@pytest.fixture
def equal(swaths: l2view.Collection) -> l2view.View:
    """The two that are equal, side by side."""
    return swaths.open("id <> 's1'", layout="stack")


def decoded(view: l2view.View, name: str) -> xr.Dataset:
    return xr.open_zarr(view.store, group=name, consolidated=False, chunks=None).load()


# References


def test_references_say_where_chunks_lie(swaths: l2view.Collection, tmp_path: Path) -> None:
    """The bytes that they name, decoded by hand, are the values."""
    view = swaths.open(variables="lat")
    table = view.references().read_all()
    assert set(table["kind"].to_pylist()) == {"virtual"}
    assert table["granule"].to_pylist().count("s1") == 1
    row = table.filter(pc.equal(table["granule"].cast("string"), "s2")).to_pylist()[0]
    assert row["chunk"] == [0, 0]
    assert row["path"] == (tmp_path / "files" / "s2.h5").as_uri()
    data = (tmp_path / "files" / "s2.h5").read_bytes()[row["offset"] :][: row["length"]]
    np.testing.assert_array_equal(np.frombuffer(data, "<f8").reshape(12, 8), view["s2/lat"][...])
    assert view.nbytes == pc.sum(table["length"]).as_py() == sum(ROWS) * 8 * 8
    assert view.nbytes_by_container == {(tmp_path / "files").as_uri() + "/": view.nbytes}


def test_references_of_a_plain_store(store: MemoryStore) -> None:
    """Each key of a chunk is told, by its size, and those that aren't there."""
    view = l2view.open(store, "orbit < 3")
    table = view.references().read_all()
    native = table.filter(pc.equal(table["kind"].cast("string"), "native"))
    for row in native.to_pylist():
        assert row["length"] == len(store._store_dict[row["path"]])
        assert row["offset"] == 0
    assert {"red", "nir", "quality/flag"} == set(table["array"].to_pylist())
    shapes = [view[f"{row['granule']}/{row['array']}"].nchunks for row in native.to_pylist()]  # type: ignore[union-attr]
    assert len(shapes) == len(native)


def test_missing_and_native_chunks_are_told() -> None:
    repository = icechunk.Repository.create(icechunk.in_memory_storage())
    session = repository.writable_session("main")
    root = write_collection(session.store, 2)
    root["granules/g000"].create_array("gap", shape=(4, 6), chunks=(2, 2), dtype="int64")[
        :2, :2
    ] = 7
    root["granules/g000"].create_array("large", shape=(1000,), dtype="f8", compressors=None)[:] = 1
    session.commit("two")
    table = l2view.open(repository).references().read_all()
    of = {
        name: table.filter(pc.equal(table["array"].cast("string"), name)).to_pylist()
        for name in ("gap", "large")
    }
    there = [row for row in of["gap"] if row["kind"] != "missing"]
    assert [row["chunk"] for row in there] == [[0, 0]]
    assert [row["chunk"] for row in of["gap"] if row["kind"] == "missing"] == [
        [0, 1],
        [0, 2],
        [1, 0],
        [1, 1],
        [1, 2],
    ]
    assert of["large"][0]["kind"] == "native"
    assert of["large"][0]["length"] == 8000
    assert {row["kind"] for row in there} == {"inline"}


def test_references_of_a_folder_have_etags(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "plain.zarr")
    write_collection(store, 2)
    table = l2view.open(tmp_path / "plain.zarr").references().read_all()
    native = [row for row in table.to_pylist() if row["kind"] == "native"]
    assert native
    for row in native:
        path = Path(row["path"].removeprefix("file://"))
        assert path.stat().st_size == row["length"]
        assert row["checksum"]


def test_other_tools_read_the_references(swaths: l2view.Collection) -> None:
    reader = swaths.open().references()  # noqa: F841 (DuckDB finds it by its name)
    found = duckdb.sql("SELECT granule, sum(length) FROM reader GROUP BY ALL ORDER BY ALL")
    assert [name for name, _ in found.fetchall()] == ["s0", "s1", "s2"]


def test_references_of_nothing(swaths: l2view.Collection) -> None:
    view = swaths.open("id = 'none'")
    assert len(view.references().read_all()) == 0
    assert view.nbytes == 0


# Collections


@pytest.mark.parametrize("storage", ["packed", "groups"])
def test_a_search_result_as_a_collection(
    swaths: l2view.Collection, tmp_path: Path, storage: Any
) -> None:
    """It has the fields, attributes, values and footprints; plain Icechunk and xarray read it."""
    view = swaths.open("id <> 's1'")
    snapshot = view.to_icechunk(tmp_path / "copy", storage=storage)
    copy = l2view.Collection(tmp_path / "copy")
    assert copy.snapshot == snapshot
    again = copy.open()
    fields = [name for name in view.table.schema.names if name not in ("idx", "profile", "slot")]
    for name in fields:
        assert again.table[name].to_pylist() == view.table[name].to_pylist()
    for name in view.names:
        places = ("idx", "profile", "slot", "group_path")
        said = [one[name].attrs.asdict() for one in (view, again)]
        mine, copied = ({k: v for k, v in one.items() if k not in places} for one in said)
        assert copied == mine
        np.testing.assert_array_equal(decoded(again, name).sst, decoded(view, name).sst)
    assert again.nbytes_by_container == view.nbytes_by_container
    assert len(copy.search(bbox=(-180, -90, 180, 90))) == 2
    repository = icechunk.Repository.open(
        icechunk.local_filesystem_storage(str(tmp_path / "copy")),
        authorize_virtual_chunk_access=icechunk.containers_credentials(
            dict.fromkeys(view.nbytes_by_container, icechunk.credentials.LocalFileSystemAccess)
        ),
    )
    plain = zarr.open_group(repository.readonly_session("main").store, mode="r")
    group = next(iter(plain["granules"].groups()))[1]  # type: ignore[union-attr]
    assert group["sst"].shape in ((2, 12, 8), (12, 8))
    assert np.isfinite(group["lat"][...]).all()


def test_into_a_session_that_the_caller_commits(swaths: l2view.Collection, tmp_path: Path) -> None:
    repository = icechunk.Repository.create(
        icechunk.local_filesystem_storage(str(tmp_path / "own"))
    )
    session = repository.writable_session("main")
    with pytest.raises(l2view.ExportError, match="no virtual chunk container"):
        swaths.open().to_icechunk(session)
    source = icechunk.Repository.open(
        icechunk.local_filesystem_storage(str(tmp_path / "collection"))
    )
    config = repository.config
    for container in (source.config.virtual_chunk_containers or {}).values():
        config.set_virtual_chunk_container(container)
    session = repository.reopen(config).writable_session("main")
    assert swaths.open().to_icechunk(session) is None
    session.commit("mine")
    assert len(l2view.Collection(repository, authorize=False)) == 3
    with pytest.raises(l2view.ExportError, match="can't be written to"):
        swaths.open().to_icechunk(repository.readonly_session("main"))


def test_of_no_granules_there_is_no_collection(swaths: l2view.Collection, tmp_path: Path) -> None:
    view = swaths.open("id = 'none'")
    with pytest.raises(l2view.ExportError, match="no granules"):
        view.to_icechunk(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    view.to_zarr(tmp_path / "copy.zarr")
    assert list(zarr.open_group(tmp_path / "copy.zarr", mode="r").groups()) == []


def test_a_changed_file_is_an_error(swaths: l2view.Collection, tmp_path: Path) -> None:
    file = tmp_path / "files" / "s1.h5"
    later = time.time() + 100
    os.utime(file, (later, later))
    with pytest.raises(l2view.ExportError, match="files of 1 granules have changed.*s1"):
        swaths.open().to_icechunk(tmp_path / "copy")
    assert swaths.open("id <> 's1'").to_icechunk(tmp_path / "copy")


def test_a_later_change_is_found_in_the_copy(swaths: l2view.Collection, tmp_path: Path) -> None:
    swaths.open().to_icechunk(tmp_path / "copy")
    later = time.time() + 100
    os.utime(tmp_path / "files" / "s1.h5", (later, later))
    assert list(l2view.open(tmp_path / "copy").verify()) == ["s1"]


def test_native_chunks_are_copied_only_when_asked(tmp_path: Path) -> None:
    repository = icechunk.Repository.create(icechunk.in_memory_storage())
    session = repository.writable_session("main")
    root = write_collection(session.store, 2)
    for number in range(2):
        array = root[f"granules/g00{number}"].create_array(
            "large", shape=(1000,), dtype="f8", compressors=None
        )
        array[:] = number
    session.commit("two")
    view = l2view.open(repository)
    with pytest.raises(l2view.ExportError, match="chunks of large are values of .*copy_native"):
        view.to_icechunk(tmp_path / "copy")
    view.to_icechunk(tmp_path / "copy", copy_native=True)
    again = l2view.open(tmp_path / "copy")
    for name in view.names:
        for path in ("red", "nir", "quality/flag", "large"):
            np.testing.assert_array_equal(again[f"{name}/{path}"][...], view[f"{name}/{path}"][...])
    assert again.table["datetime"].to_pylist() == view.table["datetime"].to_pylist()
    # What lies in a manifest goes with it.
    view = l2view.open(repository, variables="flag")
    view.to_icechunk(tmp_path / "small")


def test_a_plain_store_is_referred_to(tmp_path: Path) -> None:
    """Its chunks are files that Icechunk can refer to."""
    write_collection(LocalStore(tmp_path / "plain.zarr"), 3)
    view = l2view.open(tmp_path / "plain.zarr")
    view.to_icechunk(tmp_path / "copy")
    again = l2view.open(tmp_path / "copy")
    kinds = pc.unique(again.references().read_all()["kind"]).to_pylist()
    assert set(kinds) <= {"virtual", "missing"}
    assert "virtual" in kinds
    for name in view.names:
        np.testing.assert_array_equal(again[f"{name}/red"][...], view[f"{name}/red"][...])


def test_a_plain_store_in_a_bucket(bucket: str, tmp_path: Path) -> None:
    """Its objects are told with URLs and ETags, and referred to as they are."""
    write_collection(ObjectStore(obstore.store.from_url(f"{bucket}/plain")), 3)
    view = l2view.open(f"{bucket}/plain", variables="red")
    rows = view.references().read_all().to_pylist()
    native = [row for row in rows if row["kind"] == "native"]
    assert all(row["path"].startswith(f"{bucket}/plain/granules/") for row in native)
    assert all(row["checksum"] for row in native)
    view.to_icechunk(f"{bucket}/copy")
    again = l2view.open(f"{bucket}/copy")
    for name in view.names:
        np.testing.assert_array_equal(again[f"{name}/red"][...], view[f"{name}/red"][...])
    view.to_zarr(f"{bucket}/copied.zarr")
    copied = xr.open_zarr(ObjectStore(obstore.store.from_url(f"{bucket}/copied.zarr")))
    assert copied["id"].values.tolist() == view.table["id"].to_pylist()


def test_virtual_granules_in_a_bucket(bucket: str, tmp_path: Path) -> None:
    """They go from collection to collection, and a file that changes is found in the copy."""
    import boto3

    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    for number in range(3):
        path = write_swath(tmp_path / f"s{number}.h5", number)
        client.upload_file(str(path), bucket.removeprefix("s3://"), f"l2/s{number}.h5")
    l2view.ingest(f"{bucket}/l2/", tmp_path / "collection")
    view = l2view.open(tmp_path / "collection")
    view.to_icechunk(tmp_path / "copy")
    again = l2view.open(tmp_path / "copy")
    np.testing.assert_array_equal(again["s1/sst"][...], view["s1/sst"][...])
    assert again.nbytes_by_container == {f"{bucket}/l2/": view.nbytes}
    other = write_swath(tmp_path / "other.h5", 9)
    client.upload_file(str(other), bucket.removeprefix("s3://"), "l2/s1.h5")
    assert list(l2view.open(tmp_path / "copy").verify()) == ["s1"]
    with pytest.raises(l2view.ExportError, match="s1"):
        view.to_icechunk(tmp_path / "late")


def test_progress_is_told(swaths: l2view.Collection, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    swaths.open().to_icechunk(tmp_path / "copy", progress=lambda *said: told.append(said))
    assert told[-1] == (3, 3)
    swaths.open().to_icechunk(tmp_path / "another", progress=True)


# Kerchunk and VirtualiZarr


def test_kerchunk_json(equal: l2view.View, tmp_path: Path) -> None:
    path = tmp_path / "refs" / "stack.json"
    equal.to_kerchunk(path, zarr_format=3)
    expected = equal.to_dataset().load()
    options = {"fo": str(path), "remote_protocol": "file", "asynchronous": True}
    store = zarr.storage.FsspecStore.from_url("reference://", storage_options=options)
    found = xr.open_zarr(store, consolidated=False)
    for name in ("sst", "lat", "lon", "idx"):
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.filterwarnings("ignore:The 'fastparquet' engine")
@pytest.mark.parametrize("format", ["json", "parquet"])
def test_kerchunk_of_zarr_2(equal: l2view.View, tmp_path: Path, format: Any) -> None:
    path = tmp_path / "refs"
    equal.to_kerchunk(path, format=format)
    # Without the protocol fsspec looks for one, and stumbles over values within the references.
    options = {"remote_protocol": "file"}
    found = xr.open_dataset(str(path), engine="kerchunk", storage_options=options, chunks=None)
    expected = equal.to_dataset().load()
    for name in ("sst", "lat", "lon", "idx"):
        np.testing.assert_array_equal(found[name], expected[name])


def test_zarr_2_masks_nothing_that_is_a_value(tmp_path: Path) -> None:
    """There a fill value is one that xarray masks: a zero that was written is none."""
    store = LocalStore(tmp_path / "plain.zarr")
    root = write_collection(store, 2)
    for number in range(2):
        granule = root[f"granules/g00{number}"]
        options: dict[str, Any] = {"dimension_names": ("z",)}
        granule.create_array("zeros", shape=(3,), chunks=(3,), dtype="i4", **options)[:] = [0, 1, 2]
        gap = granule.create_array(
            "gap", shape=(4,), chunks=(2,), dtype="i4", fill_value=5, dimension_names=("w",)
        )
        gap[:2] = 5 + number
    path = tmp_path / "refs.json"
    view = l2view.open(tmp_path / "plain.zarr", layout="stack", variables="zeros")
    view.to_kerchunk(path)
    found = xr.open_dataset(str(path), engine="kerchunk", chunks=None)
    assert found.zeros.dtype == "int32"
    np.testing.assert_array_equal(found.zeros, [[0, 1, 2]] * 2)
    view = l2view.open(tmp_path / "plain.zarr", layout="stack", variables="gap")
    with pytest.raises(l2view.ExportError, match="gap .*fill value.*zarr_format=3"):
        view.to_kerchunk(path)
    view.to_kerchunk(path, zarr_format=3)


def test_kerchunk_of_a_tree(swaths: l2view.Collection, tmp_path: Path) -> None:
    view = swaths.open()
    view.to_kerchunk(tmp_path / "tree.json")
    refs = json.loads((tmp_path / "tree.json").read_text())["refs"]
    assert refs["s1/lat/0.0"][0] == str(tmp_path / "files" / "s1.h5")
    assert json.loads(refs["s1/.zattrs"])["id"] == "s1"
    found = xr.open_dataset(str(tmp_path / "tree.json"), engine="kerchunk", group="s1", chunks=None)
    np.testing.assert_array_equal(found.sst, decoded(view, "s1").sst)


@pytest.mark.filterwarnings("ignore:The 'fastparquet' engine")
@pytest.mark.parametrize("format", ["json", "parquet"])
def test_kerchunk_comes_in_again(tmp_path: Path, format: Any) -> None:
    """A view's references are a granule, with its groups, texts and scalars."""
    with h5py.File(write_swath(tmp_path / "s.h5", 1), "a") as file:
        file["orbit"] = 7
        file["geo/texts"] = np.array([b"ab", b"cd"])
    l2view.ingest(tmp_path / "s.h5", tmp_path / "c")
    view = l2view.open(tmp_path / "c", fields=[])
    view.to_kerchunk(tmp_path / "k", format=format)
    report = l2view.ingest(tmp_path / "k", tmp_path / "d")
    assert (report.failed, report.omitted) == ([], {})
    again = l2view.open(tmp_path / "d", fields=[])
    assert again["k/s/orbit"][()] == 7
    for name in ("sst", "lat", "geo/texts"):
        np.testing.assert_array_equal(again[f"k/s/{name}"][...], view[f"s/{name}"][...])


def test_a_manifest_store(equal: l2view.View, swaths: l2view.Collection) -> None:
    store = equal.to_manifest_store()
    found = xr.open_zarr(store, consolidated=False, zarr_format=3)
    expected = equal.to_dataset().load()
    for name in ("sst", "lat", "id"):
        np.testing.assert_array_equal(found[name], expected[name])
    virtual = store.to_virtual_dataset(loadable_variables=[])
    assert virtual.sst.shape == (2, 12, 8)
    tree = swaths.open().to_manifest_store()
    one = xr.open_zarr(tree, group="s1", consolidated=False, zarr_format=3)
    np.testing.assert_array_equal(one.sst, decoded(swaths.open(), "s1").sst)


def test_what_is_made_cannot_be_referred_to(swaths: l2view.Collection, tmp_path: Path) -> None:
    view = swaths.open(layout="stack", encoding="unify", ragged="pad", variables="sst")
    with pytest.raises(l2view.ExportError, match="chunks of sst are made when they are read.*s1"):
        view.to_manifest_store()
    view = swaths.open(layout="concat", dim="row", variables="sst")
    with pytest.raises(l2view.ExportError, match="made when they are read"):
        view.to_kerchunk(tmp_path / "refs.json")
    (tmp_path / "whole").mkdir()
    for number, rows in enumerate((12, 9, 12)):
        write_swath(tmp_path / "whole" / f"w{number}.h5", 0, rows)
    l2view.ingest(tmp_path / "whole", tmp_path / "whole-collection")
    whole = l2view.open(tmp_path / "whole-collection", layout="concat", dim="row", variables="sst")
    with pytest.raises(l2view.ExportError, match="chunks of one length"):
        whole.to_kerchunk(tmp_path / "refs.json")
    with pytest.raises(l2view.ExportError, match="format='nc' is not json or parquet"):
        view.to_kerchunk(tmp_path / "refs", format="nc")  # type: ignore[arg-type]


def test_end_to_end_on_a_regular_grid_is_referred_to(
    swaths: l2view.Collection, tmp_path: Path
) -> None:
    view = swaths.open("id <> 's1'", layout="concat", dim="row", variables="sst")
    view.to_kerchunk(tmp_path / "refs.json")
    found = xr.open_dataset(str(tmp_path / "refs.json"), engine="kerchunk", chunks=None)
    np.testing.assert_array_equal(found.sst, view.to_dataset().sst)


# Copies


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"layout": "stack", "encoding": "unify", "ragged": "pad"},
        {"layout": "concat", "dim": "row", "encoding": "unify"},
    ],
    ids=["tree", "stack", "concat"],
)
def test_a_copy_has_the_same_bytes(swaths: l2view.Collection, tmp_path: Path, shape: Any) -> None:
    view = swaths.open(**shape)
    told: list[tuple[int, int]] = []
    view.to_zarr(tmp_path / "copy.zarr", progress=lambda *said: told.append(said))
    assert told[-1][0] == told[-1][1] > 0
    copy = zarr.open_group(tmp_path / "copy.zarr", mode="r")
    assert copy.attrs.asdict() == view.attrs.asdict()
    compared = 0
    for path, node in view.members(max_depth=None):
        assert copy[path].attrs == node.attrs
        if isinstance(node, zarr.Array):
            assert copy[path].metadata == node.metadata
            np.testing.assert_array_equal(copy[path][...], node[...])  # type: ignore[index]
            compared += 1
    assert compared >= 6
    assert not (tmp_path / "copy.zarr" / "l2view-copy" / "zarr.json").exists()
    root = json.loads((tmp_path / "copy.zarr" / "zarr.json").read_text())
    assert len(root["consolidated_metadata"]["metadata"]) >= compared
    with pytest.raises(l2view.ExportError, match="a Zarr hierarchy in .* already"):
        view.to_zarr(tmp_path / "copy.zarr")


class Breaking(MemoryStore):
    """A store that fails after some writes."""

    left = 10

    async def set(self, key: str, value: Any, *args: Any, **options: Any) -> None:
        if self.left <= 0:
            raise OSError("the disk is full")
        self.left -= 1
        await super().set(key, value, *args, **options)


def test_a_copy_goes_on_where_it_stopped(swaths: l2view.Collection) -> None:
    view = swaths.open()
    store = Breaking()
    with pytest.raises(OSError, match="disk is full"):
        view.to_zarr(store)
    assert "zarr.json" not in store._store_dict
    written = dict(store._store_dict)
    store.left = 10_000
    with pytest.raises(l2view.ExportError, match="copy of another search"):
        swaths.open("id = 's1'").to_zarr(store)
    view.to_zarr(store)
    assert all(store._store_dict[key] is value for key, value in written.items() if "/c/" in key)
    copy = zarr.open_group(store, mode="r")
    np.testing.assert_array_equal(copy["s2/sst"][...], view["s2/sst"][...])  # type: ignore[index]
