"""Indexes, zone maps and the cache: every answer is the same with and without them."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import icechunk
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import shapely
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zarr.storage import LocalStore

import l2view
from l2view.errors import FieldError, IngestError, StoreError
from l2view.ingest import columns, indexing
from l2view.ingest.index import index
from l2view.ingest.references import GranuleReferences
from l2view.ingest.repository import open_repository
from l2view.ingest.writer import Granule, write_batch
from l2view.meta import dataset, indexes, rtree
from l2view.meta.cache import CACHE, Cache
from l2view.meta.chunks import Tally
from l2view.meta.dataset import MetaDataset

CHUNK = 7
EPOCH = datetime(2025, 1, 1)
Row = dict[str, Any]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything in small pieces, so that few rows have many of them."""
    monkeypatch.setattr(dataset, "RANGE_ROWS", CHUNK)
    monkeypatch.setattr(dataset, "AT_ONCE", 3)
    monkeypatch.setattr(indexing, "INDEX_CHUNK", 96)
    monkeypatch.setattr(indexing, "COPIES", 5)
    monkeypatch.setattr(indexing, "SORTED_CHUNK", 6)
    monkeypatch.setattr(indexing, "HELD", 200)
    monkeypatch.setattr(indexes, "FRACTION", 1)
    monkeypatch.setattr(rtree, "NODE", 4)
    monkeypatch.setattr(columns, "CHUNK_ROWS", 8)
    CACHE.clear()
    yield
    CACHE.clear()


def box(west: float, south: float, width: float, height: float) -> shapely.Geometry:
    """Return a footprint, in two parts where it reaches across the antimeridian."""
    if west + width <= 180:
        return shapely.box(west, south, west + width, south + height)
    parts = [
        shapely.box(west, south, 180, south + height),
        shapely.box(-180, south, west + width - 360, south + height),
    ]
    return shapely.MultiPolygon(parts)


OUTLINES = st.one_of(
    st.none(),
    st.builds(
        box,
        st.integers(-180, 179),
        st.integers(-90, 80),
        st.integers(1, 9) | st.just(0.1),
        st.integers(1, 9),
    ),
    st.builds(shapely.Point, st.integers(-180, 180), st.integers(-90, 90)),
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "n": st.integers(-5, 5),
            "f": st.sampled_from([None, np.nan, np.inf, -np.inf, -0.0, 0.0, 0.5, 1e300, -2.5]),
            "s": st.sampled_from(
                ["", "a", "ab", "abc", "b", "é", "z" * 70, "z" * 71, "\U0010ffff"]
            ),
            "t": st.none() | st.integers(-400, 400),
            "bbox": OUTLINES,
        }
    ),
    min_size=1,
    max_size=40,
)
COMPARED = ("<", "<=", "=", ">=", ">", "<>")


def texts(values: Sequence[str]) -> st.SearchStrategy[str]:
    return st.sampled_from([f"'{value}'" for value in values])


ATOMS = st.one_of(
    st.builds("n {} {}".format, st.sampled_from(COMPARED), st.integers(-6, 6)),
    st.builds("f {} {}".format, st.sampled_from(COMPARED), st.sampled_from(["0.0", "0.5", "-3.0"])),
    st.builds(
        "s {} {}".format, st.sampled_from(COMPARED), texts(["", "a", "ab", "é", "zz", "z" * 70])
    ),
    st.builds("s LIKE {}".format, texts(["a%", "ab%", "%b", "z%", "a_", "é%", ""])),
    st.builds("s NOT LIKE {}".format, texts(["a%", "%b"])),
    st.builds(
        "t {} TIMESTAMP '{}'".format,
        st.sampled_from(COMPARED),
        st.integers(-400, 400).map(lambda hours: EPOCH + timedelta(hours=hours)),
    ),
    st.builds(
        "n {}IN ({})".format,
        st.sampled_from(["", "NOT "]),
        st.sampled_from(["1", "1, 2", "0, 1, 2, 3, 9"]),
    ),
    st.builds(
        "s {}IN ({})".format,
        st.sampled_from(["", "NOT "]),
        st.sampled_from(["'a'", "'a', '', 'b', 'abc', 'x'"]),
    ),
    st.builds(
        "{} IS {}NULL".format, st.sampled_from(["f", "t", "s"]), st.sampled_from(["", "NOT "])
    ),
    st.builds("n BETWEEN {} AND {}".format, st.integers(-6, 6), st.integers(-6, 6)),
)
CONDITIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds("({} AND {})".format, inner, inner),
        st.builds("({} OR {})".format, inner, inner),
        st.builds("NOT ({})".format, inner),
    ),
    max_leaves=4,
)


