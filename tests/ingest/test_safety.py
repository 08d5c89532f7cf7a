"""What must not happen: stale bytes, credentials sent elsewhere, lost containers, a lost run."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import h5py
import icechunk
import numpy as np
import pytest
import shapely
import zarr
from builders import write_swath
from command_line import run

import l2view
from l2view.errors import AuthorizationError, ChunkError, IngestError, L2ViewError
from l2view.ingest import pipeline
from l2view.ingest.entries import entries_of
from l2view.ingest.files import FileInfo
from l2view.stores import repository as repository_of_ingest
from l2view.stores.repository import containers_for, keep_containers, open_repository
from l2view.stores.trust import trust, trusted_prefixes

DEFAULTS = {"datetime": "2025-06-01", "bbox": shapely.to_wkb(shapely.Point(1, 2))}


@pytest.mark.parametrize(
    ("etag", "modified", "expected"),
    [
        ('"abc"', 1.5, '""abc""'),
        ("abc", 1.5, '"abc"'),
        ('W/"abc"', 1.0, datetime.fromtimestamp(1, UTC)),
        (None, 1.25, datetime.fromtimestamp(2, UTC)),
    ],
)
def test_what_tells_whether_a_file_changed(etag: Any, modified: float, expected: Any) -> None:
    info = FileInfo("s3://b/a", 1, etag, datetime.fromtimestamp(modified, UTC))
    assert info.checksum == expected


def test_a_store_without_etags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from_meta = FileInfo.from_meta
    monkeypatch.setattr(
        FileInfo, "from_meta", lambda url, meta: replace(from_meta(url, meta), etag=None)
    )
    path = write_swath(tmp_path / "s.h5", 1)
    l2view.ingest(path, tmp_path / "c")
    l2view.open(tmp_path / "c")["s/sst"][:]
    write_swath(path, 2)
    later = path.stat().st_mtime + 10
    os.utime(path, (later, later))
    with pytest.raises(ChunkError, match=r"has changed .*s\.h5"):
        l2view.open(tmp_path / "c")["s/sst"][:]


def write_zarr(path: Path) -> zarr.Group:
    root = zarr.create_group(path)
    for name in ("a", "b/c"):
        array = root.create_array(name, shape=(6, 4), chunks=(2, 4), dtype="i4", compressors=None)
        array[:] = np.arange(24).reshape(6, 4) + 1
    return root


def test_every_chunk_of_a_folder_is_watched(tmp_path: Path) -> None:
    write_zarr(tmp_path / "g.zarr")
    report = l2view.ingest(tmp_path / "g.zarr", tmp_path / "c", defaults=DEFAULTS)
    assert report.references == 6
    assert l2view.open(tmp_path / "c").verify() == {}
    chunk = tmp_path / "g.zarr" / "b" / "c" / "c" / "2" / "0"
    chunk.write_bytes(bytes(32))
    view = l2view.open(tmp_path / "c")
    np.testing.assert_array_equal(view["g/b/c"][:4], np.arange(16).reshape(4, 4) + 1)
    with pytest.raises(ChunkError, match="has changed"):
        view["g/b/c"][4:]
    assert set(view.verify()) == {"g"}
    chunk.unlink()
    assert "c/2/0" in view.verify()["g"]


def test_files_that_references_name_are_watched(tmp_path: Path) -> None:
    raw = tmp_path / "raw.bin"
    np.arange(8, dtype="<i4").tofile(raw)
    array = {
        "shape": [8],
        "chunks": [8],
        "dtype": "<i4",
        "compressor": None,
        "fill_value": 0,
        "filters": None,
        "order": "C",
        "zarr_format": 2,
    }
    refs = {
        ".zgroup": json.dumps({"zarr_format": 2}),
        "x/.zarray": json.dumps(array),
        "x/.zattrs": json.dumps({"_ARRAY_DIMENSIONS": ["i"]}),
        "x/0": [raw.as_uri(), 0, 32],
    }
    (tmp_path / "k.json").write_text(json.dumps({"version": 1, "refs": refs}))
    report = l2view.ingest(tmp_path / "k.json", tmp_path / "c", defaults=DEFAULTS)
    assert report.failed == []
    view = l2view.open(tmp_path / "c")
    assert view["k/x"][...].tolist() == list(range(8))
    np.arange(9, dtype="<i4").tofile(raw)
    with pytest.raises(ChunkError, match="has changed"):
        l2view.open(tmp_path / "c")["k/x"][...]
    raw.unlink()
    report = l2view.ingest(tmp_path / "k.json", tmp_path / "d", defaults=DEFAULTS)
    assert "where there is no file" in report.failed[0].reason


def test_verify_finds_chunks_beyond_the_first(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "s.h5", "w") as file:
        made = file.create_dataset("x", (6,), "f4", chunks=(2,))
        made[4:] = 1  # the first chunk isn't there
    l2view.ingest(tmp_path / "s.h5", tmp_path / "c", defaults=DEFAULTS)
    assert l2view.open(tmp_path / "c").verify() == {}
    (tmp_path / "s.h5").unlink()
    view = l2view.open(tmp_path / "c")
    assert set(view.verify()) == {"s"}
    assert "1 of 1 granules" in run("verify", str(tmp_path / "c"), code=3).stdout


def container(endpoint: str) -> dict[str, icechunk.VirtualChunkContainer]:
    store = icechunk.s3_store(region="us-east-1", endpoint_url=endpoint)
    return {"s3://archive/": icechunk.VirtualChunkContainer("s3://archive/", store)}


def test_trust_is_of_a_container_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    storage = icechunk.local_filesystem_storage(str(tmp_path / "r"))
    trust(storage, container("https://archive.example"))
    assert trusted_prefixes(storage, container("https://archive.example")) == {"s3://archive/"}
    assert trusted_prefixes(storage, container("https://thief.example")) == frozenset()
    other = icechunk.local_filesystem_storage(str(tmp_path / "other"))
    assert trusted_prefixes(other, container("https://archive.example")) == frozenset()


TRUST = """
import sys, icechunk
from l2view.stores.trust import trust
for number in range(20):
    storage = icechunk.local_filesystem_storage(f"{sys.argv[1]}/{number}")
    store = icechunk.local_filesystem_store(sys.argv[1])
    trust(storage, {"file:///d/": icechunk.VirtualChunkContainer("file:///d/", store)})
