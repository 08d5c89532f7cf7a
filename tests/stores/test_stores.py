"""Whatever a user may pass as a store, and what is said of what they may not."""

from __future__ import annotations

import functools
import os
import pickle
import re
import shutil
import threading
import warnings
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import obstore.store
import pytest
import zarr
from builders import put, texts, virtual_repository, write_collection
from zarr.storage import LocalStore, MemoryStore, ObjectStore, StorePath, ZipStore

import l2view
from l2view.cache import CACHE
from l2view.errors import AuthorizationError, ChunkError, StoreError
from l2view.text import strip_credentials

WHERE = '"eo:cloud_cover" = 3'


def found(store: object, **options: object) -> list[int]:
    return l2view.search(store, WHERE, fields=[], **options)["idx"].to_pylist()


def test_zarr_store(store: MemoryStore) -> None:
    assert found(store) == [1]


def test_dict_group_and_store_path(v3_store: MemoryStore) -> None:
    assert found(v3_store._store_dict) == [1]
    assert found(zarr.open_group(v3_store, mode="r")) == [1]
    assert found(StorePath(v3_store)) == [1]


def test_collection_below_the_root_of_a_store() -> None:
    store = MemoryStore()
    outer = zarr.create_group(store)
    inner = outer.create_group("deep/collection")
    source = MemoryStore()
    write_collection(source)
    for key, value in source._store_dict.items():
        store._store_dict[f"deep/collection/{key}"] = value
    for given in (zarr.open_group(store, path="deep/collection", mode="r"), inner.store_path):
        view = l2view.open(given, WHERE)
        assert view["S2A_001/red"][0, 0] == 1


def test_local_path_url_zip_and_obstore(tmp_path: Path) -> None:
    path = tmp_path / "collection.zarr"
    write_collection(LocalStore(path))
    assert found(path) == found(str(path)) == found(path.as_uri()) == [1]
    assert found(obstore.store.LocalStore(path)) == [1]
    assert found(ObjectStore(obstore.store.LocalStore(path))) == [1]
    archive = Path(shutil.make_archive(str(tmp_path / "collection"), "zip", path))
    assert found(archive) == found(ZipStore(archive, mode="r")) == [1]
    view = l2view.open(str(archive), WHERE)
    assert view["S2A_001/red"][0, 0] == 1


def test_consolidated_metadata_is_used_but_not_for_the_shape_of_fields(tmp_path: Path) -> None:
    for zarr_format in (2, 3):
        path = tmp_path / str(zarr_format)
        root = write_collection(LocalStore(path), zarr_format=zarr_format)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Zarr v3 has not specified it yet
            zarr.consolidate_metadata(root.store)
        root = zarr.open_group(path, mode="r+", use_consolidated=False)
        for _name, array in root["meta"].arrays():
            array.append(array[:1])
        collection = l2view.Collection(path)
        assert len(collection) == 21
        view = collection.open(WHERE)
        assert view["S2A_001/red"][0, 0] == 1
        assert dict(view["S2A_001/quality"].attrs) == {"method": "made up"}


@pytest.mark.parametrize("kind", ["repository", "session", "store", "path"])
def test_icechunk(repository: icechunk.Repository, tmp_path: Path, kind: str) -> None:
    session = repository.readonly_session("main")
    given = {
        "repository": repository,
        "session": session,
        "store": session.store,
        "path": str(tmp_path / "repository"),
    }[kind]
    view = l2view.open(given, WHERE)
    assert view["S2A_001/red"][0, 0] == 1
    assert view.attrs["l2view"]["snapshot"] == session.snapshot_id


def test_group_of_an_icechunk_store_keeps_the_snapshot(repository: icechunk.Repository) -> None:
    session = repository.readonly_session("main")
    view = l2view.open(zarr.open_group(session.store, mode="r"), WHERE)
    assert view.attrs["l2view"]["snapshot"] == session.snapshot_id


def test_search_of_the_past(repository: icechunk.Repository) -> None:
    first = repository.lookup_branch("main")
    repository.create_tag("first", first)
    repository.create_branch("work", first)
    session = repository.writable_session("main")
    field = zarr.open_group(session.store)["meta/eo:cloud_cover"]
    field[:] = np.full(20, 99)
    session.commit("all cloudy")
    assert found(repository) == []
    assert found(repository, tag="first") == [1]
    assert found(repository, snapshot=first) == [1]
    assert found(repository, branch="work") == [1]


