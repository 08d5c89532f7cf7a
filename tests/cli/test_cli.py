"""The command ``l2view``, as a person and as a pipe use it."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
from pathlib import Path

import duckdb
import h5py
import icechunk
import pyarrow.parquet as pq
import pytest
import shapely
import zarr
from builders import put, texts, virtual_repository, write_collection, write_swath
from command_line import PROGRAM, run, run_process
from zarr.storage import LocalStore

import l2view


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("cli") / "collection.zarr"
    write_collection(LocalStore(path))
    return str(path)


def test_help() -> None:
    shown = run("--help").stdout
    for command in ("info", "search", "sql", "tree", "demo"):
        assert command in shown
        assert "Usage: l2view" in run(command, "--help").stdout
    assert run("--version").stdout.count(".") == 2
    assert "Usage" in run(code=2).stdout


def test_exit_codes_of_processes(store: str) -> None:
    assert "20 granules" in run_process("info", store).stdout
    assert run_process("info", "nowhere", code=1).stderr.startswith("error: there is nothing at")
    assert "Missing argument 'store'" in run_process("search", code=2).stderr


def test_info(store: str) -> None:
    shown = run("info", store).stdout
    assert "20 granules" in shown
    assert "2025-06-01T10:00:00Z to 2025-06-20T10:00:00Z" in shown
    assert "eo:cloud_cover" in shown
    said = json.loads(run("info", store, "--json").stdout)
    assert said["granules"] == 20
    assert said["fields"]["datetime"] == "timestamp[us]"


def test_info_says_how_many_granules_no_search_by_time_or_place_finds(tmp_path: Path) -> None:
    for number in range(3):
        with h5py.File(tmp_path / f"s{number}.h5", "w") as file:
            file["x"] = [1]
    write_swath(tmp_path / "swath.h5", 1)
    l2view.ingest(tmp_path / "*.h5", tmp_path / "c")
    shown = run("info", str(tmp_path / "c")).stdout
    assert "3 without datetime, 3 without bbox" in shown
    shown = run("info", str(tmp_path / "c"), "--id", "s1").stdout
    assert "1 without datetime, 1 without bbox" in shown
    assert "without" not in run("info", str(tmp_path / "c"), "--id", "swath").stdout


def test_search_as_a_table(store: str) -> None:
    done = run("search", store, "--where", "cloud_cover < 20", "--fields", "id,cloud_cover,orbit")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["idx", "id", "cloud_cover", "orbit"]
    assert lines[1].split() == ["1", "S2A/001", "5.0", "1"]
    assert len(lines) == 4
    # A pipe gets every column whole.
    wide = run("search", store, "--limit", "1").stdout.splitlines()
    assert wide[1].split()[-1] == "A"
    assert "…" not in wide[1]
    assert "POLYGON" not in wide[1]  # too long for a table, unless it is asked for
    asked = run("search", store, "--limit", "1", "--fields", "id", "--fields", "bbox").stdout
    assert "S2A/000  POLYGON" in asked
    empty = run("search", store, "--where", "idx < 0", "--fields", "id").stdout
    assert empty == "idx  id\n"


def test_search_as_json(store: str) -> None:
    done = run("search", store, "--where", "idx IN (5, 7)", "--format", "json")
    rows = json.loads(done.stdout)
    assert [row["idx"] for row in rows] == [5, 7]
    assert rows[0]["orbit"] is None
    assert rows[1]["cloud_cover"] is None
    assert rows[0]["datetime"] == "2025-06-06T10:00:00Z"
    assert json.loads(run("search", store, "--where", "idx > 99", "-f", "json").stdout) == []


def test_search_as_csv(store: str) -> None:
    done = run("search", store, "--where", "idx IN (5, 7)", "-f", "csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["id"] for row in rows] == ["S2A/005", "S2A/007"]
    assert rows[0]["orbit"] == ""
    assert rows[0]["datetime"] == "2025-06-06T10:00:00Z"
    assert rows[0]["bbox"].startswith("POLYGON")
    assert rows[0]["cloud_cover"] == "25"


def test_search_as_geojson(store: str) -> None:
    done = run("search", store, "--bbox", "-150,-90,-130,90", "-f", "geojson")
    said = json.loads(done.stdout)
    assert said["type"] == "FeatureCollection"
    first = said["features"][0]
    assert first["type"] == "Feature"
    assert first["id"] == first["properties"]["id"] == "S2A/000"
    assert first["geometry"]["type"] == "Polygon"
    assert "bbox" not in first["properties"]
    done = run("search", store, "--fields", "id", "-f", "geojson")
    feature = json.loads(done.stdout)["features"][0]
    assert feature["geometry"]["type"] == "Polygon"
    assert feature["properties"] == {"idx": 0, "id": "S2A/000"}
    done = run("sql", store, "SELECT bbox FROM meta", "-f", "geojson")
    assert {len(f["properties"]) for f in json.loads(done.stdout)["features"]} == {0}
    done = run("search", store, "--explain", "--output", "rows.csv", code=2)
    assert "leave out --output" in done.stderr
    done = run("sql", store, "SELECT id FROM meta", "-f", "geojson", code=1)
    assert "error: GeoJSON needs footprints, and no field of the rows" in done.stderr
    assert "fields: id" in done.stderr


def test_search_as_parquet(store: str, tmp_path: Path) -> None:
    path = tmp_path / "found.parquet"
    run("search", store, "--where", "idx < 3", "-f", "parquet", "-o", str(path))
    table = pq.read_table(path)
    assert table["idx"].to_pylist() == [0, 1, 2]
    assert table.schema.field("bbox").metadata[b"ARROW:extension:name"] == b"geoarrow.wkb"
    geo = json.loads(table.schema.metadata[b"geo"])
    assert geo["primary_column"] == "bbox"
    assert geo["columns"]["bbox"]["encoding"] == "WKB"
    assert duckdb.sql(f"SELECT typeof(bbox) FROM '{path}' LIMIT 1").fetchall() != [("BLOB",)]
    command = [PROGRAM, "search", store, "-f", "parquet"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    assert pq.read_table(io.BytesIO(raw)).num_rows == 20


def test_a_store_with_wkt_as_parquet(tmp_path: Path) -> None:
    root = zarr.create_group(LocalStore(tmp_path / "c.zarr"))
    put(root.create_group("meta"), "bbox", texts(["POINT (1 2)", "", "POINT (3 4)"]))
    run("search", str(tmp_path / "c.zarr"), "-o", str(tmp_path / "c.parquet"))
    column = pq.read_table(tmp_path / "c.parquet")["bbox"].to_pylist()
    assert [None if raw is None else shapely.from_wkb(raw).wkt for raw in column] == [
        "POINT (1 2)",
        None,
        "POINT (3 4)",
    ]


def test_footprints_that_are_none_as_geojson(tmp_path: Path) -> None:
    root = zarr.create_group(LocalStore(tmp_path / "c.zarr"))
    put(root.create_group("meta"), "bbox", texts(["POINT (1 2)", "", "damaged"]))
    said = json.loads(run("search", str(tmp_path / "c.zarr"), "-f", "geojson").stdout)
    kinds = [feature["geometry"] and feature["geometry"]["type"] for feature in said["features"]]
    assert kinds == ["Point", None, None]


def test_text_that_looks_like_markup(tmp_path: Path) -> None:
    root = zarr.create_group(LocalStore(tmp_path / "c.zarr"))
    put(root.create_group("meta"), "[red]", texts(["[bold]x[/]", "[/]"]))
    path = str(tmp_path / "c.zarr")
    assert run("search", path).stdout.split() == ["idx", "[red]", "0", "[bold]x[/]", "1", "[/]"]
    assert "[red]" in run("info", path).stdout
    if shutil.which("script"):  # a terminal
        command = f"{PROGRAM} search {path}"
        shown = subprocess.run(
            ["script", "-qec", command, "/dev/null"], capture_output=True, text=True, check=True
        ).stdout
        assert "[bold]x[/]" in shown


def test_the_name_of_a_file_tells_its_format(store: str, tmp_path: Path) -> None:
    path = tmp_path / "found.geojson"
    run("search", store, "--where", "idx < 3", "-o", str(path))
    assert len(json.loads(path.read_text())["features"]) == 3
    run("sql", store, "SELECT 1 AS a", "-o", str(tmp_path / "found.csv"))
    assert (tmp_path / "found.csv").read_text() == '"a"\n1\n'


@pytest.mark.parametrize("form", ["table", "json", "csv", "geojson"])
def test_output_files(store: str, tmp_path: Path, form: str) -> None:
    path = tmp_path / "found"
    shown = run("search", store, "--where", "idx < 3", "-f", form).stdout
    done = run("search", store, "--where", "idx < 3", "-f", form, "-o", str(path))
    assert done.stdout == ""
    assert path.read_text() == shown


def test_every_option_of_search(store: str) -> None:
    options = ["--where", "platform = $p", "-p", "p=A", "--datetime", "2025-06-02/2025-06-09"]
    options += [
        "--bbox=-150,-90,0,90",
        "--intersects",
        "POLYGON((-180 -90,180 -90,180 90,-180 90,-180 -90))",
    ]
    options += ["--id", "S2A/002", "--id", "S2A/004", "--id", "S2A/006", "--order-by", "idx DESC"]
    done = run("search", store, *options, "--limit", "2", "-f", "json")
    assert [row["idx"] for row in json.loads(done.stdout)] == [6, 4]
    numbered = run("search", store, "--where", "idx = $n", "-p", "n=4", "-f", "json")
    assert len(json.loads(numbered.stdout)) == 1


def test_sql(store: str) -> None:
    query = "SELECT platform, count(*) AS n FROM meta GROUP BY platform ORDER BY platform"
    assert json.loads(run("sql", store, query, "-f", "json").stdout) == [
        {"platform": "A", "n": 10},
        {"platform": "B", "n": 10},
    ]
    assert run("sql", store, "SELECT $a AS a", "-p", "a=3", "-f", "csv").stdout == '"a"\n3\n'
    assert run("sql", store, query, "-f", "csv").stdout.startswith('"platform","n"\n')


def test_tree(store: str) -> None:
    shown = run("tree", store, "--where", "idx = 1", "--variables", "r*").stdout
    assert "S2A_001" in shown
    assert "red (11, 8) int16" in shown
    assert "nir" not in shown
    done = run("tree", store, "--limit", "2")
    assert "the first 2 granules" in done.stderr
    assert "the first" not in run("tree", store, "--limit", "20").stderr
    ordered = run("tree", store, "--order-by", "idx DESC", "--limit", "1").stdout
    assert "S2A_019" in ordered
    area = "POLYGON((-150 -90,-140 -90,-140 90,-150 90,-150 -90))"
    assert "S2A_000" in run("tree", store, "--intersects", area).stdout


def test_tree_needs_no_authorisation(tmp_path: Path) -> None:
    virtual_repository(tmp_path)
    assert "x (12,) float32" in run("tree", str(tmp_path / "repository")).stdout


def test_versions(tmp_path: Path) -> None:
    path = tmp_path / "repository"
    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(path)))
    session = repository.writable_session("main")
    write_collection(session.store, 2)
    repository.create_tag("v1", session.commit("two"))
    assert "2 granules" in run("info", str(path), "--tag", "v1").stdout
    assert "error: " in run("info", str(path), "--tag", "v2", code=1).stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["info", "nowhere"], 1, "error: there is nothing at nowhere"),
        (["search", "STORE", "--where", "cloudcover < 1"], 1, 'did you mean "cloud_cover"?'),
        (["search", "STORE", "--where", "1=1; DROP TABLE meta"], 1, "error: not valid SQL"),
        (["search", "STORE", "--bbox", "1,2,3"], 2, "is not (west, south, east, north)"),
        (["search", "STORE", "--bbox", "a,b,c,d"], 2, "bbox='a,b,c,d' is not"),
        (["search", "STORE", "-p", "novalue"], 2, "Invalid value for --param: novalue is not NAME"),
        (["sql", "STORE", "SELECT a.id, b.id FROM meta a JOIN meta b USING (idx)"], 1, "with AS"),
        (["search", "STORE", "--limit", "-1"], 2, "Invalid value for '--limit'"),
        (["search", "STORE", "--format", "xml"], 2, "Invalid value for '--format'"),
        (["search"], 2, "Missing argument 'store'"),
        (["sql", "STORE", "DROP TABLE meta"], 1, "error: only queries that read are allowed"),
        (["sql", "STORE", "SELECT 1/0"], 1, "error: "),
        (["search", "STORE", "-o", "no/such/folder.csv"], 1, "error: [Errno 2]"),
        (["search", "STORE", "-o", "no/such/folder.json"], 1, "error: [Errno 2]"),
        (["nothing"], 2, "No such command 'nothing'"),
    ],
)
def test_errors(store: str, arguments: list[str], code: int, said: str) -> None:
    done = run(*(store if part == "STORE" else part for part in arguments), code=code)
    assert said in " ".join(done.stderr.replace("│", "").split())
    assert done.stdout == ""


def test_warnings_are_a_line_on_stderr(tmp_path: Path) -> None:
    import numpy as np
    import zarr
    from builders import put

    root = zarr.create_group(LocalStore(tmp_path / "c.zarr"))
    meta = root.create_group("meta")
    put(meta, "phase", np.array([1j]))
    put(meta, "x", np.array([1]))
    done = run("search", str(tmp_path / "c.zarr"), "-f", "json")
    assert json.loads(done.stdout) == [{"idx": 0, "x": 1}]
    assert done.stderr.startswith('warning: left out of the table meta: "phase"')


def test_a_reader_that_has_seen_enough(store: str) -> None:
    long = "SELECT a.* FROM meta a, meta b, meta c"
    for form in ("csv", "json", "table"):
        command = f"set -o pipefail; {PROGRAM} sql {store} '{long}' -f {form} | head -n 1"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        assert len(done.stdout.splitlines()) == 1
        assert done.stderr == ""


@pytest.mark.parametrize("command", ["info", "tree", "search"])
def test_a_reader_that_reads_nothing(store: str, command: str) -> None:
    script = f"set -o pipefail; {PROGRAM} {command} {store} | true"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert "rror" not in done.stderr
