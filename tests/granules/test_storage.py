"""Where granules go: packed by product version, or a group for each; and what a dry run says."""

from __future__ import annotations

import io
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import h5py
import icechunk
import jsonschema
import numpy as np
import pytest
import shapely
import xarray as xr
import zarr
from builders import write_swath
from command_line import run
from rich.console import Console

import l2view
from l2view.errors import IngestError, StoreError
from l2view.granules.groups_writer import granule_path
from l2view.granules.layouts import CONVENTION
from l2view.granules.references import ArrayReferences, GranuleReferences
from l2view.ingest import progress
from l2view.ingest.granule import Granule
from l2view.ingest.writer import write_batch
from l2view.stores.repository import open_repository

SCHEMAS = Path(__file__).parents[2] / "docs" / "store-format" / "v1"


@pytest.fixture
def swaths(tmp_path: Path) -> Path:
    folder = tmp_path / "swaths"
    folder.mkdir()
    for number in range(6):
        write_swath(folder / f"s{number}.h5", number, 10 + number, chunk=5)
    return folder


def repository(path: Path) -> icechunk.Repository:
    return icechunk.Repository.open(icechunk.local_filesystem_storage(str(path)))


def assert_as_in_files(view: l2view.View, folder: Path) -> None:
    assert len(view.names)
    for name in view.names:
        with h5py.File(folder / f"{name}.h5") as file:
            for array in ("sst", "lat", "lon"):
                np.testing.assert_array_equal(view[f"{name}/{array}"][...], file[array][...])
            assert view[name].attrs["time_coverage_end"] == file.attrs["time_coverage_end"]


def test_granules_as_groups(swaths: Path, tmp_path: Path) -> None:
    store = tmp_path / "c"
    report = l2view.ingest(swaths, store, storage="groups", batch=4)
    assert (report.added.count, report.failures) == (6, 0)
    assert_as_in_files(l2view.open(store), swaths)
    row = l2view.search(store, "id = 's3'").to_pylist()[0]
    assert row["group_path"] == "granules/s3"
    assert "slot" not in row
    # Anyone reads them, without l2view.
    access = {f"{swaths.as_uri()}/": icechunk.credentials.LocalFileSystemAccess}
    opened = icechunk.Repository.open(
        icechunk.local_filesystem_storage(str(store)), authorize_virtual_chunk_access=access
    )
    tree = xr.open_zarr(
        opened.readonly_session("main").store, group="granules/s3", consolidated=False
    )
    xr.testing.assert_allclose(
        tree.load(), xr.open_dataset(swaths / "s3.h5", engine="h5netcdf").load()
    )
    # The storage is the collection's from then on.
    assert l2view.ingest(swaths, store).skipped.count == 6
    with pytest.raises(IngestError, match="has storage='groups', not 'packed'"):
        l2view.ingest(swaths, store, storage="packed")
    with pytest.raises(IngestError, match="storage='other' is not packed or groups"):
        l2view.ingest(swaths, tmp_path / "d", storage="other")  # type: ignore[arg-type]
    write_swath(swaths / "s3.h5", 3, 40)
    assert l2view.open(store).verify().keys() == {"s3"}
    assert l2view.ingest(swaths / "s3.h5", store, on_conflict="replace").replaced.ids == ["s3"]
    assert_as_in_files(l2view.open(store), swaths)
    assert l2view.Collection(store).delete("id = 's3'") == 1
    assert list(l2view.open(store).names) == ["s0", "s1", "s2", "s4", "s5"]


@pytest.mark.parametrize("name", ["a/b", "..", ".", "__x", "a%2Fb", "ü b", "c/../../meta"])
def test_ids_of_any_kind_stay_in_their_group(tmp_path: Path, name: str) -> None:
    path = granule_path(name)
    assert path.count("/") == 1
    write_swath(tmp_path / "s.h5", 1)
    report = l2view.ingest(
        tmp_path / "s.h5", tmp_path / "c", storage="groups", harvest=lambda *_: {"id": name}
    )
    assert report.added.ids == [name]
    view = l2view.open(tmp_path / "c")
    assert view[f"{view.names[0]}/sst"].shape == (12, 8)
    assert view[view.names[0]].attrs["id"] == name


def test_paths_of_ids_are_never_the_same() -> None:
    names = ["a/b", "a%2Fb", "a%252Fb", "..", "%2E.", ".", "__", "%5F_"]
    assert len({granule_path(name) for name in names}) == len(names)


