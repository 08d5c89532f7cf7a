"""What a user reads where SQL can't be run as it was written."""

from __future__ import annotations

from typing import Any

import pytest
from builders import write_collection
from zarr.storage import MemoryStore

import l2view
from l2view.errors import FieldError, QueryError
from l2view.search.errors import explain, function_names


@pytest.fixture(scope="module")
def collection() -> l2view.Collection:
    store = MemoryStore()
    write_collection(store)
    return l2view.Collection(store)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("avg(idx) > 1", "can't have an aggregate or window function; use sql"),
        ("upper(id, platform) = 'A'", r"no function upper.Utf8, Utf8.; there is upper.String.$"),
        ("st_intersects(bbox)", r"st_intersects.Binary. has 1 arguments; the function takes 2"),
        ("ST_Intersect(bbox, bbox)", 'no function "st_intersect"; did you mean "st_intersects"'),
        ("ST_GeomFromTxt('a') = bbox", 'did you mean "st_geomfromtext"'),
        ("qqqqqqqqq(id)", "no function .qqqqqqqqq.; DataFusion's functions and ST_. are there"),
        ("platform = sst", "no field .sst.; fields: .*A text is written in single quotes: 'sst'"),
        ('platform = "A"', "A text is written in single quotes: 'A'"),
        ("eo:cloud_cover < 1", 'with a colon are written in double quotes: "eo:cloud_cover"'),
        ("idx", r"where= is a condition, true or false for each granule; meta.idx is Int64"),
        ("cloud_cover > 'abc'", "^Cannot cast string 'abc' to value of Float64 type$"),
        ("datetime < 'abc'", "^Error parsing timestamp from 'abc'"),
        ("ST_Intersects(bbox, ST_GeomFromText('POLY(('))", "^ParseException: Unknown type: 'POLY'"),
        ("idx = 1 OR", "not valid SQL: Expected: an expression, found: EOF"),
        ("extract(yeer from datetime) = 1", "^Date part 'yeer' not supported$"),
    ],
)
def test_of_a_condition(collection: l2view.Collection, where: str, said: str) -> None:
    with pytest.raises((QueryError, FieldError), match=said):
        collection.search(where)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT avg(platform) FROM meta", r"no function avg.Utf8.; there is avg.Decimal. or"),
        ("SELECT 1; SELECT 2", "^one statement at a time$"),
        ("SELECT * FROM metta", 'no table "metta"; did you mean "meta"'),
        ("SELCT 1", "not valid SQL: Expected: an SQL statement, found: SELCT"),
        ("SELECT foo(idx) FROM meta", 'no function "foo"; did you mean'),
    ],
)
def test_of_a_query(collection: l2view.Collection, query: str, said: str) -> None:
    with pytest.raises(QueryError, match=said):
        collection.sql(query)


def test_of_what_is_found_when_it_runs(collection: l2view.Collection) -> None:
    session = collection.session()
    with pytest.raises(QueryError, match="is no geometry; ST_GeomFromText"):
        session.read("SELECT ST_Intersects(bbox, 5) FROM meta")


def test_of_lists(collection: l2view.Collection) -> None:
    with pytest.raises(QueryError, match=r"for a list, write field = ANY\(\$name\)"):
        collection.search("idx IN ($a)", params={"a": [1, 2]})
    assert collection.search("idx = ANY($a)", params={"a": [1, 2]})["idx"].to_pylist() == [1, 2]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"where": "idx = $a", "params": [1]}, "params= maps names to values, and is no list"),
        ({"order_by": "eo:cloud_cover"}, 'in double quotes: "eo:cloud_cover"'),
        ({"order_by": "cloud_covr"}, 'did you mean "cloud_cover"'),
        ({"ids": 8}, "pass a list of one"),
        ({"intersects": (1, 2, 3)}, "intersects= is a shapely geometry"),
        ({"bbox": 5}, "bbox=5 is not"),
        ({"datetime": 5}, "datetime=5 is no instant"),
        ({"fields": 5}, "fields= is a text or a list of texts"),
    ],
)
def test_of_arguments(collection: l2view.Collection, options: dict[str, Any], said: str) -> None:
    with pytest.raises((QueryError, FieldError), match=said):
        collection.search(**options)
    with pytest.raises(QueryError, match="tables= maps names to tables, and is no list"):
        collection.sql("SELECT 1", tables=[1])  # type: ignore[arg-type]


def test_of_python_inside_datafusion() -> None:
    text = (
        "DataFusion error: Execution error: External error: Python error: PyErr { type: <class "
        "'OSError'>, value: OSError('gone: http://me:s3cret@host/a'), traceback: Some(…) }"
    )
    assert str(explain(text, [], [])) == "gone: http://host/a"


def test_function_names() -> None:
    assert {"st_intersects", "st_geomfromtext", "upper", "date_trunc"} <= set(function_names())