def write(path: Path, rows: Sequence[Row]) -> LocalStore:
    """Write rows as a plain Zarr store, of which chunks of fields differ in length."""
    shutil.rmtree(path, ignore_errors=True)
    store = LocalStore(path)
    meta = zarr.create_group(store).create_group("meta")
    count = len(rows)
    columns: dict[str, tuple[Any, Any]] = {
        "n": ("int64", [row["n"] for row in rows]),
        "f": ("float64", [np.nan if row["f"] is None else row["f"] for row in rows]),
        "s": ("string", np.array([row["s"] for row in rows], dtype=np.dtypes.StringDType())),
        "t": ("datetime64[us]", np.array([stamp(row) for row in rows], dtype="datetime64[us]")),
        "id": ("string", np.array([f"g{i:03}" for i in range(count)], np.dtypes.StringDType())),
    }
    outlines = np.empty(count, dtype=object)
    outlines[:] = [b"" if row["bbox"] is None else shapely.to_wkb(row["bbox"]) for row in rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, (dtype, values) in columns.items():
            chunk = 3 if name == "n" else CHUNK
            array = meta.create_array(name, shape=(count,), chunks=(chunk,), dtype=dtype)
            array[:] = np.asarray(values)
        array = meta.create_array(
            "bbox", shape=(count,), chunks=(CHUNK,), dtype="variable_length_bytes"
        )
        array[:] = outlines
    return store


def stamp(row: Row) -> datetime | None:
    return None if row["t"] is None else EPOCH + timedelta(hours=row["t"])


def table(rows: Sequence[Row]) -> pa.Table:
    """Return rows as another engine gets them."""
    floats = [None if row["f"] is None or np.isnan(row["f"]) else row["f"] for row in rows]
    return pa.table(
        {
            "idx": pa.array(range(len(rows)), pa.int64()),
            "n": pa.array([row["n"] for row in rows], pa.int64()),
            "f": pa.array(floats, pa.float64()),
            "s": pa.array([row["s"] for row in rows], pa.string()),
            "t": pa.array([stamp(row) for row in rows], pa.timestamp("us")),
        }
    )


def found(store: Any, where: str, **options: Any) -> list[int]:
    rows: list[int] = l2view.search(store, where, fields=[], **options).column("idx").to_pylist()
    return rows


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(ROWS, CONDITIONS)
def test_answers_are_those_of_duckdb(tmp_path: Path, rows: list[Row], where: str) -> None:
    expected_table = table(rows)  # noqa: F841 (DuckDB finds it by its name)
    query = f"SELECT idx FROM expected_table WHERE {where} ORDER BY idx"
    expected = [row[0] for row in duckdb.sql(query).fetchall()]
    store = write(tmp_path / "c", rows)
    collection = l2view.Collection(store)
    assert collection.search(where, fields=[]).column("idx").to_pylist() == expected
    # What was seen is known, and kept.
    assert collection.search(where, fields=[]).column("idx").to_pylist() == expected
    assert collection.search(where, fields=[], limit=3).column("idx").to_pylist() == expected[:3]
    index(tmp_path / "c")
    index(tmp_path / "c", ["n", "f", "s", "t"])
    for budget in (2**30, 0):
        with l2view.config.set({"cache.bytes": budget}):
            CACHE.clear()
            assert found(store, where) == expected
            assert found(store, where) == expected
            counted = l2view.sql(store, f"SELECT COUNT(*) FROM meta WHERE {where}")
            assert counted.to_arrow_table().column(0).to_pylist() == [len(expected)]
    counted = collection.meta.to_table(columns=["idx"], filter=None)
    assert counted.num_rows == len(rows)


PLACES = st.one_of(
    st.builds(
        box, st.integers(-180, 179), st.integers(-90, 80), st.integers(0, 90), st.integers(0, 60)
    ),
    st.builds(shapely.Point, st.integers(-180, 180), st.integers(-90, 90)),
    st.just(shapely.from_wkt("LINESTRING (-170 -80, 0 0, 170 80)")),
)
PREDICATES = {
    "ST_Intersects": shapely.intersects,
    "ST_Within": shapely.within,
    "ST_Contains": shapely.contains,
    "ST_CoveredBy": shapely.covered_by,
    "ST_Covers": shapely.covers,
}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(ROWS, PLACES, st.sampled_from(sorted(PREDICATES)), st.booleans())
def test_places_are_those_of_shapely(
    tmp_path: Path, rows: list[Row], place: shapely.Geometry, name: str, turned: bool
) -> None:
    outlines = np.array([row["bbox"] for row in rows], dtype=object)
    sides = (place, outlines) if turned else (outlines, place)
    expected = np.flatnonzero(PREDICATES[name](*sides)).tolist()
    where = f"{name}($place, bbox)" if turned else f"{name}(bbox, $place)"
    store = write(tmp_path / "c", rows)
    assert found(store, where, params={"place": place}) == expected
    index(tmp_path / "c")
    for _ in range(2):
        assert found(store, where, params={"place": place}) == expected
    both = f"{where} AND n > 0"
    positive = [row for row in expected if rows[row]["n"] > 0]
    assert found(store, both, params={"place": place}) == positive
    near = np.flatnonzero(shapely.dwithin(outlines, place, 5.5)).tolist()
    assert found(store, "ST_DWithin(bbox, $place, 5.5)", params={"place": place}) == near


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(ROWS, ROWS, CONDITIONS)
def test_rows_appended_since_are_found(
    tmp_path: Path, rows: list[Row], more: list[Row], where: str
) -> None:
    """An index says how many rows it covers, whoever appended the others."""
    write(tmp_path / "c", rows)
    index(tmp_path / "c")
    index(tmp_path / "c", ["n", "f", "s", "t"])
    write(tmp_path / "d", [*rows, *more])
    for name in ("l2view", "indexes"):
        shutil.copytree(tmp_path / "c" / name, tmp_path / "d" / name)
    expected_table = table([*rows, *more])  # noqa: F841
    query = f"SELECT idx FROM expected_table WHERE {where} ORDER BY idx"
    expected = [row[0] for row in duckdb.sql(query).fetchall()]
    assert found(tmp_path / "d", where) == expected
    area = "bbox IS NOT NULL AND ST_Intersects(bbox, $place)"
    place = shapely.box(-60, -60, 60, 60)
    outlines = np.array([row["bbox"] for row in [*rows, *more]], dtype=object)
    meeting = np.flatnonzero(shapely.intersects(outlines, place)).tolist()
    assert found(tmp_path / "d", area, params={"place": place}) == meeting


def test_touching_rectangles_meet(tmp_path: Path) -> None:
    """A shared edge, and edges that singles can't tell from what lies beside them."""
    edges = [10.0, 10.1, np.nextafter(10.1, 11), np.nextafter(10.1, 10), -10.1]
    rows: list[Row] = [
        {"n": 1, "f": 1.0, "s": "a", "t": 0, "bbox": shapely.box(edge, 0, edge + 1, 1)}
        for edge in edges
    ]
    store = write(tmp_path / "c", rows)
    index(tmp_path / "c")
    outlines = np.array([row["bbox"] for row in rows])
    for edge in edges:
        for place in (shapely.box(edge - 1, 0, edge, 1), shapely.Point(edge + 1, 1)):
            for name, expected in (
                ("ST_Intersects", shapely.intersects),
                ("ST_Touches", shapely.touches),
            ):
                rows_found = np.flatnonzero(expected(outlines, place)).tolist()
                assert found(store, f"{name}(bbox, $p)", params={"p": place}) == rows_found


def wide(count: int) -> list[Row]:
    """Return rows whose field n grows with them, and others don't."""
    return [
        {
            "n": number // 3,
            "f": float(number * 7 % 50),
            "s": f"s{number * 13 % 40:02}",
            "t": number,
            "bbox": shapely.box(number * 37 % 350 - 180, 0, number * 37 % 350 - 179, 1),
        }
        for number in range(count)
    ]


def test_what_a_search_costs(tmp_path: Path) -> None:
    write(tmp_path / "c", wide(70))
    plain = l2view.Collection(tmp_path / "c").explain("f = 7", fields=[])
    assert (plain.rows, plain.found, plain.tally.decoded) == (70, 2, 10)
    assert plain.tally.runs == 10
    index(tmp_path / "c")
    index(tmp_path / "c", "f")
    CACHE.clear()
    collection = l2view.Collection(tmp_path / "c")
    cost = collection.explain("t < TIMESTAMP '2025-01-01 05:00:00'", fields=["s"])
    assert cost.found == 5
    assert cost.tally.ruled_out == {"zone maps of t": 9}
    assert cost.tally.decoded == 2  # a chunk of t, a chunk of s
    cost = collection.explain("f = 7", fields=[])
    assert cost.tally.ruled_out["sorted index of f"] == 8
    assert cost.tally.decoded == 2  # values and rows of the index; the field isn't read
    place = shapely.box(-180, 0, -179.5, 1)
    cost = collection.explain("ST_Intersects(bbox, $p)", params={"p": place}, fields=[])
    assert cost.found == 1
    assert "R-tree of bbox" in cost.tally.ruled_out
    assert sum(cost.tally.ruled_out.values()) == 9
    assert "1 of 70 granules" in str(cost)
    again = collection.explain("ST_Intersects(bbox, $p)", params={"p": place}, fields=[])
    assert again.tally.decoded == 0
    assert again.tally.kept > 0
    assert collection.explain("f >= 0", fields=[], limit=2).tally.runs == 1
    assert collection.explain("id IS NOT NULL", ids=["g005"], fields=[]).found == 1


@pytest.mark.parametrize(
    "where", ["n = 0 AND n <> 0", "NOT (n = 0 OR n <> 0)", "1 = 0", "n = 0 OR 1 = 1"]
)
def test_conditions_that_are_always_the_same(tmp_path: Path, where: str) -> None:
    store = write(tmp_path / "c", wide(20))
    expected = list(range(20)) if "1 = 1" in where else []
    for _ in range(2):
        assert found(store, where) == expected
        assert found(store, where, limit=3) == expected[:3]
        index(tmp_path / "c")


def test_counting_reads_nothing(tmp_path: Path) -> None:
    write(tmp_path / "c", wide(70))
    collection = l2view.Collection(tmp_path / "c")
    tally = Tally()
    collection.meta = collection.meta.counting(tally)
    counted = collection.sql("SELECT COUNT(*) FROM meta").to_arrow_table()
    assert counted.column(0).to_pylist() == [70]
    assert tally.requests == 0


def test_a_sort_with_a_limit_reads_the_rest_for_few(tmp_path: Path) -> None:
    write(tmp_path / "c", wide(70))
    collection = l2view.Collection(tmp_path / "c")
    cost = collection.explain(order_by="f DESC", limit=1, fields=["s", "id"])
    assert cost.tally.decoded == 10 + 2


def test_the_cache_keeps_to_its_budget() -> None:
    cache = Cache()
    with l2view.config.set({"cache.bytes": 3000}):
        for number in range(10):
            cache.put(number, b"", 500)
        assert cache.nbytes <= 3000
        assert len(cache) == 3
        assert cache.get(9) == b""
        assert cache.get(0) is None
        cache.put("large", b"", 5000)
        assert cache.get("large") is None
        cache.get(7)
        cache.put("new", b"", 500)
        assert cache.get(7) == b""  # which was asked for
        assert cache.get(8) is None


def test_a_chunk_that_changes_is_read_again(tmp_path: Path) -> None:
    store = write(tmp_path / "c", wide(20))
    collection = l2view.Collection(tmp_path / "c")
    assert collection.search("f = 7", fields=[]).num_rows == 1
    array = zarr.open_array(store, path="meta/f")
    array[0] = 7.0
    assert collection.search("f = 7", fields=[]).num_rows == 2


@pytest.mark.parametrize("fields", [["nme"], ["bbox", "x"]])
def test_a_field_that_is_not_there(tmp_path: Path, fields: list[str]) -> None:
    write(tmp_path / "c", wide(5))
    with pytest.raises(FieldError, match="no field"):
        index(tmp_path / "c", fields)


def test_what_cannot_be_indexed(tmp_path: Path) -> None:
    store = write(tmp_path / "c", wide(5))
    meta = zarr.open_group(store, path="meta")
    meta.create_array("flag", data=np.ones(5, dtype=bool))
    with pytest.raises(FieldError, match="bool, which has no order"):
        index(tmp_path / "c", ["flag"])
    with pytest.raises(StoreError):
        index(tmp_path / "nothing")
    with pytest.raises(IngestError, match="without tag= and snapshot="):
        collection = l2view.Collection(tmp_path / "c")
        collection._asked = (tmp_path / "c", None, True)
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


def granule(number: int, version: int) -> Granule:
    """Return a granule whose fields tell which version of it they are of."""
    row = {
        "id": f"g{number:03}",
        "datetime": EPOCH + timedelta(hours=number * 5 % 48, days=version),
        "bbox": shapely.to_wkb(box((number * 37 + version * 90) % 350 - 180, -version, 3, 2)),
        "n": number - 10 * version,
        "s": f"{'ab'[number % 2]}{version}",
    }
    if version == 2:
        row["late"] = float(number)
    return Granule(row, GranuleReferences((), {"": {}}))


def assert_as_scanned(repository: icechunk.Repository) -> None:
    """Compare searches with what NumPy finds in the rows."""
    collection = l2view.Collection(repository)
    with l2view.config.set({"cache.bytes": 0}):
        rows = MetaDataset(collection.meta.store, tuple(collection.meta.fields.values())).to_table()
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


@settings(max_examples=12)
@given(st.lists(st.sampled_from(["append", "replace", "delete", "index", "drop"]), max_size=7))
def test_indexes_are_kept_as_rows_come_change_and_go(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
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
                write_batch(repository, again, on_conflict="replace")
            case "delete":
                l2view.Collection(repository).delete(f"n = {turn * 2} OR s = 'b{version}'")
            case "index":
                index(repository)
                index(repository, ["n", "s", "datetime"])
            case "drop":
                index(repository, drop=True)
        assert_as_scanned(repository)


def test_ingest_keeps_zone_maps(tmp_path: Path) -> None:
    repository = open_repository(tmp_path / "c")
    for start in range(0, 30, 5):
        write_batch(repository, [granule(number, 0) for number in range(start, start + 5)])
    collection = l2view.Collection(repository)
    zones = collection.meta.indexes.zones(collection.meta.fields["n"])
    assert zones is not None
    assert zones.lows.to_pylist() == [0, 8, 16, 24]
    assert zones.highs.to_pylist() == [7, 15, 23, 29]
    cost = collection.explain("n >= 25", fields=[])
    assert cost.found == 5
    assert cost.tally.decoded == 1


def query(store: Any, text: str, **options: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = l2view.sql(store, text, **options).to_arrow_table().to_pydict()
    return found


def test_a_table_that_is_scanned_twice_is_whole(tmp_path: Path) -> None:
    """What one scan needn't see, another may: in subqueries, joins and under other names."""
    store = write(tmp_path / "c", wide(30))
    index(tmp_path / "c")
    index(tmp_path / "c", ["n"])
    place = "ST_Intersects(bbox, ST_Point(-179.5, 0.5))"
    counted = query(
        store, f"SELECT count(*) a, (SELECT count(*) FROM meta) b FROM meta WHERE {place}"
    )
    assert counted == {"a": [1], "b": [30]}
    top = query(store, "SELECT n, (SELECT max(n) FROM meta) m FROM meta WHERE n = 3 LIMIT 1")
    assert top == {"n": [3], "m": [9]}
    for other in ("meta", "public.meta", "datafusion.public.meta"):
        text = f"SELECT b.n FROM meta a JOIN {other} b ON a.n = b.n - 1 WHERE a.n = 3"
        assert query(store, text)["n"] == [4] * 9, other


def test_tables_that_can_be_read_but_once(tmp_path: Path) -> None:
    store = write(tmp_path / "c", wide(30))
    index(tmp_path / "c", ["n"])
    reader = pa.table({"k": [1, 3, 5]}).to_reader()
    text = "SELECT DISTINCT n FROM meta JOIN t ON n = k WHERE n < 4 ORDER BY n"
    assert query(store, text, tables={"t": reader}) == {"n": [1, 3]}
    session = l2view.Collection(store).session()
    first, second = (session.run(f"SELECT count(*) c FROM meta WHERE n < {n}") for n in (1, 2))
    assert [frame.to_pydict() for frame in (first, second)] == [{"c": [3]}, {"c": [6]}]


def test_texts_in_either_case(tmp_path: Path) -> None:
    rows = wide(7)
    for row, text in zip(rows, ["A", "a", "AB", "ab", "aB", "b", "B"], strict=True):
        row["s"] = text
    store = write(tmp_path / "c", rows)
    index(tmp_path / "c", ["s"])
    assert found(store, "s ILIKE 'a%'") == [0, 1, 2, 3, 4]
    assert found(store, "s ~* '^a'") == [0, 1, 2, 3, 4]
    assert found(store, "s LIKE 'a%'") == [1, 3, 4]


def test_indexes_are_of_one_group(tmp_path: Path) -> None:
    store = write(tmp_path / "c", wide(20))
    index(tmp_path / "c", ["n"])
    index(tmp_path / "c")
    other = zarr.open_group(store).create_group("other")
    other.create_array("n", data=np.arange(20)[::-1], chunks=(7,))
    other.create_array("id", data=np.arange(20), chunks=(7,))
    collection = l2view.Collection(store, group="other")
    assert collection.search("n < 3", fields=["n"]).column("n").to_pylist() == [2, 1, 0]
    with pytest.raises(IngestError, match="of the group meta"):
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
                write_batch(repository, [granule(3, 1)], on_conflict="replace")
            case "delete":
                l2view.Collection(repository).delete("n = 0")

    index(repository, fields, progress=meanwhile)
    assert_as_scanned(repository)


def test_an_index_of_a_field_that_is_named(tmp_path: Path) -> None:
    repository = open_repository(tmp_path / "c")

    def row(number: int, west: float) -> Granule:
        made = granule(number, 0)
        outline = shapely.to_wkb(shapely.box(west, 0, west + 1, 1))
        return Granule({**made.row, "outline": outline}, made.references)

    write_batch(repository, [row(number, number * 2) for number in range(10)])
    index(repository, ["outline"], geometry_field="outline")
    write_batch(repository, [row(3, 100)], on_conflict="replace")
    collection = l2view.Collection(repository, geometry_field="outline")
    assert collection.search(bbox=(100.1, 0, 100.2, 1), fields=["id"])["id"].to_pylist() == ["g003"]
    collection.delete("n = 0")
    collection = l2view.Collection(repository, geometry_field="outline")
    assert collection.search(bbox=(10.1, 0, 10.2, 1), fields=["id"])["id"].to_pylist() == ["g005"]


def test_zone_maps_that_begin_late(tmp_path: Path) -> None:
    repository = open_repository(tmp_path / "c")
    write_batch(repository, [granule(number, 0) for number in range(20)])
    index(repository, drop=True)
    write_batch(repository, [granule(number, 0) for number in range(20, 40)])
    l2view.Collection(repository).delete("n < 10")
    assert_as_scanned(repository)
    assert l2view.search(repository, "n = 35", fields=[]).num_rows == 1
    index(repository, drop=True)
    root = zarr.open_group(repository.readonly_session("main").store, mode="r")
    assert "zones" not in root["l2view"]


def test_a_store_that_changes_while_it_is_open(tmp_path: Path) -> None:
    store = write(tmp_path / "c", wide(10))
    assert found(store, "n < 0") == []
    for name, array in zarr.open_group(store, path="meta").arrays():
        array.resize((13,))  # the chunk's file is what it was
        del name
    assert found(store, "f = 0 AND n = 0") == [0, 10, 11, 12]
    index(tmp_path / "c", ["n"])
    index(tmp_path / "c")
    collection = l2view.Collection(store)
    assert collection.search("n = 2", fields=[]).num_rows == 3
    zarr.open_array(store, path="meta/n")[0] = 500
    index(tmp_path / "c", ["n"])
    index(tmp_path / "c")
    assert collection.search("n = 500", fields=[]).column("idx").to_pylist() == [0]


def test_distances_that_rounding_touches(tmp_path: Path) -> None:
    rows = wide(8)
    for number, row in enumerate(rows):
        row["bbox"] = shapely.Point(0.34 if number == 0 else 90, 0)
    store = write(tmp_path / "c", rows)
    for _ in range(2):
        assert found(store, "ST_Distance(bbox, ST_Point(-0.62, 0.0)) <= 0.96") == [0]
        place = shapely.Point(-0.62, 0)
        assert found(store, "ST_DWithin(bbox, $p, 0.96)", params={"p": place}) == [0]
        index(tmp_path / "c")


def test_kinds_of_fields_that_arrow_prunes_badly(tmp_path: Path) -> None:
    store = write(tmp_path / "c", wide(7))
    meta = zarr.open_group(store, path="meta")
    meta.create_array(
        "u", data=np.array([2**63 + 5] * 3 + [1, 2, 3, 4], dtype="uint64"), chunks=(2,)
    )
    meta.create_array("d", data=np.arange(7).astype("m8[s]"), chunks=(2,))
    for _ in range(2):
        assert found(store, "u NOT IN (1, 2, 3, 5)") == [0, 1, 2, 6]
        table = l2view.Collection(store).meta.to_table(
            columns=["idx"], filter=pc.field("d") > timedelta(seconds=4)
        )
        assert table.column(0).to_pylist() == [5, 6]
        unordered = l2view.Collection(store).meta.to_table(filter=~(pc.field("f") <= float("nan")))
        assert unordered.num_rows == 7
        index(tmp_path / "c")


def test_many_values_at_once(tmp_path: Path) -> None:
    store = write(tmp_path / "c", wide(300))
    index(tmp_path / "c")
    ids = [f"g{number:03}" for number in range(0, 300, 4)]
    got = l2view.search(store, ids=ids, fields=["id"])
    assert got.column("id").to_pylist() == ids


def test_what_is_refused(tmp_path: Path) -> None:
    store = write(tmp_path / "c", wide(5))
    with pytest.raises(StoreError, match="opened to be read only"):
        index(LocalStore(store.root, read_only=True))
    zarr.create_group(tmp_path / "old", zarr_format=2).create_group("meta").create_array(
        "n", data=np.arange(3)
    )
    with pytest.raises(StoreError, match="no Zarr v3 store"):
        index(tmp_path / "old")
    assert not (tmp_path / "old" / "zarr.json").exists()
    repository = open_repository(tmp_path / "r")
    write_batch(repository, [granule(0, 0)])
    with pytest.raises(StoreError, match="pass the repository"):
        index(repository.writable_session("main"))
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


def test_chunks_of_a_bucket_are_kept_by_their_etags(
    s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3
    import obstore
    from obstore.store import LocalStore as Folder
    from obstore.store import S3Store

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    name = f"kept-{tmp_path.name.replace('_', '-')}"[:60]
    boto3.client("s3", endpoint_url=s3_server, region_name="us-east-1").create_bucket(Bucket=name)
    bucket = S3Store(
        name, endpoint=s3_server, region="us-east-1", client_options={"allow_http": True}
    )
    write(tmp_path / "c", wide(20))
    index(tmp_path / "c")
    folder = Folder(tmp_path / "c")
    for page in folder.list():
        for one in page:
            bucket.put(one["path"], folder.get(one["path"]).bytes())
    collection = l2view.Collection(bucket)
    assert collection.explain("f = 7", fields=[]).tally.decoded > 0
    again = collection.explain("f = 7", fields=[])
    assert (again.found, again.tally.decoded) == (1, 0)
    zarr.open_array(tmp_path / "c" / "meta" / "f")[5] = 7.0
    obstore.put(bucket, "meta/f/c/0", (tmp_path / "c" / "meta" / "f" / "c" / "0").read_bytes())
    changed = collection.search("f = 7", fields=[])
    assert changed.num_rows == 2
    obstore.delete(bucket, "meta/f/c/0")  # and is all fill values: 0
    assert collection.search("f = 7", fields=[]).num_rows == 0