"""


def test_ingests_at_once_forget_no_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folders = [tmp_path / str(number) for number in range(4)]
    writers = [subprocess.Popen([sys.executable, "-c", TRUST, folder]) for folder in folders]
    assert [writer.wait() for writer in writers] == [0] * 4
    assert len(json.loads((tmp_path / "l2view" / "containers.json").read_text())) == 80


def test_a_container_that_somebody_changed_must_be_authorised(tmp_path: Path) -> None:
    write_swath(tmp_path / "s.h5", 1)
    l2view.ingest(tmp_path / "s.h5", tmp_path / "c")
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(tmp_path / "c")))
    config = repository.config
    prefix = f"{tmp_path.as_uri()}/"
    store = icechunk.local_filesystem_store(str(tmp_path / "elsewhere"))
    config.set_virtual_chunk_container(icechunk.VirtualChunkContainer(prefix, store))
    repository.reopen(config).save_config()
    with pytest.raises(AuthorizationError, match="authorize="):
        l2view.open(tmp_path / "c")


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("none.h5", {}),
        ("bad.h5", {}),
        ("s.h5", {"storage": "boxes"}),
        ("s.h5", {"branch": "other"}),
    ],
)
def test_an_ingest_of_nothing_leaves_nothing_behind(
    tmp_path: Path, path: str, options: dict[str, Any]
) -> None:
    write_swath(tmp_path / "s.h5", 1)
    (tmp_path / "bad.h5").write_bytes(b"no HDF5")
    with contextlib.suppress(L2ViewError):
        report = l2view.ingest(tmp_path / path, tmp_path / "c", **options)
        assert report.failures
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("function", ["parse_granule", "with_containers", "write_batch"])
def test_an_interrupted_first_ingest_leaves_no_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    def interrupt(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    path = write_swath(tmp_path / "s.h5", 1)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, function, interrupt)
        with pytest.raises(KeyboardInterrupt):
            l2view.ingest(path, tmp_path / "c")
    assert not (tmp_path / "c").exists()
    assert l2view.ingest(path, tmp_path / "c").added.count == 1
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, function, interrupt)
        with pytest.raises(KeyboardInterrupt):
            l2view.ingest(path, tmp_path / "c", on_conflict="replace")
    assert len(l2view.open(tmp_path / "c").names) == 1


def test_containers_that_another_ingest_took_away(tmp_path: Path) -> None:
    first = open_repository(tmp_path / "c")
    second = open_repository(tmp_path / "c")
    first, mine = repository_of_ingest.with_containers(first, {"file:///data/a/1.nc"})
    _, theirs = repository_of_ingest.with_containers(second, {"file:///data/b/2.nc"})
    saved = icechunk.Repository.fetch_config(first.storage)
    assert set(saved.virtual_chunk_containers) == {*mine, *theirs}
    second.save_config()  # as a writer does that read the configuration before both
    assert not icechunk.Repository.fetch_config(first.storage).virtual_chunk_containers
    keep_containers(first, mine)
    saved = icechunk.Repository.fetch_config(first.storage)
    assert set(saved.virtual_chunk_containers) == set(mine)


def test_containers_are_as_narrow_as_their_files() -> None:
    assert containers_for({"s3://b/x/y/1.nc", "s3://b/x/z/2.nc"}) == ["s3://b/x/"]
    assert containers_for({"s3://b/x/1.nc"}, ["s3://b/x/"]) == []
    assert containers_for({"file:///a/1.nc", "file:///b/2.nc"}) == ["file:///a/", "file:///b/"]
    assert containers_for({"file:///a%20b/1.nc"}, ["file:///a b/"]) == []


def test_deleting_needs_a_branch_and_its_group(tmp_path: Path) -> None:
    write_swath(tmp_path / "s.h5", 1)
    l2view.ingest(tmp_path / "s.h5", tmp_path / "c")
    snapshot = l2view.Collection(tmp_path / "c").snapshot
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(tmp_path / "c")))
    repository.create_tag("v1", snapshot_id=snapshot)
    session = repository.writable_session("main")
    root = zarr.open_group(session.store)
    root.create_group("other").create_array("n", shape=(1,), dtype="int64")
    session.commit("another group")
    for options in ({"snapshot": snapshot}, {"tag": "v1"}, {"group": "other"}):
        with pytest.raises(IngestError, match="deleted from a branch and its group meta"):
            l2view.Collection(tmp_path / "c", **options).delete("true")
    assert len(l2view.Collection(tmp_path / "c")) == 1
    store = zarr.storage.MemoryStore()
    zarr.create_group(store)["/"].create_group("meta").create_array("n", shape=(1,), dtype="i8")
    with pytest.raises(IngestError, match="an Icechunk repository"):
        l2view.Collection(store).delete("true")


def test_a_branch_that_is_not_there(tmp_path: Path) -> None:
    write_swath(tmp_path / "s.h5", 1)
    with pytest.raises(IngestError, match='no branch "man"; did you mean "main"'):
        l2view.ingest(tmp_path / "s.h5", tmp_path / "c", branch="man")


@pytest.mark.parametrize("parallel", [0, -1, "many", 1.5, None])
def test_what_is_no_executor(tmp_path: Path, parallel: Any) -> None:
    with pytest.raises(IngestError, match=r"parallel=.* is not a number of processes"):
        l2view.ingest([], tmp_path / "c", parallel=parallel)


class Deadly:
    """A parser that ends its process where the file's name says so."""

    def __call__(self, url: str, registry: Any) -> Any:
        from virtualizarr.parsers import HDFParser

        if "deadly" in url:
            os.kill(os.getpid(), signal.SIGKILL)
        return HDFParser()(url, registry)