def test_a_dry_run_writes_nothing(swaths: Path, tmp_path: Path) -> None:
    (swaths / "bad.h5").write_bytes(b"")
    shown = run("ingest", str(swaths), "--store", str(tmp_path / "c"), "--dry-run", code=1).stdout
    assert not (tmp_path / "c").exists()
    assert shown.startswith("would add          6\n")
    assert f"may be read: {swaths.as_uri()}/" in shown
    assert ": 6 granules\n" in shown
    assert "datetime (time), end_datetime (time)" in shown
    assert "left out: bad" in shown
    l2view.ingest(swaths / "s1.h5", tmp_path / "c")
    before = l2view.Collection(tmp_path / "c").snapshot

    def harvest(group: zarr.Group, url: str) -> dict[str, Any]:
        return {"orbit": "seven"} if "s4" in url else {"grade": 1.5}

    report = l2view.ingest(swaths, tmp_path / "c", dry_run=True, harvest=harvest)
    assert report.dry_run
    assert (report.added.count, report.skipped.count, report.failures) == (4, 1, 2)
    assert {one.id: one.reason for one in report.failed}["s4"] == (
        'the field "orbit" is string, and int so far'
    )
    assert report.fields["grade"] == "float"
    assert report.references > 0
    assert list(report.profiles.values()) == [4]
    assert l2view.Collection(tmp_path / "c").snapshot == before


def synthetic(number: int) -> Granule:
    """A granule of a length of its own, whose references were made and not parsed."""
    rows = 100 + number
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [rows, 7],
        "data_type": "int16",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [rows, 7]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "attributes": {},
    }
    one = np.array([14 * rows], dtype=np.uint64)
    url = f"file:///archive/{number}.nc"
    array = ArrayReferences("x", document, [url], one * 0, one)
    row = {"id": str(number), "datetime": datetime(2025, 6, 1), "bbox": shapely.Point(0, 0).wkb}
    return Granule(row, GranuleReferences((array,)))


def test_ten_thousand_lengths_make_as_many_nodes_as_one(tmp_path: Path) -> None:
    made = open_repository(tmp_path / "c")

    def nodes() -> int:
        root = zarr.open_group(made.readonly_session("main").store, mode="r")
        return len(list(root.members(max_depth=None)))

    counts = []
    for start in (0, 1, *range(1_000, 10_000, 3_000)):
        stop = {0: 1, 1: 1_000}.get(start, start + 3_000)
        assert len(write_batch(made, [synthetic(n) for n in range(start, stop)]).added) == (
            stop - start
        )
        counts.append(nodes())
    assert len(set(counts)) == 1
    assert len(l2view.Collection(made)) == 10_000
    view = l2view.open(made, ids=["0", "9999"], authorize=False)
    assert [view[f"{name}/x"].shape for name in view.names] == [(100, 7), (10_099, 7)]


def test_the_root_names_its_convention(swaths: Path, tmp_path: Path) -> None:
    l2view.ingest(swaths, tmp_path / "c")
    session = repository(tmp_path / "c").writable_session("main")
    root = zarr.open_group(session.store)
    assert root.attrs["zarr_conventions"] == [CONVENTION]
    schema = json.loads((SCHEMAS / "schema.json").read_text())
    assert schema["$id"] == CONVENTION["schema_url"]
    jsonschema.validate(root.attrs.asdict(), schema)
    (profile,) = (group for name, group in root["l2view"].groups() if name != "zones")
    jsonschema.validate(
        profile.attrs.asdict(), {"$defs": schema["$defs"], "$ref": "#/$defs/profile"}
    )
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"l2view": {"version": 1}, "zarr_conventions": []}, schema)
    root.attrs["l2view"] = {"version": 2}
    session.commit("by a later l2view")
    with pytest.raises(StoreError, match="version 2 of the format, and this l2view reads 1"):
        l2view.open(tmp_path / "c")
    with pytest.raises(StoreError, match="version 2 of the format"):
        l2view.ingest(swaths, tmp_path / "c")


def test_progress_is_drawn_on_a_terminal(
    swaths: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (swaths / "bad.h5").write_bytes(b"")
    drawn = io.StringIO()
    terminal = Console(file=drawn, force_terminal=True, width=160)
    monkeypatch.setattr(progress, "Console", lambda **_: terminal)
    l2view.ingest(swaths, tmp_path / "c", progress=True, batch=2)
    shown = drawn.getvalue()
    assert "6 written" in shown
    assert "7/7" in shown
    assert "1 failed" in shown
    assert "left" in shown
    quiet = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda **_: Console(file=quiet))
    report = l2view.ingest(swaths, tmp_path / "d", progress=True)
    assert quiet.getvalue() == ""
    assert repr(report) == str(report)
    seen: list[int] = []
    l2view.ingest(swaths, tmp_path / "e", progress=lambda said: seen.append(said.parsed))
    assert max(seen) == 6
    monkeypatch.setitem(sys.modules, "lithops", None)
    with pytest.raises(IngestError, match="'lithops' needs lithops"):
        l2view.ingest(swaths, tmp_path / "e", parallel="lithops")
