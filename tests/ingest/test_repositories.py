"""Icechunk repositories as sources: what zarr reads of them, a view shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pytest
import shapely
import zarr
from builders import write_swath

import l2view
from l2view.ingest import files
from l2view.ingest.files import locate_repository

DEFAULTS = {"datetime": "2025-06-01", "bbox": shapely.box(0, 0, 1, 1)}


def create(path: Path, spec_version: int, data: Path) -> icechunk.Session:
    config = icechunk.RepositoryConfig.default()
    store = icechunk.local_filesystem_store(str(data))
    config.set_virtual_chunk_container(
        icechunk.VirtualChunkContainer(f"{data.as_uri()}/", store, name="data")
    )
    repository = icechunk.Repository.create(
        icechunk.local_filesystem_storage(str(path)), config, spec_version=spec_version
    )
    repository.save_config()
    return repository.writable_session("main")


@pytest.fixture(params=[1, 2])
def session(tmp_path: Path, request: pytest.FixtureRequest) -> icechunk.Session:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "raw").write_bytes(np.arange(6, dtype="<f8").tobytes())
    return create(tmp_path / "in" / "a repo.icechunk", request.param, tmp_path / "data")


def write_group(session: icechunk.Session, path: str, shift: float) -> None:
    """Write native chunks, one within a manifest, virtual ones, a scalar, and one that is missing.

    The virtual ones are of a group below.
    """
    group = zarr.open_group(session.store, mode="a").require_group(path)
    group.attrs["title"] = path
    lat = group.create_array("lat", shape=(400, 50), chunks=(100, 50), dtype="f8", fill_value=-1)
    lat[:300] = np.linspace(30, 40, 300)[:, None] + np.random.default_rng(1).random(50) + shift
    group.create_array("few", data=np.arange(4.0))
    group.create_array("scalar", data=np.array(7))
    inner = group.create_group("inner")
    inner.create_array("virtual", shape=(3, 3), chunks=(2, 1), dtype="f8", compressors=None)
    for number, key in enumerate(("virtual/c/0/0", "virtual/c/0/2")):
        url = "vcc://data/raw"
        prefix = f"{path}/inner" if path else "inner"
        session.store.set_virtual_ref(f"{prefix}/{key}", url, offset=16 * number, length=16)


def assert_same(granule: Any, group: zarr.Group) -> None:
    virtual = [[0, 0, 2], [1, 0, 3], [0, 0, 0]]
    assert granule.attrs["title"] == group.attrs["title"]
    assert granule["inner/virtual"][...].tolist() == virtual
    for name in ("lat", "few", "scalar"):
        np.testing.assert_array_equal(granule[name][...], group[name][...])  # type: ignore[index]


@pytest.mark.parametrize("granules", ["in/a repo.icechunk", "in", "in/*.icechunk", "in/**/*"])
def test_a_granule_for_each_group(tmp_path: Path, session: icechunk.Session, granules: str) -> None:
    write_group(session, "one", 0)
    write_group(session, "two.nc", 1)
    session.commit("granules")
    write_swath(tmp_path / "in" / "s.h5", 1)
    source = zarr.open_group(session.store, mode="r")
    report = l2view.ingest(tmp_path / granules, tmp_path / "c", defaults=DEFAULTS)
    assert (report.failed, report.omitted) == ([], {})
    swath = {"s"} if granules in ("in", "in/**/*") else set()
    assert set(report.added.ids) == {"one", "two"} | swath
    view = l2view.open(tmp_path / "c", fields=[])
    assert_same(view["one"], source["one"])  # type: ignore[arg-type]
    assert_same(view["two"], source["two.nc"])  # type: ignore[arg-type]
    assert view.to_datatree()["two/few"].values.tolist() == [0, 1, 2, 3]


def test_a_group_by_its_path(tmp_path: Path, session: icechunk.Session) -> None:
    write_group(session, "2025/06/one", 0)
    session.commit("granules")
    repository = tmp_path / "in" / "a repo.icechunk"
    report = l2view.ingest(repository / "2025/06/one", tmp_path / "c", defaults=DEFAULTS)
    assert (report.failed, report.added.ids) == ([], ["one"])
    assert_same(
        l2view.open(tmp_path / "c", fields=[])["one"],
        zarr.open_group(session.store, path="2025/06/one", mode="r"),
    )
    report = l2view.ingest(repository / "2025/07", tmp_path / "d", defaults=DEFAULTS)
    assert "no group of its Icechunk repository" in report.failed[0].reason


def test_arrays_at_the_root(tmp_path: Path, session: icechunk.Session) -> None:
    write_group(session, "", 0)
    session.commit("granules")
    report = l2view.ingest(tmp_path / "in" / "a repo.icechunk", tmp_path / "c", defaults=DEFAULTS)
    assert (report.failed, report.added.ids) == ([], ["a repo.icechunk"])
    granule = l2view.open(tmp_path / "c", fields=[])["a repo.icechunk"]
    assert_same(granule, zarr.open_group(session.store, mode="r"))


def test_a_collection_is_no_granule(tmp_path: Path) -> None:
    l2view.ingest(write_swath(tmp_path / "s.h5", 1), tmp_path / "c")
    with pytest.raises(l2view.IngestError, match="is a collection of l2view"):
        l2view.ingest(tmp_path / "c", tmp_path / "d")


def test_sources_without_arrays_are_named(tmp_path: Path) -> None:
    session = create(tmp_path / "empty.icechunk", 2, tmp_path)
    zarr.open_group(session.store, mode="a")
    session.commit("nothing")
    (tmp_path / "refs.json").write_text(json.dumps({"refs": {".zgroup": '{"zarr_format":2}'}}))
    for granules in (tmp_path, [tmp_path / "empty.icechunk", tmp_path / "refs.json"]):
        report = l2view.ingest(granules, tmp_path / "c")
        reasons = " ".join(failure.reason for failure in report.failed)
        assert "no group" in reasons or "without groups" in reasons
        assert "no array of it can be taken in; it has none" in reasons
        assert (report.failures, (tmp_path / "c").exists()) == (2, False)


@pytest.mark.parametrize(
    ("url", "count"), [("s3://b/a/b/c/d/e/f/x.nc", 0), ("s3://b/a/b/c/d/e/f/x", 10)]
)
def test_a_missing_file_asks_a_server_little(
    monkeypatch: pytest.MonkeyPatch, url: str, count: int
) -> None:
    requests: list[str] = []
    monkeypatch.setattr(files, "file_info", requests.append)
    assert locate_repository(url) is None
    assert len(requests) == count
