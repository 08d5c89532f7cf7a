"""What tests share: small collections, real data, servers."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import icechunk
import pytest
import zarr
from builders import write_collection
from command_line import run_process
from hypothesis import HealthCheck, settings
from rows import CHUNK

from l2view.cache import CACHE
from l2view.limits import override_limits

icechunk.set_logs_filter("error")

settings.register_profile(
    "default",
    deadline=None,
    max_examples=int(os.environ.get("L2VIEW_EXAMPLES", "40")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("default")


MARKERS_OF_FIXTURES = {"shared_data": "real", "s3_server": "s3"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the fixtures that they need, directly or through others."""
    for item in items:
        for fixture, marker in MARKERS_OF_FIXTURES.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(marker)


@pytest.fixture(scope="session", autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What l2view remembers of this user goes where no user looks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real granules, STAC and CMR records."""
    root = Path(__file__).parent.parent
    folder = Path(os.environ.get("L2VIEW_DATA", root.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the real granules, which are not at {folder} (set L2VIEW_DATA)")
    return folder


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which ``l2view demo`` ran, where it had run before, and what it printed."""
    from l2view.cli.demo import MARK

    folder = tmp_path_factory.mktemp("demo")
    for name in ("granules", "collection"):
        (folder / "l2view-demo" / name / "stale").mkdir(parents=True)
    (folder / "l2view-demo" / MARK).touch()
    done = run_process("demo", cwd=folder)
    assert done.stderr == ""
    return folder, done.stdout


@pytest.fixture(params=[3, 2], ids=["v3", "v2"])
def store(request: pytest.FixtureRequest) -> zarr.storage.MemoryStore:
    """A plain Zarr store with twenty granules, in both formats."""
    store = zarr.storage.MemoryStore()
    write_collection(store, zarr_format=request.param)
    return store


@pytest.fixture
def v3_store() -> zarr.storage.MemoryStore:
    store = zarr.storage.MemoryStore()
    write_collection(store)
    return store


@pytest.fixture
def repository(tmp_path: Path) -> icechunk.Repository:
    """An Icechunk repository with the same granules, in native chunks."""
    storage = icechunk.local_filesystem_storage(str(tmp_path / "repository"))
    repository = icechunk.Repository.create(storage)
    session = repository.writable_session("main")
    write_collection(session.store)
    session.commit("twenty granules")
    return repository


@pytest.fixture
def small() -> Iterator[None]:
    """Everything in small pieces, so that few rows have many of them."""
    CACHE.clear()
    with override_limits(
        run_rows=CHUNK,
        chunks_at_once=3,
        field_chunk_rows=8,
        index_chunk_bytes=96,
        copy_chunk_rows=5,
        copy_bytes=200,
        sorted_chunk_rows=6,
        tree_node_boxes=4,
        scan_fraction=1,
    ):
        yield
    CACHE.clear()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The URL of an S3-compatible server on the loopback interface."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a new bucket, for which the environment has credentials."""
    import boto3

    for name, value in {
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{random.randrange(10**9)}"
    boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket=name)
    return f"s3://{name}"