def test_uncommitted_changes_have_no_snapshot(repository: icechunk.Repository) -> None:
    session = repository.writable_session("main")
    zarr.open_group(session.store)["meta/eo:cloud_cover"][5] = 3
    assert l2view.open(session, WHERE).attrs["l2view"]["snapshot"] is None
    assert found(session) == [1, 5]
    # What can be written to doesn't stay what its snapshot says.
    clean = repository.writable_session("main")
    assert l2view.open(clean, WHERE).attrs["l2view"]["snapshot"] is None
    read = repository.readonly_session("main")
    assert l2view.open(read, WHERE).attrs["l2view"]["snapshot"] == read.snapshot_id


def test_versions_that_are_not_there(repository: icechunk.Repository) -> None:
    with pytest.raises(StoreError, match='no branch "mian"; did you mean "main"'):
        l2view.Collection(repository, branch="mian")
    with pytest.raises(StoreError, match='no tag "v1"; tags: \\(none\\)'):
        l2view.Collection(repository, tag="v1")
    with pytest.raises(StoreError, match="no snapshot AAAA"):
        l2view.Collection(repository, snapshot="AAAA")
    with pytest.raises(StoreError, match="one of branch, tag and snapshot, not branch and tag"):
        l2view.Collection(repository, branch="main", tag="v1")


def test_versions_of_what_has_none(v3_store: MemoryStore, repository: icechunk.Repository) -> None:
    with pytest.raises(StoreError, match="branch= is for an Icechunk repository; memory is not"):
        l2view.Collection(v3_store, branch="main")
    with pytest.raises(StoreError, match="tag= is for an Icechunk repository"):
        l2view.Collection(repository.readonly_session("main"), tag="v1")
    with pytest.raises(StoreError, match="authorize= is for an Icechunk repository"):
        l2view.Collection(v3_store, authorize=["file:///"])


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is nothing at"):
        l2view.Collection(tmp_path / "nowhere")
    (tmp_path / "file.txt").touch()
    with pytest.raises(StoreError, match="is a file; a store is a folder, a .zip or a URL"):
        l2view.Collection(tmp_path / "file.txt")
    with pytest.raises(StoreError, match="can't open a int as a store; pass"):
        l2view.Collection(7)  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="nope://x can't be read"):
        l2view.Collection("nope://x")


def test_no_collection(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="there is no Zarr hierarchy at its root"):
        l2view.Collection(tmp_path / "empty")
    root = zarr.create_group(MemoryStore())
    root.create_group("ocean")
    root.create_group("land")
    put(root, "lat", np.arange(3))
    with pytest.raises(StoreError) as raised:
        l2view.Collection(root.store)
    assert str(raised.value) == (
        'memory is not a collection: a collection has a group "meta" of 1-D arrays of one '
        "length, one for each field; groups at its root: land, ocean. Name another with group="
    )


def test_another_group(v3_store: MemoryStore) -> None:
    root = zarr.open_group(v3_store)
    put(root.create_group("search/index"), "id", texts("ab"))
    collection = l2view.Collection(v3_store, group="search/index")
    assert len(collection) == 2
    with pytest.warns(l2view.MissingGranuleWarning, match="2 of 2 granules have no arrays"):
        assert collection.open().attrs["l2view"]["group"] == "search/index"


def test_authorisation_is_needed(tmp_path: Path) -> None:
    _, prefix = virtual_repository(tmp_path)
    path = tmp_path / "repository"
    with pytest.raises(AuthorizationError) as raised:
        l2view.open(path)
    assert prefix in str(raised.value)
    assert f"authorize=['{prefix}']" in str(raised.value)
    # Without chunks there is nothing to authorise.
    assert len(l2view.search(path)) == 1
    assert len(l2view.Collection(path)) == 1