@pytest.mark.slow
def test_a_file_that_ends_its_process_costs_one_granule(tmp_path: Path) -> None:
    names = ["a0", "a1", "deadly", *(f"b{number}" for number in range(4)), "deadly2", "z"]
    paths = [write_swath(tmp_path / f"{name}.h5", number) for number, name in enumerate(names)]
    report = l2view.ingest(paths, tmp_path / "c", parallel=2, parser=Deadly())
    assert [one.id for one in report.failed] == ["deadly", "deadly2"]
    assert report.failed[0].reason == "the process that parsed it ended"
    assert report.added.ids == [name for name in names if not name.startswith("deadly")]


def test_executors_of_the_caller(tmp_path: Path) -> None:
    paths = [write_swath(tmp_path / f"s{number}.h5", number) for number in range(3)]
    with ThreadPoolExecutor(2) as threads:
        assert l2view.ingest(paths, tmp_path / "c", parallel=threads).added.count == 3
        threads.submit(int).result()  # it is the caller's, and goes on
    with (
        ProcessPoolExecutor(1, mp_context=get_context("fork")) as processes,
        pytest.raises(IngestError, match="pool of forked processes"),
    ):
        l2view.ingest(paths, tmp_path / "d", parallel=processes)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        assert l2view.ingest(paths, tmp_path / "d", parallel=processes).added.count == 3
    assert l2view.ingest(paths, tmp_path / "e", parallel=True).added.count == 3


