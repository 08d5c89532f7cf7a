"""Every answer is that of another engine, with indexes and the cache and without."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import shapely
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rows import EPOCH, ROWS, Row, as_table, box, found, wide, write
from zarr.storage import LocalStore

import l2view
from l2view.cache import CACHE
from l2view.index.commands import build_indexes
from l2view.meta.chunks import Tally

pytestmark = pytest.mark.usefixtures("small")


COMPARED = ("<", "<=", "=", ">=", ">", "<>")


def texts(values: Sequence[str]) -> st.SearchStrategy[str]:
    return st.sampled_from([f"'{value}'" for value in values])


DAYS = st.integers(-17, 17).map(lambda days: (EPOCH + timedelta(days=days)).date())
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
    st.builds("t {} '{}'".format, st.sampled_from(COMPARED), DAYS),
    st.builds("t BETWEEN '{}' AND '{}'".format, DAYS, DAYS),
    st.builds("CAST(t AS DATE) {} DATE '{}'".format, st.sampled_from(COMPARED), DAYS),
    st.builds("EXTRACT(hour FROM t) {} {}".format, st.sampled_from(COMPARED), st.integers(0, 23)),
    st.builds("date_trunc('day', t) {} TIMESTAMP '{}'".format, st.sampled_from(COMPARED), DAYS),
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


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(ROWS, CONDITIONS)
def test_answers_are_those_of_duckdb(tmp_path: Path, rows: list[Row], where: str) -> None:
    expected_table = as_table(rows)  # noqa: F841 (DuckDB finds it by its name)
    query = f"SELECT idx FROM expected_table WHERE {where} ORDER BY idx"
    expected = [row[0] for row in duckdb.sql(query).fetchall()]
    store = write(tmp_path / "c", rows)
    collection = l2view.Collection(store)
    assert collection.search(where, fields=[]).column("idx").to_pylist() == expected
    # What was seen is known, and kept.
    assert collection.search(where, fields=[]).column("idx").to_pylist() == expected
    assert collection.search(where, fields=[], limit=3).column("idx").to_pylist() == expected[:3]
    build_indexes(tmp_path / "c")
    build_indexes(tmp_path / "c", ["n", "f", "s", "t"])
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
    build_indexes(tmp_path / "c")
    for _ in range(2):
        assert found(store, where, params={"place": place}) == expected
    both = f"{where} AND n > 0"
    positive = [row for row in expected if rows[row]["n"] > 0]
    assert found(store, both, params={"place": place}) == positive
    near = np.flatnonzero(shapely.dwithin(outlines, place, 5.5)).tolist()
    assert found(store, "ST_DWithin(bbox, $place, 5.5)", params={"place": place}) == near


@given(ROWS, PLACES, st.sampled_from(["Touches", "Crosses", "Overlaps", "Equals"]))
def test_an_r_tree_changes_no_answer(
    tmp_path: Path, rows: list[Row], place: shapely.Geometry, name: str
) -> None:
    """Of functions that geodatafusion and shapely answer otherwise where dimensions differ."""
    store = write(tmp_path / "c", rows)
    for where in (f"ST_{name}(bbox, $p)", f"ST_{name}($p, bbox)"):
        scanned = found(store, where, params={"p": place})
        build_indexes(tmp_path / "c")
        assert found(store, where, params={"p": place}) == scanned
        build_indexes(tmp_path / "c", drop=True)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(ROWS, ROWS, CONDITIONS)
def test_rows_appended_since_are_found(
    tmp_path: Path, rows: list[Row], more: list[Row], where: str
) -> None:
    """An index says how many rows it covers, whoever appended the others."""
    write(tmp_path / "c", rows)
    build_indexes(tmp_path / "c")
    build_indexes(tmp_path / "c", ["n", "f", "s", "t"])
    write(tmp_path / "d", [*rows, *more])
    for name in ("l2view", "indexes"):
        shutil.copytree(tmp_path / "c" / name, tmp_path / "d" / name)
    expected_table = as_table([*rows, *more])  # noqa: F841
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
    build_indexes(tmp_path / "c")
    outlines = np.array([row["bbox"] for row in rows])
    for edge in edges:
        for place in (shapely.box(edge - 1, 0, edge, 1), shapely.Point(edge + 1, 1)):
            for name, expected in (
                ("ST_Intersects", shapely.intersects),
                ("ST_Touches", shapely.touches),
            ):
                rows_found = np.flatnonzero(expected(outlines, place)).tolist()
                assert found(store, f"{name}(bbox, $p)", params={"p": place}) == rows_found


@pytest.mark.parametrize(
    "where", ["n = 0 AND n <> 0", "NOT (n = 0 OR n <> 0)", "1 = 0", "n = 0 OR 1 = 1"]
)
def test_conditions_that_are_always_the_same(tmp_path: Path, where: str) -> None:
    store = write(tmp_path / "c", wide(20))
    expected = list(range(20)) if "1 = 1" in where else []
    for _ in range(2):
        assert found(store, where) == expected
        assert found(store, where, limit=3) == expected[:3]
        build_indexes(tmp_path / "c")


def query(store: Any, text: str, **options: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = l2view.sql(store, text, **options).to_arrow_table().to_pydict()
    return found


def test_a_table_that_is_scanned_twice_is_whole(tmp_path: Path) -> None:
    """What one scan needn't see, another may: in subqueries, joins and under other names."""
    store = write(tmp_path / "c", wide(30))
    build_indexes(tmp_path / "c")
    build_indexes(tmp_path / "c", ["n"])
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
    build_indexes(tmp_path / "c", ["n"])
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
    build_indexes(tmp_path / "c", ["s"])
    assert found(store, "s ILIKE 'a%'") == [0, 1, 2, 3, 4]
    assert found(store, "s ~* '^a'") == [0, 1, 2, 3, 4]
    assert found(store, "s LIKE 'a%'") == [1, 3, 4]


