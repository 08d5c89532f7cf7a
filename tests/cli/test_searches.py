"""Commands about granules take a search, and a state of the repository."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import icechunk
import pytest
import zarr
from builders import write_collection
from typer.testing import CliRunner, Result

import l2view
from l2view.cli import app


@pytest.fixture
def repository(tmp_path: Path) -> str:
    """Twenty granules at a tag, of which five were deleted after it."""
    path = str(tmp_path / "c")
    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(path))
    session = repository.writable_session("main")
    write_collection(session.store)
    repository.create_tag("all", snapshot_id=session.commit("all"))
    assert l2view.Collection(path).delete("idx >= 15") == 5
    return path


def run(*arguments: str, code: int = 0) -> Result:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    return result


def granules(*arguments: str) -> int:
    return int(json.loads(run("info", *arguments, "--json").stdout)["granules"])


def test_info(repository: str) -> None:
    assert granules(repository) == 15
    assert granules(repository, "--tag", "all") == 20
    snapshot = l2view.Collection(repository, tag="all").snapshot
    assert granules(repository, "--snapshot", str(snapshot)) == 20
    assert granules(repository, "--where", "idx < 3") == 3
    assert granules(repository, "--id", "S2A/000", "--id", "S2A/001") == 2
    assert granules(repository, "--datetime", "2025-06-01/2025-06-02") == 2
    box = (-150.0, -90.0, -130.0, 90.0)
    some = len(l2view.search(repository, bbox=box))
    assert 0 < some < 15
    assert granules(repository, "--bbox=-150,-90,-130,90") == some
    shown = run("info", repository, "--limit", "2").stdout
    assert "2 of 15 granules" in shown
    assert "2025-06-01T10:00:00Z to 2025-06-02T10:00:00Z" in shown


def test_delete(repository: str) -> None:
    result = run("delete", repository, "--yes", code=2)
    assert "name the granules to delete" in " ".join(result.output.split())
    run("delete", repository, "--limit", "3", "--yes", code=2)
    result = CliRunner().invoke(
        app, ["delete", repository, "--tag", "all", "--where", "true", "-y"]
    )
    assert isinstance(result.exception, l2view.IngestError)
    assert "open the collection without tag=" in str(result.exception)
    run("delete", repository, "--datetime", "2025-06-01/2025-06-02", "--yes")
    run("delete", repository, "--id", "S2A/004", "--yes")
    box = (-150.0, -90.0, -130.0, 90.0)
    some = len(l2view.search(repository, bbox=box))
    run("delete", repository, "--bbox=-150,-90,-130,90", "--yes")
    ids = l2view.search(repository, fields=["id"])["id"].to_pylist()
    assert len(ids) == 12 - some
    assert "S2A/004" not in ids
    assert granules(repository, "--tag", "all") == 20


def test_verify_of_a_state(repository: str) -> None:
    assert "0 of 20 granules" in run("verify", repository, "--tag", "all").stdout
    assert "0 of 2 granules" in run("verify", repository, "--where", "idx < 2").stdout


def test_another_group(tmp_path: Path) -> None:
    store = zarr.storage.LocalStore(tmp_path / "c")
    write_collection(store)
    root = zarr.open_group(store)
    fields = root.create_group("other")
    fields["id"] = root["meta/id"][:3]
    assert granules(str(tmp_path / "c"), "--group", "other") == 3
