"""Indexes are made, used, kept as rows come, change and go, and dropped."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pytest
import shapely
import zarr
from builders import write_swath
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rows import found, granule, wide, write
from zarr.storage import LocalStore

import l2view
from l2view.errors import FieldError, IngestError, L2ViewWarning, StoreError
from l2view.index.commands import build_indexes, extend
from l2view.index.sorted import read_sorted
from l2view.index.trees import read_trees
from l2view.ingest.granule import Granule
from l2view.ingest.options import IngestOptions
from l2view.ingest.writer import write_batch
from l2view.limits import override_limits
from l2view.scan.dataset import TableDataset
from l2view.search.table import MetaTable
from l2view.stores.repository import open_repository

pytestmark = pytest.mark.usefixtures("small")


@pytest.mark.parametrize("fields", [["nme"], ["bbox", "x"]])
def test_a_field_that_is_not_there(tmp_path: Path, fields: list[str]) -> None:
    write(tmp_path / "c", wide(5))
    with pytest.raises(FieldError, match="no field"):
        build_indexes(tmp_path / "c", fields)


def test_what_cannot_be_indexed(tmp_path: Path) -> None:
    store = write(tmp_path / "c", wide(5))
    meta = zarr.open_group(store, path="meta")
    meta.create_array("flag", data=np.ones(5, dtype=bool))
    with pytest.raises(FieldError, match="bool, which has no order"):
        build_indexes(tmp_path / "c", ["flag"])
    with pytest.raises(StoreError):
        build_indexes(tmp_path / "nothing")
    with pytest.raises(IngestError, match="without tag=, snapshot="):
        collection = l2view.Collection(tmp_path / "c")
        collection._options = replace(collection._options, tag="then")
        collection.index()


def test_indexes_are_dropped(tmp_path: Path) -> None:
    store = write(tmp_path / "c", wide(30))
    collection = l2view.Collection(tmp_path / "c")
    made = ("zone maps", "R-tree of bbox", "sorted index of id")
    assert collection.index() == made
    assert collection.index("f") == ("sorted index of f",)
    assert set(collection.index(drop=True)) == {*made, "sorted index of f"}
    assert collection.index(drop=True) == ()
    left = [path for path in Path(store.root).rglob("c/*") if "meta" not in path.parts]
    assert left == []


def test_zone_maps_of_a_repository(tmp_path: Path) -> None:
    """Indexes are made in a commit; two that are made at once don't spoil each other."""
    storage = icechunk.local_filesystem_storage(str(tmp_path / "r"))
    repository = icechunk.Repository.create(storage)
    session = repository.writable_session("main")
    local = write(tmp_path / "c", wide(30))
    zarr.create_group(session.store)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, array in zarr.open_group(local, path="meta").arrays():
            made = zarr.create_array(
                session.store,
                name=f"meta/{name}",
                shape=array.shape,
                chunks=array.chunks,
                dtype=array.metadata.data_type,
            )
            made[:] = array[:]
    session.commit("rows")
    collection = l2view.Collection(repository)
    assert collection.index() == ("zone maps", "R-tree of bbox", "sorted index of id")
    assert collection.index("f") == ("sorted index of f",)
    again = l2view.Collection(repository)
    assert again.explain("f = 7", fields=[]).tally.ruled_out["sorted index of f"] > 0
    assert again.search(ids=["g004", "g017"], fields=["id"]).column("id").to_pylist() == [
        "g004",
        "g017",
    ]
    commits = [one.message for one in repository.ancestry(branch="main")]
    assert commits[:2] == ["index: sorted index of f", "index: sorted index of id"]