def test_a_record_from_afar_names_no_file_here(tmp_path: Path) -> None:
    from l2view.ingest.harvest.stac import item_of

    item = {
        "type": "Feature",
        "id": "x",
        "bbox": [1, 2, 3, 4],
        "properties": {"datetime": "2025-06-01"},
        "assets": {"a": {"href": "file:///secret.h5", "type": "application/x-hdf5"}},
    }
    with pytest.raises(IngestError, match="a: it names a file of this machine"):
        item_of(item, "https://catalog.example/x.json")
    assert item_of(item, "file:///catalog/x.json").assets == {"a": "file:///secret.h5"}
    assert item_of(item).assets == {"a": "file:///secret.h5"}


@pytest.fixture
def namesakes(tmp_path: Path) -> list[Path]:
    folders = [tmp_path / name for name in ("p/a", "p/b", "q/b")]
    for folder in folders:
        folder.mkdir(parents=True)
    return [write_swath(folder / "s.h5", number) for number, folder in enumerate(folders)]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0, 1]])
@pytest.mark.parametrize("batch", [1, 10])
def test_files_of_one_name_have_the_fewest_folders_in_their_ids(
    namesakes: list[Path], tmp_path: Path, order: list[int], batch: int
) -> None:
    store = tmp_path / "x"
    report = l2view.ingest([namesakes[n] for n in order], store, batch=batch)
    assert sorted(report.added.ids) == ["a_s", "p_b_s", "q_b_s"]
    assert report.failed == []
    hrefs = l2view.search(store)
    sources = {path.as_uri() for path in namesakes}
    assert set(hrefs["href"].to_pylist()) == sources
    for granules in (namesakes[1], tmp_path, iter(namesakes), namesakes[::-1]):
        for on_conflict, count in (("skip", "skipped"), ("replace", "replaced")):
            again = l2view.ingest(granules, store, on_conflict=on_conflict)  # type: ignore[arg-type]
            assert again.added.count == 0
            assert set(getattr(again, count).ids) <= {"a_s", "p_b_s", "q_b_s"}
    assert l2view.search(store).select(["id", "href"]) == hrefs.select(["id", "href"])


def test_a_later_file_of_the_same_name_leaves_the_others_theirs(
    namesakes: list[Path], tmp_path: Path
) -> None:
    store = tmp_path / "x"
    assert l2view.ingest(namesakes[1], store).added.ids == ["s"]
    report = l2view.ingest(namesakes[2], store)
    assert report.added.ids == ["b_s"]
    assert "the collection has another file of its name" in str(report)
    again = l2view.ingest(namesakes[:0:-1], store)
    assert (again.added.count, again.skipped.ids) == (0, ["b_s", "s"])
    l2view.Collection(store).delete(ids=["s"])
    assert l2view.ingest(namesakes[2], store).skipped.ids == ["b_s"]
    assert l2view.ingest(iter(namesakes), store).added.ids == ["s", "p_b_s"]