def test_distances_that_rounding_touches(tmp_path: Path) -> None:
    rows = wide(8)
    for number, row in enumerate(rows):
        row["bbox"] = shapely.Point(0.34 if number == 0 else 90, 0)
    store = write(tmp_path / "c", rows)
    for _ in range(2):
        assert found(store, "ST_Distance(bbox, ST_Point(-0.62, 0.0)) <= 0.96") == [0]
        place = shapely.Point(-0.62, 0)
        assert found(store, "ST_DWithin(bbox, $p, 0.96)", params={"p": place}) == [0]
        build_indexes(tmp_path / "c")


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
        build_indexes(tmp_path / "c")


def test_many_values_at_once(tmp_path: Path) -> None:
    store = write(tmp_path / "c", wide(300))
    build_indexes(tmp_path / "c")
    ids = [f"g{number:03}" for number in range(0, 300, 4)]
    got = l2view.search(store, ids=ids, fields=["id"])
    assert got.column("id").to_pylist() == ids


def test_a_table_by_another_name_is_pruned(tmp_path: Path) -> None:
    write(tmp_path / "c", wide(70))
    build_indexes(tmp_path / "c", ["f"])
    collection = l2view.Collection(tmp_path / "c")
    collection.table = replace(collection.table, tally=(tally := Tally()))
    found = collection.sql("SELECT a.idx FROM meta a WHERE a.f = 7").to_arrow_table()
    assert sorted(found.column(0).to_pylist()) == [1, 51]
    assert tally.ruled_out["sorted index of f"] == 8


@pytest.mark.filterwarnings("ignore:.* NaN or infinite:l2view.L2ViewWarning")
@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_footprints_that_are_not_finite(tmp_path: Path, odd: float) -> None:
    """They are NULL, which no zone map may deny."""
    rows = wide(20)
    line = np.array([(0, 0), (odd, 0), (1, 1)])
    with np.errstate(invalid="ignore"):
        rows[3]["bbox"] = shapely.LineString(line)
    store = write(tmp_path / "c", rows)
    for _ in range(2):
        for _ in range(2):
            assert found(store, "bbox IS NULL") == [3]
            assert found(store, "ST_Intersects(bbox, ST_Point(0.5, 0.4))") == []
        build_indexes(tmp_path / "c")


@pytest.mark.parametrize("text", [False, True])
def test_footprints_in_a_rectangle(tmp_path: Path, text: bool) -> None:
    """What lies in it is found without a look, but for where more is asked."""
    rows = wide(100)
    for number in range(100):
        rows[number]["bbox"] = box(number * 2 - 100, 0, 4, 1)
    store = write(tmp_path / "c", rows)
    build_indexes(tmp_path / "c")
    place = shapely.box(-31, -5, 31, 5)
    outlines = np.array([row["bbox"] for row in rows])
    expected = np.flatnonzero(shapely.intersects(outlines, place))
    said = f"ST_GeomFromText('{place.wkt}')" if text else "$p"
    options = {} if text else {"params": {"p": place}}
    where = f"ST_Intersects(bbox, {said})"
    collection = l2view.Collection(store)
    assert found(store, where, **options) == expected.tolist()
    assert found(store, where, limit=3, **options) == expected[:3].tolist()
    latest = found(store, where, order_by="t DESC", limit=3, **options)
    assert latest == expected[::-1][:3].tolist()
    ids = [f"g{number:03}" for number in (0, 50, 51, 99)]
    assert found(store, where, ids=ids, **options) == [50, 51]
    some = expected[expected % 7 == 0].tolist()
    assert found(store, f"{where} AND idx % 7 = 0", **options) == some
    assert found(store, f"NOT {where}", **options) == np.setdiff1d(range(100), expected).tolist()
    others = collection.search(where, fields=["bbox", "n"], **options)
    assert shapely.from_wkb(others["bbox"].to_pylist()).tolist() == outlines[expected].tolist()
    assert others["n"].to_pylist() == [rows[row]["n"] for row in expected]
    disjoint = where.replace("ST_Intersects", "ST_Disjoint")
    assert found(store, disjoint, **options) == np.setdiff1d(range(100), expected).tolist()
    within = np.flatnonzero(shapely.within(outlines, place)).tolist()
    assert found(store, where.replace("Intersects", "Within"), **options) == within