def assert_as_scanned(repository: icechunk.Repository) -> None:
    """Compare searches with what NumPy finds in the rows."""
    collection = l2view.Collection(repository)
    with l2view.config.set({"cache.bytes": 0}):
        rows = TableDataset(MetaTable(collection.table.store, collection.table.fields)).to_table()
    outlines = shapely.from_wkb(np.array(rows.column("bbox").to_pylist(), dtype=object))
    numbers = rows.column("n").to_numpy()
    texts = np.array(rows.column("s").to_pylist())
    place = shapely.box(-20, -90, 100, 90)
    expected = {
        "n < 3": numbers < 3,
        "n = 8": numbers == 8,
        "n = 16": numbers == 16,
        "n = 7 OR n = -4": np.isin(numbers, [7, -4]),
        "s LIKE 'a%'": np.char.startswith(texts, "a"),
        "s = 'b1' AND n > 0": (texts == "b1") & (numbers > 0),
        "ST_Intersects(bbox, $place)": shapely.intersects(outlines, place),
        "datetime >= TIMESTAMP '2025-01-02'": rows.column("datetime").to_numpy()
        >= np.datetime64("2025-01-02"),
    }
    for where, mask in expected.items():
        params = {"place": place} if "$" in where else None
        for _ in range(2):
            got = collection.search(where, params=params, fields=[]).column("idx").to_pylist()
            assert got == np.flatnonzero(mask).tolist(), where
    ids = rows.column("id").to_pylist()
    some = ids[::3]
    assert collection.search(ids=some, fields=["id"]).column("id").to_pylist() == some


STEPS = ["append", "replace", "delete", "index", "drop", "extend", "extend"]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(STEPS), max_size=9))
@example(["index", "append", "extend", "append", "extend", "replace", "extend", "delete", "extend"])
def test_indexes_are_kept_as_rows_come_change_and_go(
    tmp_path_factory: pytest.TempPathFactory, few: None, steps: list[str]
) -> None:
    path = tmp_path_factory.mktemp("kept") / "c"
    repository = open_repository(path)
    write_batch(repository, [granule(number, 0) for number in range(20)])
    count = 20
    for turn, step in enumerate(steps, start=1):
        version = 1 + turn % 2
        match step:
            case "append":
                new = [granule(number, version) for number in range(count, count + 9)]
                write_batch(repository, new)
                count += 9
            case "replace":
                again = [granule(number, version) for number in range(turn, count, 6)]
                write_batch(repository, again, IngestOptions(on_conflict="replace"))
            case "delete":
                l2view.Collection(repository).delete(f"n = {turn * 2} OR s = 'b{version}'")
            case "index":
                build_indexes(repository)
                build_indexes(repository, ["n", "s", "datetime"])
            case "extend":
                extend(repository)
            case "drop":
                build_indexes(repository, drop=True)
        assert_as_scanned(repository)


def test_ingest_keeps_zone_maps(tmp_path: Path) -> None:
    repository = open_repository(tmp_path / "c")
    for start in range(0, 30, 5):
        write_batch(repository, [granule(number, 0) for number in range(start, start + 5)])
    collection = l2view.Collection(repository)
    zones = collection.table.indexes.zones(collection.table.fields["n"])
    assert zones is not None
    assert zones.lows.to_pylist() == [0, 8, 16, 24]
    assert zones.highs.to_pylist() == [7, 15, 23, 29]
    cost = collection.explain("n >= 25", fields=[])
    assert cost.found == 5
    assert cost.tally.decoded == 1


def test_indexes_are_of_one_group(tmp_path: Path) -> None:
    store = write(tmp_path / "c", wide(20))
    build_indexes(tmp_path / "c", ["n"])
    build_indexes(tmp_path / "c")
    other = zarr.open_group(store).create_group("other")
    other.create_array("n", data=np.arange(20)[::-1], chunks=(7,))
    other.create_array("id", data=np.arange(20), chunks=(7,))
    collection = l2view.Collection(store, group="other")
    assert collection.search("n < 3", fields=["n"]).column("n").to_pylist() == [2, 1, 0]
    with pytest.raises(IngestError, match="its group meta"):
        collection.index()