@pytest.mark.parametrize("how", ["list", "text", "all", "mapping", "repository"])
def test_authorisation_is_given(tmp_path: Path, how: str) -> None:
    access = icechunk.credentials.LocalFileSystemAccess
    _, prefix = virtual_repository(tmp_path)
    path = tmp_path / "repository"
    if how == "repository":
        storage = icechunk.local_filesystem_storage(str(path))
        given = icechunk.Repository.open(storage, authorize_virtual_chunk_access={prefix: access})
        view = l2view.open(given)
    else:
        said = {"list": [prefix], "text": prefix, "all": True, "mapping": {prefix: access}}[how]
        view = l2view.open(path, authorize=said)
    expected = np.arange(12, dtype="f4")
    np.testing.assert_array_equal(view["a/x"][:], expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(view))["a/x"][:], expected)


def test_unauthorised_chunks_are_never_fill_values(tmp_path: Path) -> None:
    repository, prefix = virtual_repository(tmp_path)
    storage = icechunk.local_filesystem_storage(str(tmp_path / "repository"))
    session = icechunk.Repository.open(storage).readonly_session("main")
    for view in (l2view.open(repository, authorize=False), l2view.open(session)):
        with pytest.raises(AuthorizationError, match="the chunk a/x/c/0 lies in") as raised:
            view["a/x"][:]
        assert prefix in str(raised.value)
        assert "authorize=" in str(raised.value)


def test_authorising_what_is_no_container(tmp_path: Path) -> None:
    _, prefix = virtual_repository(tmp_path)
    with pytest.raises(AuthorizationError) as raised:
        l2view.open(tmp_path / "repository", authorize=["s3://other/"])
    assert "authorize= names s3://other/" in str(raised.value)
    assert prefix in str(raised.value)


@pytest.mark.parametrize("value", [3, [3], {3: "env"}])
def test_authorising_what_is_no_prefix(tmp_path: Path, value: Any) -> None:
    _, prefix = virtual_repository(tmp_path)
    with pytest.raises(AuthorizationError, match="authorize= takes URL prefixes") as raised:
        l2view.open(tmp_path / "repository", authorize=value)
    assert prefix in str(raised.value)


def test_a_file_that_is_gone_is_an_error(tmp_path: Path) -> None:
    virtual_repository(tmp_path)
    view = l2view.open(tmp_path / "repository", authorize=True)
    (tmp_path / "files" / "a.bin").unlink()
    with pytest.raises(ChunkError, match=r"the chunk a/x/c/0 can't be read: .*a\.bin"):
        view["a/x"][:]


def test_damaged_repository_is_an_error_not_fill_values(repository: icechunk.Repository) -> None:
    view = l2view.open(repository, WHERE)
    folder = Path(str(repository.storage).split("path:")[1].strip())
    view["S2A_001"]
    for name in ("chunks", "manifests"):
        shutil.rmtree(folder / name, ignore_errors=True)
    storage = icechunk.local_filesystem_storage(str(folder))
    damaged = icechunk.Repository.open(storage).readonly_session("main")
    CACHE.clear()
    # Chunks small enough lie in the manifests, which are gone as well.
    with pytest.raises(l2view.StoreError, match=r"meta, 20 rows can't be read: "):
        l2view.open(damaged, WHERE)


def test_s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="bucket")
    plain = obstore.store.from_url("s3://bucket/plain")
    write_collection(ObjectStore(plain), 4)
    storage = icechunk.s3_storage(
        bucket="bucket",
        prefix="repository",
        region="us-east-1",
        endpoint_url=s3_server,
        allow_http=True,
        force_path_style=True,
        from_env=True,
    )
    repository = icechunk.Repository.create(storage)
    session = repository.writable_session("main")
    write_collection(session.store, 4)
    session.commit("four granules")
    for given in ("s3://bucket/plain", "s3://bucket/repository", repository, plain):
        view = l2view.open(given, WHERE)
        assert view["S2A_001/red"][0, 0] == 1
        assert "s3cret" not in repr(view) + str(view.attrs.asdict())
    with pytest.raises(StoreError, match="is not a collection"):
        l2view.Collection("s3://bucket/nothing")