CORNERS = ("xmin", "ymin", "xmax", "ymax")


def with_corners(store: LocalStore, rows: Sequence[Row]) -> NDArray[np.float64]:
    """Write the bounds of footprints as fields beside them, and return them."""
    corners = shapely.bounds(np.array([row["bbox"] for row in rows], dtype=object))
    meta = zarr.open_group(store, path="meta")
    for name, values in zip(CORNERS, corners.T, strict=True):
        meta.create_array(name, data=np.ascontiguousarray(values), chunks=(7,))
    return corners


EDGES = st.integers(-180, 180) | st.just(0.1) | st.just(-0.1)


@given(ROWS, st.tuples(EDGES, EDGES, EDGES, EDGES), ROWS, st.sampled_from(["", " AND n > 0"]))
def test_bounds_in_fields_beside(
    tmp_path: Path, rows: list[Row], box: tuple[float, ...], more: list[Row], other: str
) -> None:
    """An R-tree answers what is asked of them, of the rows that it was made of."""
    west, south, east, north = box
    where = f"xmin < {east} AND xmax > {west} AND ymin <= {north} AND ymax >= {south}{other}"

    def expected(corners: NDArray[np.float64], numbers: Sequence[int]) -> list[int]:
        hit = (corners[:, 0] < east) & (corners[:, 2] > west)
        hit &= (corners[:, 1] <= north) & (corners[:, 3] >= south)
        return np.flatnonzero(hit & ((np.array(numbers) > 0) | (not other))).tolist()

    store = write(tmp_path / "c", rows)
    corners = with_corners(store, rows)
    numbers = [row["n"] for row in rows]
    assert found(store, where) == expected(corners, numbers)
    build_indexes(tmp_path / "c")
    told = l2view.search(store, where, fields=[*CORNERS, "n"])
    assert told["idx"].to_pylist() == expected(corners, numbers)
    for name, values in zip(CORNERS, corners.T, strict=True):
        assert told[name].to_pylist() == values[told["idx"].to_numpy()].tolist()
    # Of rows that come later nobody knows whether these are the bounds of the footprints.
    together = write(tmp_path / "d", [*rows, *more])
    later = with_corners(together, [*rows, *more])
    later[len(rows) :] = [1.5, 1.5, 2.5, 2.5]
    for name, values in zip(CORNERS, later.T, strict=True):
        zarr.open_array(together, path=f"meta/{name}")[:] = values
    for name in ("l2view", "indexes"):
        shutil.copytree(tmp_path / "c" / name, tmp_path / "d" / name)
    numbers += [row["n"] for row in more]
    assert found(together, where) == expected(later, numbers)


def test_fields_that_are_not_the_bounds_are_read(tmp_path: Path) -> None:
    rows = wide(70)
    store = write(tmp_path / "c", rows)
    corners = with_corners(store, rows)
    where = "xmin <= -179 AND xmax >= -180 AND ymin <= 1 AND ymax >= 0"
    for other in (corners[40, 0], -179.5):
        zarr.open_array(store, path="meta/xmin")[40] = other
        build_indexes(tmp_path / "c")
        cost = l2view.Collection(store).explain(where, fields=[])
        hit = (corners[:, 0] <= -179) | ((np.arange(70) == 40) & (other == -179.5))
        assert cost.found == np.count_nonzero(hit)
        assert ("R-tree of bbox" in str(cost)) == (other != -179.5)


POLYGON_OF_THREADS = """
import numpy, shapely, zarr, l2view
from l2view.limits import override_limits
from zarr.dtype import VariableLengthBytes
x, y = numpy.random.default_rng(0).uniform(-60, 60, (2, 20_000))
meta = zarr.create_group({}).create_group("meta")
bbox = meta.create_array("bbox", shape=x.shape, chunks=(500,), dtype=VariableLengthBytes())
bbox[:] = shapely.to_wkb(shapely.box(x, y, x + 3, y + 3))
with override_limits(run_rows=500):
    collection = l2view.Collection(bbox.store)
    shape = shapely.Point(0, 0).buffer(40, quad_segs=500)
    print(*{len(collection.search(intersects=shape, fields=[])) for _ in range(20)})
"""


def test_threads_share_no_prepared_polygon() -> None:
    command = [sys.executable, "-W", "ignore", "-c", POLYGON_OF_THREADS]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "7744\n")