@pytest.mark.parametrize("change", ["append", "replace", "delete"])
@pytest.mark.parametrize("fields", [["n"], ["bbox"], None])
def test_rows_that_change_while_an_index_is_made(
    tmp_path: Path, change: str, fields: list[str] | None
) -> None:
    repository = open_repository(tmp_path / "c")
    write_batch(repository, [granule(number, 0) for number in range(20)])
    changed = False

    def meanwhile(*_: Any) -> None:
        nonlocal changed
        if changed:
            return
        changed = True
        match change:
            case "append":
                write_batch(repository, [granule(number, 1) for number in range(20, 25)])
            case "replace":
                write_batch(repository, [granule(3, 1)], IngestOptions(on_conflict="replace"))
            case "delete":
                l2view.Collection(repository).delete("n = 0")

    build_indexes(repository, fields, progress=meanwhile)
    assert_as_scanned(repository)


def test_an_index_of_a_field_that_is_named(tmp_path: Path) -> None:
    repository = open_repository(tmp_path / "c")

    def row(number: int, west: float) -> Granule:
        made = granule(number, 0)
        outline = shapely.to_wkb(shapely.box(west, 0, west + 1, 1))
        return Granule({**made.row, "outline": outline}, made.references)

    write_batch(repository, [row(number, number * 2) for number in range(10)])
    build_indexes(repository, ["outline"], geometry_field="outline")
    write_batch(repository, [row(3, 100)], IngestOptions(on_conflict="replace"))
    collection = l2view.Collection(repository, geometry_field="outline")
    assert collection.search(bbox=(100.1, 0, 100.2, 1), fields=["id"])["id"].to_pylist() == ["g003"]
    collection.delete("n = 0")
    collection = l2view.Collection(repository, geometry_field="outline")
    assert collection.search(bbox=(10.1, 0, 10.2, 1), fields=["id"])["id"].to_pylist() == ["g005"]


@pytest.fixture
def few() -> Iterator[None]:
    """A few rows are enough for an index to know of them."""
    with override_limits(segment_rows=3):
        yield


def test_ingest_lets_indexes_know_of_more_rows(tmp_path: Path, few: None) -> None:
    (tmp_path / "files").mkdir()
    for number in range(20):
        write_swath(tmp_path / "files" / f"s{number:02}.h5", number, 10, chunk=5)
    files = sorted((tmp_path / "files").glob("*.h5"))
    l2view.ingest(files[:10], tmp_path / "c")
    build_indexes(tmp_path / "c")
    assert l2view.ingest(files[10:12], tmp_path / "c").indexes == []
    said = []
    report = l2view.ingest(
        files[12:], tmp_path / "c", progress=lambda report: said.append(report.indexing)
    )
    assert {"R-tree of bbox: 20 of 20 rows", "sorted index of id: 20 of 20 rows"} <= {*said}
    assert said[-1] == ""
    assert report.indexes == ["R-tree of bbox", "sorted index of id"]
    assert "more rows: R-tree of bbox" in str(report)
    cost = l2view.Collection(tmp_path / "c").explain(ids=["s19"], fields=[])
    assert (cost.found, cost.tally.ruled_out["sorted index of id"]) == (1, 2)
    assert l2view.ingest(files, tmp_path / "c").indexes == []


def covered(repository: icechunk.Repository, name: str) -> list[tuple[int, int]]:
    """Return the rows that each of the indexes of a field covers."""
    collection = l2view.Collection(repository)
    indexes, field = collection.table.indexes, collection.table.fields[name]
    assert indexes is not None
    if name == "bbox":
        trees = read_trees(indexes, field)
        assert trees is not None
        return [(part.rows.start, part.rows.stop) for part in trees.segments]
    ordered = read_sorted(indexes, field)
    assert ordered is not None
    return [(part.rows.start, part.rows.stop) for part in ordered.segments]


