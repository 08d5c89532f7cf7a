"""What a caller chooses for an ingest: defaults, fields that are required, a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import shapely
from builders import write_swath
from command_line import run

import l2view
from l2view.errors import (
    IngestError,
)


def test_what_says_neither_time_nor_place_comes_in(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "timeless.h5", "w") as file:
        file["x"] = np.arange(3)
    with h5py.File(tmp_path / "placeless.h5", "w") as file:
        file["x"] = np.arange(3)
        file.attrs["time_coverage_start"] = "2025-06-01T00:00:00Z"
    with h5py.File(tmp_path / "named_20250601.h5", "w") as file:
        file["x"] = np.arange(3)
    write_swath(tmp_path / "good.h5", 1)
    # The first commit has no granule with a time or a place, and is searched as others are.
    first = l2view.ingest(tmp_path / "timeless.h5", tmp_path / "c")
    assert first.added.ids == ["timeless"]
    for condition in ({"bbox": (-180, -90, 180, 90)}, {"datetime": "2000/.."}):
        assert l2view.search(tmp_path / "c", **condition).num_rows == 0
    report = l2view.ingest(tmp_path / "*.h5", tmp_path / "c")
    assert report.failed == []
    notes = {note.split(":")[0]: count.ids for note, count in report.notes.items()}
    assert notes == {
        "without a place": ["named_20250601", "placeless"],
        "its time is that in its file's name": ["named_20250601"],
    }
    assert "2 granules, named_20250601 the first: without a place" in str(report)
    rows = l2view.search(tmp_path / "c", order_by="id").to_pylist()
    assert [row["id"] for row in rows] == ["good", "named_20250601", "placeless", "timeless"]
    assert [row["datetime"] is None for row in rows] == [False, False, False, True]
    assert [row["bbox"] is None for row in rows] == [False, True, True, True]
    found = l2view.search(tmp_path / "c", bbox=(-180, -90, 180, 90))
    assert found["id"].to_pylist() == ["good"]
    found = l2view.search(tmp_path / "c", datetime="2025-06-01")
    assert set(found["id"].to_pylist()) >= {"named_20250601", "placeless"}
    assert "timeless" not in found["id"].to_pylist()
    view = l2view.open(tmp_path / "c")
    assert view["timeless/x"][:].tolist() == [0, 1, 2]
    assert len(view.to_datatree().children) == 4
    assert "4 granules" in repr(view)


def test_fields_that_are_required(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "placeless.h5", "w") as file:
        file["x"] = np.arange(3)
        file.attrs["time_coverage_start"] = "2025-06-01T00:00:00Z"
    write_swath(tmp_path / "good.h5", 1)
    report = l2view.ingest(tmp_path / "*.h5", tmp_path / "c", require=["datetime", "bbox"])
    assert report.added.ids == ["good"]
    assert report.failed[0].reason.startswith("it lacks what require= names, bbox")


@pytest.mark.parametrize(
    "text",
    [
        "170,-10,190,20",
        "170 -10 -170 20",
        "[170, -10, 0, -170, 20, 100]",
        shapely.box(170, -10, 190, 20).wkt,
        shapely.to_geojson(shapely.box(170, -10, 190, 20)),
    ],
)
def test_a_default_place(tmp_path: Path, text: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = [1]
    arguments = ["ingest", str(tmp_path / "a.h5"), "--store", str(tmp_path / "c")]
    run(*arguments, "--default", f"bbox={text}")
    (row,) = l2view.search(tmp_path / "c").to_pylist()
    expected = shapely.union(shapely.box(170, -10, 180, 20), shapely.box(-180, -10, -170, 20))
    assert shapely.equals(shapely.from_wkb(row["bbox"]), expected)
    wrong = run(*arguments, "--default", "bbox=1,2,3", code=1)
    assert '"bbox" is no geometry' in wrong.stderr
    assert "3 numbers are not west, south, east and north" in wrong.stderr


def test_what_is_wrong_on_the_command_line_names_the_way_out(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = [1]
    (tmp_path / "harvesters.py").write_text(
        "def fails(group, url):\n    raise RuntimeError('boom')\n\n\n"
        "def nothing(group, url):\n    pass\n"
    )
    arguments = ["ingest", str(tmp_path / "a.h5"), "--store", str(tmp_path / "c")]
    for options, message in {
        (): "name the field bbox in harvest= or defaults= (--harvest, --default)",
        ("--require", "bbox"): "require= names, bbox; name it in harvest= or defaults= (--harvest",
        (
            "--harvest",
            "harvesters:fails",
        ): f"harvest= (--harvest) fails in line 2 of {tmp_path}/harvesters.py: RuntimeError: boom",
        (
            "--harvest",
            "harvesters:nothing",
        ): "harvest= (--harvest) returns NoneType, and not a dict",
        ("--require", "datetme"): 'no field "datetme"; did you mean "datetime"? fields: bbox, date',
        ("--require", "geometry"): "require another of its fields, href, id",
        ("--default", "bbox=POLYGON((0 0"): "shapely's: Expected word but encountered end of",
        ("--default", 'bbox={"type":"Point"}'): "shapely's: it lacks 'coordinates'",
        ("--report", str(tmp_path)): "report= (--report) can't be written",
    }.items():
        code = 1 if options else 0
        done = run(*arguments, "--dry-run", *options, code=code, cwd=tmp_path)
        text = " ".join((done.stdout + done.stderr).split())
        assert message in text


def test_a_report_and_the_store_among_the_files_are_no_granules(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = [1]
    command = ["ingest", str(tmp_path), "--store", str(tmp_path / "c"), "--report"]
    for name in ("one.json", "two.json"):
        run(*command, str(tmp_path / name))
    assert json.loads((tmp_path / "two.json").read_text())["skipped"] == 1


def test_a_report_has_every_granule(swaths: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.h5").write_text("<html>")
    with h5py.File(tmp_path / "bare.h5", "w") as file:
        file["x"] = [1]
    files = [*map(str, sorted(swaths.iterdir())), str(tmp_path / "b*.h5")]
    store, path = str(tmp_path / "c"), tmp_path / "report.json"
    seen: list[int] = []

    def look(report: l2view.IngestReport) -> None:
        seen.append(len(path.read_text().splitlines()) - 1)

    l2view.ingest(files, store, batch=2, progress=look, report=path)
    assert sorted(set(seen))[1] < seen[-1]  # it is written as granules come in
    entries = {entry["id"]: entry for entry in json.loads(path.read_text())["granules"]}
    assert len(entries) == len(list(swaths.iterdir())) + 2
    assert entries["bad"]["reason"].startswith("its format isn't known: it is a page of HTML")
    assert entries["bare"]["notes"][0].startswith("without a time")
    assert entries["s00"] == {"id": "s00", "status": "added", "href": (swaths / "s00.h5").as_uri()}
    run("ingest", *files, "--store", store, "--report", str(path), code=1)
    report = json.loads(path.read_text())
    assert {entry["status"] for entry in report["granules"]} == {"skipped", "failed"}
    assert (report["skipped"], report["failed"]) == (len(entries) - 1, 1)


@pytest.mark.parametrize(
    ("defaults", "reason"),
    [
        ({"datetime": "someday"}, "is 'someday', which is no time"),
        ({"start_datetime": 20250601}, "is 20250601, which is no time"),
        ({"bbox": (0, 0, 1)}, "bbox"),
        ({1: "a"}, "no granule can have a field 1 of its own"),
        ({"slot": 3}, "no granule can have a field 'slot' of its own"),
        ({"__row__": 3}, "__row__"),
    ],
)
def test_defaults_are_checked_before(tmp_path: Path, defaults: Any, reason: str) -> None:
    """They are one error, and not one for each granule; nothing is read for it."""
    with pytest.raises(IngestError, match=r"defaults= \(--default\) can't be used") as error:
        l2view.ingest(tmp_path / "none.nc", tmp_path / "c", defaults=defaults)
    assert reason in str(error.value)
    assert not (tmp_path / "c").exists()
