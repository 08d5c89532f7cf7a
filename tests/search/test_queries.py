"""Whole queries, of which l2view answers parts before they run: counts, and first rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rows import ROWS, Row, as_table, wide, write

import l2view
from l2view.cache import CACHE
from l2view.index.commands import build_indexes
from l2view.meta.chunks import Tally

pytestmark = pytest.mark.usefixtures("small")

NAMES = st.sampled_from(["n", "f", "s", "t"])
COUNTED = st.one_of(
    st.builds("SELECT {0}, COUNT(*) AS c FROM meta GROUP BY {0}".format, NAMES),
    st.builds("SELECT COUNT(*) AS c, a.{0} AS k FROM meta a GROUP BY a.{0}".format, NAMES),
    st.builds("SELECT DISTINCT {0} FROM meta".format, NAMES),
    st.builds(
        'SELECT "A b"."K" AS k FROM (SELECT "M".{0} AS "K", COUNT(*) FROM meta AS "M" '
        'GROUP BY "M".{0}) AS "A b"'.format,
        NAMES,
    ),
    st.builds(
        'SELECT "B".k AS k FROM (SELECT {0} AS k, COUNT(*) FROM meta GROUP BY {0}) AS "B"'.format,
        NAMES,
    ),
    st.builds(
        "SELECT {0} AS k, COUNT(*) AS c FROM meta GROUP BY {0} HAVING COUNT(*) > 1".format, NAMES
    ),
    st.builds(
        "SELECT k, c + 1 AS d FROM (SELECT {0} AS k, COUNT(*) AS c FROM meta GROUP BY {0}) AS sub "
        "WHERE c > 1".format,
        NAMES,
    ),
    st.builds("SELECT {0}, COUNT({0}) AS c FROM meta GROUP BY {0}".format, NAMES),
    st.builds("SELECT {0}, COUNT(*) AS c FROM meta WHERE n > 0 GROUP BY {0}".format, NAMES),
    st.builds("SELECT {0}, COUNT(DISTINCT n) AS c FROM meta GROUP BY {0}".format, NAMES),
    st.builds("SELECT {0}, MAX(n) AS c FROM meta GROUP BY {0}".format, NAMES),
    st.just("SELECT n, s, COUNT(*) AS c FROM meta GROUP BY n, s"),
    st.just("SELECT n + 1 AS k, COUNT(*) AS c FROM meta GROUP BY n + 1"),
    st.just("SELECT COUNT(*) AS c FROM (SELECT DISTINCT s FROM meta)"),
    st.just("SELECT a.n, COUNT(*) AS c FROM meta a JOIN meta b ON a.n = b.n GROUP BY a.n"),
)
FIRST = st.builds(
    "SELECT {} FROM meta {} ORDER BY {}, idx LIMIT {} OFFSET {}".format,
    st.sampled_from(["*", "s, t", "idx, s AS text", "f"]),
    st.sampled_from(["", "WHERE n > 0", "WHERE n > 0 AND f < 1 OR s = 'a'"]),
    st.sampled_from(["n DESC", "f NULLS FIRST", "f DESC NULLS LAST", "s, t DESC NULLS LAST"]),
    st.integers(0, 4),
    st.integers(0, 3),
)


def both(store: Any, rows: list[Row], query: str) -> Iterator[list[dict[str, Any]]]:
    """Yield what l2view and DuckDB answer."""
    table = as_table(rows)
    if "*" not in query.split("FROM")[0] or "COUNT" in query:
        yield l2view.sql(store, query).to_arrow_table().to_pylist()
    else:
        yield l2view.sql(store, query.replace("*", "idx, n, f, s, t")).to_arrow_table().to_pylist()
    connection = duckdb.connect()
    connection.register("meta", table)
    yield connection.sql(query).to_arrow_table().to_pylist()


def text(row: dict[str, Any]) -> str:
    """Return a row to be compared, 0.0 for -0.0."""
    return repr([value + 0.0 if isinstance(value, float) else value for value in row.values()])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(ROWS, COUNTED)
def test_counts_are_those_of_duckdb(tmp_path: Path, rows: list[Row], query: str) -> None:
    store = write(tmp_path / "c", rows)
    for _ in range(2):
        one, other = both(store, rows, query)
        assert sorted(map(text, one)) == sorted(map(text, other))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(ROWS, FIRST)
def test_first_rows_are_those_of_duckdb(tmp_path: Path, rows: list[Row], query: str) -> None:
    store = write(tmp_path / "c", rows)
    for _ in range(2):
        one, other = both(store, rows, query)
        assert one == other
        build_indexes(tmp_path / "c")


@pytest.mark.parametrize(
    "end",
    ["ORDER BY c DESC, s LIMIT 2", "ORDER BY s LIMIT 2 OFFSET 1", "ORDER BY s OFFSET 37"],
)
def test_counts_in_order(tmp_path: Path, end: str) -> None:
    store = write(tmp_path / "c", wide(70))
    one, other = both(store, wide(70), f"SELECT s, COUNT(*) AS c FROM meta GROUP BY s {end}")
    assert one == other


def test_counting_reads_a_chunk_once(tmp_path: Path) -> None:
    write(tmp_path / "c", wide(70))
    collection = l2view.Collection(tmp_path / "c")
    query = "SELECT n, COUNT(*) AS c FROM meta GROUP BY n ORDER BY n"
    for decoded in (24, 0):
        collection.table = replace(collection.table, tally=(tally := Tally()))
        found = collection.sql(query).to_arrow_table().to_pydict()
        assert found == {"n": list(range(24)), "c": [3] * 23 + [1]}
        assert tally.decoded == decoded
    CACHE.clear()
    # What is there is counted as it is.
    collection.search("n >= 0", fields=[])
    collection.table = replace(collection.table, tally=(tally := Tally()))
    collection.sql(query).to_arrow_table()
    assert tally.decoded == 0


def test_what_answers_otherwise_each_time(tmp_path: Path) -> None:
    store = write(tmp_path / "c", wide(70))
    query = "SELECT idx, s, f FROM meta WHERE random() < 0.5 ORDER BY f LIMIT 5"
    for _ in range(10):
        assert l2view.sql(store, query).to_arrow_table().num_rows == 5


def test_counts_of_rows_that_come_later(tmp_path: Path) -> None:
    store = write(tmp_path / "c", wide(10))
    query = "SELECT n, COUNT(*) AS c FROM meta GROUP BY n ORDER BY n"
    assert l2view.sql(store, query).to_pydict() == {"n": [0, 1, 2, 3], "c": [3, 3, 3, 1]}
    write(tmp_path / "c", wide(11))
    assert l2view.sql(store, query).to_pydict() == {"n": [0, 1, 2, 3], "c": [3, 3, 3, 2]}


def test_a_field_called_as_a_count(tmp_path: Path) -> None:
    store = write(tmp_path / "c", wide(9))
    name = "count(Int64(1))"
    zarr.open_group(store, path="meta").create_array(name, data=np.arange(9) % 2)
    found = l2view.sql(store, f'SELECT DISTINCT "{name}" AS k FROM meta ORDER BY k').to_pydict()
    assert found == {"k": [0, 1]}


def test_a_filtered_table_is_counted_as_it_is(tmp_path: Path) -> None:
    write(tmp_path / "c", wide(30))
    collection = l2view.Collection(tmp_path / "c")
    mine = collection.meta.filter(pc.field("n") > 7)
    query = "SELECT n, COUNT(*) AS c FROM mine GROUP BY n ORDER BY n"
    found = collection.sql(query, tables={"mine": mine}).to_pydict()
    assert found == {"n": [8, 9], "c": [3, 3]}


def test_a_query_with_a_limit_stops_early(tmp_path: Path) -> None:
    write(tmp_path / "c", wide(700))
    collection = l2view.Collection(tmp_path / "c")
    table = collection.table
    for query in (
        "SELECT s FROM meta LIMIT 2",
        "SELECT s FROM meta WHERE f >= 0 LIMIT 2",
        "SELECT t FROM meta WHERE t >= TIMESTAMP '2025-01-02' LIMIT 2 OFFSET 1",
    ):
        CACHE.clear()
        collection.table = replace(table, tally=(tally := Tally()))
        assert collection.sql(query).to_arrow_table().num_rows == 2
        assert 0 < tally.decoded < 40, query  # of 100 or 200: Arrow reads some ahead


def test_a_sorted_query_reads_the_rest_for_few(tmp_path: Path) -> None:
    write(tmp_path / "c", wide(70))
    collection = l2view.Collection(tmp_path / "c")
    collection.table = replace(collection.table, tally=(tally := Tally()))
    found = collection.sql("SELECT s, id, f FROM meta ORDER BY f DESC, idx LIMIT 1").to_pydict()
    assert found == {"s": ["s11"], "id": ["g007"], "f": [49.0]}
    assert tally.decoded == 10 + 2


@pytest.mark.parametrize(
    "query", ["SELECT n FROM meta WHERE n > 900", "SELECT k FROM mine WHERE p = 'z'"]
)
def test_sorting_what_has_no_parts(tmp_path: Path, query: str) -> None:
    """Where nothing is left to scan, there is nothing to sort either."""
    store = write(tmp_path / "c", wide(20))
    build_indexes(tmp_path / "c")
    pq.write_to_dataset(pa.table({"k": [1], "p": ["a"]}), tmp_path / "p", partition_cols=["p"])
    tables = {"mine": pads.dataset(tmp_path / "p", partitioning="hive")}
    found = l2view.sql(store, f"{query} ORDER BY 1 LIMIT 1", tables=tables).to_arrow_table()
    assert found.num_rows == 0