def test_rows_are_taken_into_indexes_few_times(tmp_path: Path, few: None) -> None:
    """As in a log-structured merge tree: what came last is small, and taken in by what comes."""
    repository = open_repository(tmp_path / "c")
    write_batch(repository, [granule(number, 0) for number in range(64)])
    build_indexes(repository)
    build_indexes(repository, ["n", "s"])
    taken_in, seen = 0, set[tuple[int, int]]()
    for start in range(64, 192, 4):
        write_batch(repository, [granule(number, 0) for number in range(start, start + 4)])
        extend(repository)
        parts = covered(repository, "bbox")
        assert parts == covered(repository, "n") == covered(repository, "id")
        assert [stop for _, stop in parts] == [*(first for first, _ in parts[1:]), start + 4]
        assert len(parts) <= 6
        taken_in += sum(stop - first for first, stop in {*parts} - seen)
        seen = {*parts}
    assert taken_in < 128 * 7  # log2 of how often rows came, not how often
    root = zarr.open_group(repository.readonly_session("main").store, mode="r")
    kept = {int(name) for name, _ in root["l2view/later/bbox"].groups()}
    assert kept == {first for first, _ in parts[1:]}
    cost = l2view.Collection(repository).explain("n = 190", fields=[])
    assert (cost.found, cost.tally.runs - sum(cost.tally.ruled_out.values())) == (1, 1)
    assert "sorted index of n" in cost.tally.ruled_out
    assert_as_scanned(repository)
    # Whoever deletes leaves the indexes of the rows before.
    l2view.Collection(repository).delete("n = 150")
    assert covered(repository, "bbox")[-1][1] == 150
    assert_as_scanned(repository)
    build_indexes(repository)
    assert covered(repository, "bbox") == [(0, 191)]
    build_indexes(repository, drop=True)
    root = zarr.open_group(repository.readonly_session("main").store, mode="r")
    assert list(root.get("l2view/later", zarr.group({})).group_keys()) == []


def test_footprints_that_are_none_among_those_that_came_later(tmp_path: Path, few: None) -> None:
    repository = open_repository(tmp_path / "c")
    write_batch(repository, [granule(number, 0) for number in range(20)])
    build_indexes(repository)
    odd = shapely.to_wkb(shapely.Point(np.inf, 1))
    rows = [granule(number, 0) for number in range(20, 26)]
    rows[3] = Granule({**rows[3].row, "bbox": odd}, rows[3].references)
    write_batch(repository, rows)
    extend(repository)
    assert covered(repository, "bbox") == [(0, 20), (20, 26)]
    place = shapely.from_wkb(rows[4].row["bbox"])
    with pytest.warns(L2ViewWarning, match="idx 23 has a coordinate that is NaN or infinite"):
        found_now = found(repository, "ST_Equals(bbox, $p)", params={"p": place})
    assert found_now == [24]


def test_zone_maps_that_begin_late(tmp_path: Path) -> None:
    repository = open_repository(tmp_path / "c")
    write_batch(repository, [granule(number, 0) for number in range(20)])
    build_indexes(repository, drop=True)
    write_batch(repository, [granule(number, 0) for number in range(20, 40)])
    l2view.Collection(repository).delete("n < 10")
    assert_as_scanned(repository)
    assert l2view.search(repository, "n = 35", fields=[]).num_rows == 1
    build_indexes(repository, drop=True)
    root = zarr.open_group(repository.readonly_session("main").store, mode="r")
    assert "zones" not in root["l2view"]


def test_what_is_refused(tmp_path: Path) -> None:
    store = write(tmp_path / "c", wide(5))
    with pytest.raises(StoreError, match="opened to be read only"):
        build_indexes(LocalStore(store.root, read_only=True))
    zarr.create_group(tmp_path / "old", zarr_format=2).create_group("meta").create_array(
        "n", data=np.arange(3)
    )
    with pytest.raises(StoreError, match="no Zarr v3 store"):
        build_indexes(tmp_path / "old")
    assert not (tmp_path / "old" / "zarr.json").exists()
    repository = open_repository(tmp_path / "r")
    write_batch(repository, [granule(0, 0)])
    with pytest.raises(StoreError, match="pass the repository"):
        build_indexes(repository.writable_session("main"))
    with (
        l2view.config.set({"cache.bytes": "1GB"}),
        pytest.raises(l2view.L2ViewError, match="cache.bytes"),
    ):
        found(store, "n = 1")
    with l2view.config.set({"cache.bytes": -5}):
        assert found(store, "f = 7") == [1]
    empty = write(tmp_path / "e", [])
    with pytest.raises(FieldError, match="nonsense"):
        found(empty, "nonsense = 3", limit=5)