def test_credentials_are_not_shown() -> None:
    shown = strip_credentials("https://me:s3cret@host:80/a/b?sig=s3cret#s3cret")
    assert shown == "https://host:80/a/b"
    assert strip_credentials("no https://me:s3cret@[host/a") == "no https://…"
    assert strip_credentials("a/path?with#odd@names") == "a/path?with#odd@names"
    assert "home" not in strip_credentials(os.fspath(Path("x")))
    store = obstore.store.HTTPStore.from_url("http://me:s3cret@127.0.0.1:9/?sig=s3cret")
    with pytest.raises(StoreError, match="can't be read") as error:
        l2view.Collection(store)
    assert "s3cret" not in str(error.value)
    for odd in (ObjectStore(store), "az://me:s3cret@c/p?sig=s3cret", "s3:/AKIA:s3cret@bucket"):
        with pytest.raises(StoreError) as error:
            l2view.Collection(odd)
        assert "s3cret" not in str(error.value)


def test_a_chunk_that_the_server_refuses(tmp_path: Path) -> None:
    write_collection(LocalStore(tmp_path), 2)
    view = l2view.open(obstore.store.LocalStore(tmp_path))
    chunk = tmp_path / "granules/g001/red/c/0/0"
    chunk.unlink()
    chunk.symlink_to(chunk)  # an error that is not "not found"
    with pytest.raises(ChunkError, match="the chunk S2A_001/red/c/0/0 can't be read: "):
        view["S2A_001/red"][:]


@pytest.fixture
def http_folder(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the URL under which it is served on the loopback interface."""
    handler = functools.partial(RangeHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield tmp_path, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class RangeHandler(SimpleHTTPRequestHandler):
    """Serves byte ranges, as servers of files do."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if wanted is None or not path.is_file():
            return super().do_GET()
        data = path.read_bytes()
        first, last = wanted.groups()
        start = int(first) if first else len(data) - int(last)
        stop = min(int(last) + 1 if first and last else len(data), len(data))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        self.wfile.write(data[start:stop])
        return None


def test_http(http_folder: tuple[Path, str]) -> None:
    folder, url = http_folder
    for zarr_format in (2, 3):
        path = folder / f"v{zarr_format}"
        root = write_collection(LocalStore(path), 4, zarr_format=zarr_format)
        with pytest.raises(StoreError, match="over HTTP, a Zarr store needs consolidated"):
            l2view.Collection(f"{url}/v{zarr_format}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Zarr v3 has not specified it yet
            zarr.consolidate_metadata(root.store)
        view = l2view.open(f"{url}/v{zarr_format}", WHERE)
        assert view["S2A_001/red"][0, 0] == 1
    storage = icechunk.local_filesystem_storage(str(folder / "repository"))
    session = icechunk.Repository.create(storage).writable_session("main")
    write_collection(session.store, 4)
    session.commit("four granules")
    assert l2view.open(f"{url}/repository", WHERE)["S2A_001/red"][0, 0] == 1
    with pytest.raises(StoreError, match=r"nothing can't be read|is not a collection"):
        l2view.Collection(f"{url}/nothing")
    with pytest.raises(StoreError, match="can't be read"):
        l2view.Collection("http://127.0.0.1:9/nothing")


def test_storage_of_icechunk(repository: icechunk.Repository) -> None:
    assert found(repository.storage) == [1]
    folder = str(repository.storage).split("path:")[1].strip()
    with pytest.raises(StoreError, match="it looks like an Icechunk repository: pass its path"):
        l2view.Collection(obstore.store.LocalStore(folder))


def test_a_container_without_its_slash(tmp_path: Path) -> None:
    _, prefix = virtual_repository(tmp_path)
    view = l2view.open(tmp_path / "repository", authorize=[prefix.rstrip("/")])
    assert view["a/x"][1] == 1


def test_a_plain_folder_is_no_matter_for_icechunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> None:
        raise AssertionError

    write_collection(LocalStore(tmp_path / "c"), 2)
    monkeypatch.setattr(icechunk, "local_filesystem_storage", refuse)
    assert found(tmp_path / "c") == [1]
    with pytest.raises(StoreError, match="the path of the store is empty"):
        l2view.Collection("")


def test_paths_with_spaces_and_signs(tmp_path: Path) -> None:
    path = tmp_path / "a b#c%d"
    write_collection(LocalStore(path), 2)
    assert found(path) == found(path.as_uri()) == [1]