def test_two_files_with_one_name_are_not_one_granule(namesakes: list[Path], tmp_path: Path) -> None:
    paths = namesakes
    twin = write_swath(paths[0].with_suffix(".nc"), 3)
    report = l2view.ingest([paths[0], twin, paths[0]], tmp_path / "x")
    assert report.added.ids == ["s"]
    assert report.skipped.ids == ["s"]
    ((failed),) = report.failed
    assert failed.url == twin.as_uri()
    assert failed.reason.startswith(f"its id is that of {paths[0].as_uri()} too; give it one")
    report = l2view.ingest([paths[0], twin], tmp_path / "x")  # in the collection
    assert (report.skipped.count, report.failures, report.added.count) == (1, 1, 0)

    def harvest(group: zarr.Group, url: str) -> dict[str, Any]:
        return {"id": "/".join(url.split("/")[-3:])}

    assert l2view.ingest(paths, tmp_path / "y", harvest=harvest).added.count == 3
    again = l2view.ingest(paths, tmp_path / "y", harvest=harvest)
    assert (again.skipped.count, again.failures) == (3, 0)
    replaced = l2view.ingest(paths[2], tmp_path / "x", on_conflict="replace")
    assert replaced.replaced.ids == ["s"]
    assert l2view.search(tmp_path / "x")["href"].to_pylist() == [paths[2].as_uri()]


def test_signatures_of_urls_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from l2view.ingest.granule import Entry, Granule
    from l2view.ingest.options import ParseOptions
    from l2view.ingest.parse import parse_granule

    path = write_swath(tmp_path / "s.h5", 1)
    signed = f"{path.as_uri()}?sig=secret"
    entry = Entry("s", {"": signed}, {"href": signed, "asset_x": signed})
    found = parse_granule(entry, ParseOptions())
    assert isinstance(found, Granule), found
    assert found.row["href"] == found.row["asset_x"] == path.as_uri()
    assert "secret" not in repr(found)


def test_the_command_says_no_more_than_its_report(tmp_path: Path) -> None:
    """No warning of a library's comes with it."""
    for number in range(3):
        write_swath(tmp_path / f"s{number}.h5", number)
    for files in (["s0.h5"], ["s1.h5", "s2.h5"]):
        command = [sys.executable, "-m", "l2view", "ingest", *files, "--store", "c"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("batch", [1, 1000])
def test_replacing_replaces_no_other_file_of_the_same_ingest(tmp_path: Path, batch: int) -> None:
    for year in (2021, 2022):
        (tmp_path / "in" / str(year)).mkdir(parents=True)
        write_swath(tmp_path / "in" / str(year) / "x.h5", year - 2000)
    files = sorted((tmp_path / "in").rglob("*.h5"))
    options: Any = {"on_conflict": "replace", "batch": batch}
    report = l2view.ingest(iter(files), tmp_path / "c", **options)
    assert (report.added.count, report.replaced.count, report.failures) == (2, 0, 0)
    assert l2view.search(tmp_path / "c")["id"].to_pylist() == ["x", "2022_x"]
    again = l2view.ingest(iter(files), tmp_path / "c", **options)
    assert (again.added.count, again.replaced.count) == (0, 2)
    (tmp_path / "in").rename(tmp_path / "moved")
    moved = l2view.ingest(tmp_path / "moved" / "2021", tmp_path / "c", **options)
    assert moved.replaced.count == 1
    assert "takes the place of another file's granule" in str(moved)


def test_links_within_a_folder_are_no_granules_of_their_own(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "2021").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    write_swath(folder / "2021" / "x.h5", 1)
    write_swath(tmp_path / "elsewhere" / "y.h5", 2)
    (folder / "latest").symlink_to(folder / "2021")
    (folder / "newest.h5").symlink_to(folder / "2021" / "x.h5")
    (folder / "2021" / "up").symlink_to(folder)
    (folder / "other").symlink_to(tmp_path / "elsewhere")
    (folder / "again").symlink_to(tmp_path / "elsewhere")
    assert sorted(entry.id for entry in entries_of(folder)) == ["x", "y"]