@pytest.mark.parametrize("path", ["l2view/zones/n/c/0", "l2view/sorted/n/fences/c/0"])
def test_an_index_that_cannot_be_read_is_left_aside(tmp_path: Path, path: str) -> None:
    store = write(tmp_path / "c", wide(30))
    build_indexes(tmp_path / "c")
    build_indexes(tmp_path / "c", ["n"])
    (tmp_path / "c" / path).write_bytes(b"nonsense")
    with pytest.warns(L2ViewWarning, match="of n can't be read"):
        assert found(store, "n = 4") == [12, 13, 14]
    build_indexes(tmp_path / "c", drop=True)
    assert found(store, "n = 4") == [12, 13, 14]


def test_a_tree_that_is_cut_short_is_left_aside(tmp_path: Path) -> None:
    store = write(tmp_path / "c", wide(30))
    build_indexes(tmp_path / "c")
    zarr.open_array(store, path="indexes/bbox").resize(96)
    place = shapely.box(-180, 0, -179.5, 1)
    assert found(store, "ST_Intersects(bbox, $p)", params={"p": place}) == [0]


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_a_tree_of_another_maker(tmp_path: Path, kind: str) -> None:
    """It is used, and is not ours to drop."""
    from geoindex_rs import rtree

    rows = wide(70)
    store = write(tmp_path / "c", rows)
    corners = shapely.bounds([row["bbox"] for row in rows]).astype(kind)
    builder = rtree.RTreeBuilder(70, 16, kind)
    builder.add(*(np.ascontiguousarray(corners[:, axis]) for axis in range(4)))
    tree = np.frombuffer(memoryview(builder.finish()), dtype="uint8")
    zarr.open_group(store).create_group("indexes").create_array("bbox", data=tree)
    collection = l2view.Collection(store)
    place = shapely.box(-180, 0, -179.5, 1)
    cost = collection.explain("ST_Intersects(bbox, $p)", params={"p": place}, fields=[])
    assert (cost.found, cost.tally.ruled_out) == (1, {"R-tree of bbox": 9})
    assert collection.index(drop=True) == ()
    assert zarr.open_array(store, path="indexes/bbox").shape == tree.shape


def test_a_tree_of_another_maker_that_rounds_inward(tmp_path: Path) -> None:
    from geoindex_rs import rtree

    rows = wide(40)
    edge = 10.1  # its single is less
    for row in rows[:20]:
        row["bbox"] = shapely.box(edge, 0, edge + 1, 1)
    store = write(tmp_path / "c", rows)
    corners = shapely.bounds([row["bbox"] for row in rows]).astype("f4")
    corners[:20, 0], corners[:20, 2] = np.float32(edge + 1e-6), np.float32(edge + 1 - 1e-6)
    builder = rtree.RTreeBuilder(40, 16, "float32")
    builder.add(*(np.ascontiguousarray(corners[:, axis]) for axis in range(4)))
    tree = np.frombuffer(memoryview(builder.finish()), dtype="uint8")
    zarr.open_group(store).create_group("indexes").create_array("bbox", data=tree)
    for place in (shapely.box(edge - 1, 0, edge, 1), shapely.Point(edge + 1, 1)):
        assert found(store, "ST_Intersects(bbox, $p)", params={"p": place})[:20] == [*range(20)]


def test_a_store_that_cannot_be_written_to(tmp_path: Path) -> None:
    write(tmp_path / "c", wide(5))
    shutil.make_archive(str(tmp_path / "c"), "zip", tmp_path / "c")
    with pytest.raises(StoreError, match="ZipStore can't be written to"):
        build_indexes(tmp_path / "c.zip")
