"""What a search finds, and what it refuses."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import shapely
import zarr
from builders import boxes, put, put_wkb, texts
from zarr.storage import MemoryStore

import l2view
from l2view.errors import FieldError, L2ViewWarning, QueryError
from l2view.geolocation.globe import rectangle
from l2view.search.parameters import scalar, to_json
from l2view.search.place import corners, geometry
from l2view.search.query import Query


@pytest.fixture
def collection(store: MemoryStore) -> l2view.Collection:
    return l2view.Collection(store)


def rows(table: pa.Table) -> list[int]:
    return table["idx"].to_pylist()


def test_everything(collection: l2view.Collection) -> None:
    table = collection.search()
    assert rows(table) == list(range(20))
    assert table.schema.names == collection.schema.names
    assert table.schema.names[0] == "idx"


def test_where(collection: l2view.Collection) -> None:
    assert rows(collection.search("cloud_cover < 20")) == [1, 2, 3]
    assert rows(collection.search("cloud_cover IS NULL")) == [0, 7, 14]
    assert rows(collection.search("orbit IS NULL")) == [5]
    assert rows(collection.search('"eo:cloud_cover" BETWEEN 6 AND 9')) == [2, 3]
    assert rows(collection.search("id LIKE 'S2A/01%' AND platform = 'B'")) == [11, 13, 15, 17, 19]
    assert rows(collection.search("idx IN (4, 2)")) == [2, 4]
    assert rows(collection.search("cloud_cover < 20 OR idx > 18 -- or so")) == [1, 2, 3, 19]
    assert rows(collection.search("id = 'a;b' /* none */")) == []


def test_where_with_times(collection: l2view.Collection) -> None:
    assert rows(collection.search("datetime < '2025-06-03'")) == [0, 1]
    assert rows(collection.search("datetime < TIMESTAMP '2025-06-03 00:00:00'")) == [0, 1]
    assert rows(collection.search("datetime < '2025-06-02T10:00:01Z'")) == [0, 1]
    assert rows(collection.search("datetime BETWEEN '2025-06-03' AND '2025-06-05'")) == [2, 3]
    assert rows(collection.search("EXTRACT(day FROM datetime) = 9")) == [8]
    assert rows(collection.search("date_trunc('day', datetime) = '2025-06-09'")) == [8]


def test_params(collection: l2view.Collection) -> None:
    assert rows(collection.search("cloud_cover < $most", params={"most": 20})) == [1, 2, 3]
    said = {"id": "S2A/004", "t": datetime(2025, 6, 3, 12, tzinfo=timezone(timedelta(hours=2)))}
    assert rows(collection.search("id = $id OR datetime = $t", params=said)) == [2, 4]
    area = shapely.box(-150, -90, -145, 90)
    assert rows(collection.search("ST_Intersects(bbox, $area)", params={"area": area})) == [0]
    assert rows(collection.search("idx = $n", params={"n": np.int64(7)})) == [7]
    assert rows(collection.search("idx = $n", params={"n": pa.scalar(7)})) == [7]
    # A value is never SQL.
    assert rows(collection.search("id = $id", params={"id": "' OR 1=1 --"})) == []


def test_params_that_do_not_fit(collection: l2view.Collection) -> None:
    with pytest.raises(QueryError, match=r"the placeholder \$most has no value; pass it in params"):
        collection.search("cloud_cover < $most")
    with pytest.raises(QueryError, match=r"where= has no placeholder for \$mst"):
        collection.search("cloud_cover < $most", params={"most": 1, "mst": 2})
    with pytest.raises(QueryError, match="params= are values for the placeholders of where="):
        collection.search(params={"most": 1})
    with pytest.raises(QueryError, match=r"the parameter \$most is a object, which SQL has no"):
        collection.search("cloud_cover < $most", params={"most": object()})


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("idx > 1; DROP TABLE meta", "end of expression, found: ;"),
        ("1=1) OR (1=1", r"end of expression, found: \)"),
        ("idx > 1 LIMIT 5", "end of expression, found: LIMIT"),
        ("idx > 1 ORDER BY idx", "end of expression, found: ORDER"),
        ("idx > 1 UNION SELECT 1", "end of expression, found: UNION"),
        ("idx > 1, idx < 3", "end of expression, found: ,"),
        ("SELECT idx FROM meta", "not valid SQL"),
        ("DROP TABLE meta", "not valid SQL|no field"),
        ("DELETE FROM meta", "not valid SQL|no field"),
        ("INSERT INTO meta VALUES (1)", "not valid SQL|no field"),
        ("UPDATE meta SET idx = 1", "not valid SQL|no field"),
        ("CREATE TABLE x (i INT)", "not valid SQL|no field"),
        ("COPY meta TO '/tmp/l2view-copied.csv'", "not valid SQL|no field"),
        ("SET datafusion.execution.batch_size = 1", "not valid SQL|no field"),
        ("idx IN (SELECT idx FROM meta)", "without tables of its own"),
        ("idx IN (SELECT 1 FROM '/etc/passwd')", "without tables of its own"),
        ("idx IN (SELECT 1 FROM read_csv('/etc/passwd'))", "without tables of its own"),
        ("sum(idx) > 1", "can't have an aggregate or window"),
        ("row_number() OVER () > 1", "can't have an aggregate or window"),
        ("idx", "where= is a condition"),
        ("idx > 'x'", "Cannot cast string 'x'"),
        ("ST_Nothing(bbox)", 'no function "st_nothing"'),
        ("id = 'never closed", "Unterminated string literal"),
        ("/* never closed", "Unexpected EOF while in a multi-line comment"),
        ("  ", "where= is empty; leave it out to find every granule"),
        ("", "where= is empty"),
    ],
)
def test_where_is_one_expression(collection: l2view.Collection, where: str, said: str) -> None:
    with pytest.raises((QueryError, FieldError), match=said):
        collection.search(where)
    assert not Path("/tmp/l2view-copied.csv").exists()


def test_where_is_text(collection: l2view.Collection) -> None:
    with pytest.raises(QueryError, match="where= is one SQL expression as text, not list"):
        collection.search(["idx > 1"])  # type: ignore[arg-type]


def test_misspelt_fields(collection: l2view.Collection) -> None:
    with pytest.raises(FieldError) as raised:
        collection.search("cloudcover < 10")
    assert str(raised.value).startswith(
        'no field "cloudcover"; did you mean "cloud_cover"? fields: '
    )
    with pytest.raises(FieldError, match='no field "orbits"; did you mean "orbit"'):
        collection.search(fields=["orbits"])
    with pytest.raises(FieldError, match='no field "zzz"; fields: '):
        collection.open("zzz = 1")
    with pytest.raises(FieldError, match='no field "clod_cover"; did you mean "cloud_cover"'):
        collection.search(order_by="clod_cover DESC")


def test_capitals_need_quotes() -> None:
    root = zarr.create_group(MemoryStore())
    put(root.create_group("meta"), "CloudCover", np.arange(3))
    collection = l2view.Collection(root.store)
    assert rows(collection.search('"CloudCover" > 1')) == [2]
    with pytest.raises(FieldError, match='write "CloudCover" in double quotes'):
        collection.search("CloudCover > 1")
    assert rows(collection.search(order_by='"CloudCover" DESC')) == [2, 1, 0]


def test_bbox(collection: l2view.Collection) -> None:
    assert rows(collection.search(bbox=(-150, -90, -130, 90))) == [0, 1]
    assert rows(collection.search(bbox=[-4.9, -90, -0.1, 90])) == []
    assert rows(collection.search(bbox=(-140, -35, -140, -35))) == [0]


def test_bbox_across_the_antimeridian(collection: l2view.Collection) -> None:
    expected = [
        index
        for index, shape in enumerate(boxes(20))
        if shape.intersects(shapely.box(120, -90, 180, 90))
        or shape.intersects(shapely.box(-180, -90, -130, 90))
    ]
    assert rows(collection.search(bbox=(120, -90, -130, 90))) == expected
    assert 0 in expected
    assert 18 in expected
    assert 10 not in expected


@pytest.mark.parametrize(
    ("bbox", "said"),
    [
        ((1, 2, 3), r"is not \(west, south, east, north\)"),
        ((1, 2, 3, 4, 5), r"is not \(west, south, east, north\)"),
        ("1,2,three,4", r"is not \(west, south, east, north\)"),
        ("POLYGON((0 0, 1 0, 1 2, 0 0))", "no rectangle is intersects="),
        ((0, 10, 5, -10), "south ≤ north"),
        ((0, -95, 5, 0), "-90"),
        ((0, 0, 361, 1), "west and east are at most 360 apart"),
        ((1e300, 0, 1e300, 1), "west and east are at most 360 apart"),
        ((190, 0, 170, 1), "beyond ±180"),
        ((float("nan"), 0, 1, 1), "west and east are at most 360 apart"),
    ],
)
def test_bbox_that_is_none(collection: l2view.Collection, bbox: Any, said: str) -> None:
    with pytest.raises(QueryError, match=said):
        collection.search(bbox=bbox)


@pytest.mark.parametrize(
    ("bbox", "plain"),
    [
        ((-150, -60, 0, -130, 0, 9000), (-150, -60, -130, 0)),
        ((-180.05, -90.05, 179.95, 90.05), (-180, -90, 180, 90)),
        ((170, -10, 200, 10), (170, -10, -160, 10)),
        ((-200, -10, -190, 10), (160, -10, 170, 10)),
        ((350, 0, 370, 20), (-10, 0, 10, 20)),
        ((200, 0, 560, 20), (-180, 0, 180, 20)),
        ((-530, 0, -510, 20), (-170, 0, -150, 20)),
        ("[-150, -60, -130, 0]", (-150, -60, -130, 0)),
        ("350 0 370 20", (-10, 0, 10, 20)),
        (shapely.box(-150, -60, -130, 0).wkt, (-150, -60, -130, 0)),
        (shapely.to_geojson(shapely.box(-150, -60, -130, 0)), (-150, -60, -130, 0)),
    ],
)
def test_bboxes_with_heights_or_beyond_the_map(
    collection: l2view.Collection, bbox: Any, plain: Any
) -> None:
    expected = rows(collection.search(bbox=plain))
    assert rows(collection.search(bbox=bbox)) == expected
    if len(bbox) != 6:
        assert rows(collection.search(intersects=bbox)) == expected
    assert rectangle(*corners(bbox)).equals(rectangle(*plain))


def test_intersects(collection: l2view.Collection) -> None:
    area = shapely.Polygon([(-150, -60), (-130, -60), (-150, 0)])
    expected = [index for index, shape in enumerate(boxes(20)) if shape.intersects(area)]
    as_json = json.loads(shapely.to_geojson(area))
    feature = {"type": "Feature", "geometry": as_json, "properties": {}}

    class Interface:
        __geo_interface__ = as_json

    features = {"type": "FeatureCollection", "features": [feature]}
    for said in (area, area.wkt, as_json, json.dumps(as_json), feature, features, Interface()):
        assert rows(collection.search(intersects=said)) == expected
    assert rows(collection.search(intersects=shapely.Point(-145, -35))) == [0]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("not WKT", "shapely geometry, GeoJSON or WKT"),
        ({"type": "Nothing"}, "shapely geometry, GeoJSON or WKT"),
        (7, "shapely geometry, GeoJSON or WKT"),
        (shapely.Polygon(), "empty geometry"),
        (shapely.Polygon([(0, 0), (2, 2), (2, 0), (0, 2)]), "not valid .*make_valid"),
        (shapely.box(0, 0, 10, 100), "beyond ±90°; is it longitude, latitude"),
    ],
)
def test_intersects_that_is_no_geometry(collection: l2view.Collection, said: Any, why: str) -> None:
    with pytest.raises(QueryError, match=why):
        collection.search(intersects=said)


def test_geometries_beyond_the_antimeridian_are_cut_there() -> None:
    assert geometry(shapely.box(170, 0, 190, 10)).equals(rectangle(170, 0, -170, 10))


def test_no_geometry_field() -> None:
    root = zarr.create_group(MemoryStore())
    put(root.create_group("meta"), "x", np.arange(3))
    with pytest.raises(FieldError, match="looks at the field bbox or geometry, and there is none"):
        l2view.search(root.store, bbox=(0, 0, 1, 1))
    with pytest.raises(FieldError, match="looks at the field .*, start_datetime or time"):
        l2view.search(root.store, datetime="2025")


def test_ids(collection: l2view.Collection) -> None:
    assert rows(collection.search(ids=["S2A/005", "S2A/001", "S2A/001"])) == [1, 5]
    with pytest.warns(L2ViewWarning, match=r"no granule has the id other, S2B/001$"):
        assert rows(collection.search(ids=["S2A/005", "other", "S2B/001"])) == [5]
    assert rows(collection.search("idx < 9", ids=["S2A/005", "other"])) == [5]
    assert rows(collection.search(ids=[])) == []
    assert rows(collection.search(ids=(f"S2A/{n:03d}" for n in (1, 2)))) == [1, 2]
    assert rows(collection.search("platform = 'A'", ids=["S2A/001", "S2A/002"])) == [2]


def test_ids_that_do_not_fit(collection: l2view.Collection) -> None:
    with pytest.raises(QueryError, match="pass a list of one"):
        collection.search(ids="S2A/001")
    with pytest.raises(QueryError, match="ids= must be of the type of the field id, string"):
        collection.search(ids=[1, 2])
    root = zarr.create_group(MemoryStore())
    put(root.create_group("meta"), "name", texts("ab"))
    with pytest.raises(
        FieldError, match='ids= looks at the field "id", and there is none; fields: idx, name'
    ):
        l2view.search(root.store, ids=["a"])


def test_order_and_limit(collection: l2view.Collection) -> None:
    assert rows(collection.search(order_by="platform DESC", limit=3)) == [1, 3, 5]
    assert rows(collection.search(order_by="cloud_cover", limit=2)) == [1, 2]
    assert rows(collection.search(order_by="cloud_cover DESC", limit=2)) == [19, 18]
    assert rows(collection.search(order_by="cloud_cover DESC NULLS FIRST", limit=4)) == [
        0,
        7,
        14,
        19,
    ]
    assert rows(collection.search(order_by=["platform", "idx desc"], limit=2)) == [18, 16]
    assert rows(collection.search(order_by="concat(platform, ','), -idx", limit=2)) == [18, 16]
    assert rows(collection.search(limit=3)) == [0, 1, 2]
    assert rows(collection.search(limit=0)) == []
    assert rows(collection.search("idx > 3", limit=2)) == [4, 5]


@pytest.mark.parametrize("limit", [-1, 1.5, "3", True])
def test_limit_that_is_none(collection: l2view.Collection, limit: Any) -> None:
    with pytest.raises(QueryError, match="is not a number of granules"):
        collection.search(limit=limit)


@pytest.mark.parametrize(
    "order_by", ["idx; DROP TABLE meta", "idx LIMIT 1", "idx) --", "", "idx ASC ASC"]
)
def test_order_by_is_expressions(collection: l2view.Collection, order_by: str) -> None:
    with pytest.raises(QueryError):
        collection.search(order_by=order_by)


def test_fields(collection: l2view.Collection) -> None:
    assert collection.search(fields="id", limit=1).schema.names == ["idx", "id"]
    names = ["orbit", "eo:cloud_cover", "orbit", "idx"]
    assert collection.search(fields=names, limit=1).schema.names == [
        "idx",
        "orbit",
        "eo:cloud_cover",
    ]
    assert collection.search(fields=[], limit=1).schema.names == ["idx"]


def test_everything_is_combined_with_and(collection: l2view.Collection) -> None:
    found = collection.search(
        "platform = 'A'",
        bbox=(-150, -90, 0, 90),
        intersects=shapely.box(-180, -90, 180, 90),
        datetime="2025-06-02/2025-06-09",
        ids=[f"S2A/{n:03d}" for n in range(2, 9)],
        order_by="idx DESC",
        limit=3,
    )
    assert rows(found) == [8, 6, 4]


def test_nothing_found(collection: l2view.Collection) -> None:
    table = collection.search("idx > 1000")
    assert table.num_rows == 0
    assert table.schema.equals(collection.search(limit=1).schema)


@pytest.mark.parametrize("encoding", ["WKB", "WKT"])
def test_the_query_of_the_issue(encoding: str) -> None:
    root = zarr.create_group(MemoryStore())
    meta = root.create_group("meta")
    shapes = shapely.box([5, 20, 8, -5], [5, 20, 8, -5], [6, 21, 12, 1], [6, 21, 12, 1])
    put(meta, "date", np.array(["2025-06-30", "2025-06-01", "2025-07-01", "2025-01-01"], "M8[ms]"))
    if encoding == "WKB":
        put_wkb(meta, "bbox", shapes)
    else:
        put(meta, "bbox", texts(shapely.to_wkt(shapes)))
    query = (
        "SELECT idx FROM meta WHERE date < TIMESTAMP '2025-07-01 00:00:00' AND "
        "ST_Intersects(bbox, ST_GeomFromText('POLYGON((0 0, 0 10, 10 10, 10 0, 0 0))'))"
    )
    assert sorted(l2view.sql(root.store, query).to_pydict()["idx"]) == [0, 3]


def test_null_geometries_match_nothing() -> None:
    root = zarr.create_group(MemoryStore())
    attributes = {"_FillValue": ""}
    put(root.create_group("meta"), "bbox", texts(["POINT (1 1)", ""]), attributes=attributes)
    assert rows(l2view.search(root.store, bbox=(0, 0, 2, 2))) == [0]
    assert rows(l2view.search(root.store)) == [0, 1]


def test_sql(collection: l2view.Collection) -> None:
    counted = collection.sql(
        'SELECT platform, count(*) n, max("eo:cloud_cover") m FROM meta '
        "GROUP BY platform ORDER BY platform"
    )
    assert counted.to_pydict() == {"platform": ["A", "B"], "n": [10, 10], "m": [54, 57]}
    named = collection.sql("SELECT id FROM meta WHERE idx = $i", params={"i": 4})
    assert named.to_pydict() == {"id": ["S2A/004"]}
    assert len(collection.sql("EXPLAIN SELECT * FROM meta").to_pydict()["plan"]) == 2


def test_sql_with_tables_of_the_users(collection: l2view.Collection) -> None:
    import pandas as pd
    import polars as pl
    import pyarrow.dataset as pads

    said = {"platform": ["A", "C"], "agency": ["ESA", "NASA"]}
    query = "SELECT count(*) n FROM meta JOIN mine USING (platform) WHERE agency = 'ESA'"
    for table in (
        pa.table(said),
        pa.RecordBatch.from_pydict(said),
        pd.DataFrame(said),
        pl.DataFrame(said),
        pads.dataset(pa.table(said)),
        said,
    ):
        assert collection.sql(query, tables={"mine": table}).to_pydict() == {"n": [10]}
    with pytest.raises(QueryError, match="name yours otherwise"):
        collection.sql(query, tables={"meta": pa.table(said)})


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("COPY meta TO '/tmp/l2view-copied.csv'", "only queries that read are allowed, not COPY"),
        ("COPY (SELECT 1) TO '/tmp/l2view-copied.csv'", "only queries that read are allowed"),
        ("SET datafusion.execution.batch_size = 1", "not SetVariable"),
        ("DROP TABLE meta", "not DropTable"),
        ("CREATE TABLE x AS SELECT 1", "not CreateMemoryTable"),
        ("SELECT 1 INTO x", "only queries that read are allowed|not implemented"),
        ("CREATE VIEW x AS SELECT 1", "not CreateView"),
        (
            "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
            "not CreateExternalTable",
        ),
        ("INSERT INTO meta SELECT * FROM meta", "only queries that read are allowed"),
        ("DELETE FROM meta", "only queries that read are allowed"),
        ("SELECT 1; SELECT 2", "one statement at a time"),
        ("SELECT * FROM '/etc/passwd'", 'no table "/etc/passwd"; tables: meta'),
        ("SELECT * FROM mta", 'no table "mta"; did you mean "meta"'),
        ("SELECT * FROM read_csv('/etc/passwd')", 'no table function "read_csv'),
        ("SELECT orbits FROM meta", 'no field "orbits"; did you mean "orbit"'),
        ("SELEC 1", "not valid SQL"),
        ("SELECT $x", r"the placeholder \$x has no value"),
    ],
)
def test_sql_only_reads(collection: l2view.Collection, query: str, said: str) -> None:
    with pytest.raises((QueryError, FieldError), match=said):
        collection.session().read(query)
    assert not Path("/tmp/l2view-copied.csv").exists()


def test_functions_take_the_options_of_a_collection(v3_store: MemoryStore) -> None:
    with pytest.raises(FieldError, match='no field "orbt"'):
        l2view.open(v3_store, time_field="orbt")
    assert l2view.sql(v3_store, "SELECT count(*) n FROM meta").to_pydict() == {"n": [20]}
    assert len(l2view.Collection(v3_store)) == 20


@pytest.mark.parametrize(
    "value",
    [
        b"\x01\x02",
        datetime(2025, 6, 1, 0, 0, 0, 250_000),
        datetime(2025, 6, 1, tzinfo=UTC),
        date(2025, 6, 1),
        timedelta(days=2, microseconds=3),
        Decimal("0.50"),
        np.datetime64("2025-06-03"),
        np.datetime64("2025-06-03T01:02", "m"),
        np.timedelta64(5, "s"),
        np.float32(0.5),
        float("inf"),
        [1, 2],
        ["a", None],
        None,
        shapely.Point(1, 2),
        "text",
        True,
    ],
)
def test_parameters_can_be_asked_again(value: Any) -> None:
    said = json.loads(json.dumps(to_json(value)))
    once, again = scalar("x", value), scalar("x", said)
    if isinstance(value, timedelta | np.generic | date | datetime):
        assert once.as_py() == again.as_py()
    else:
        assert once.equals(again)
    assert to_json(said) == said


def test_a_recorded_query_finds_the_same() -> None:
    root = zarr.create_group(MemoryStore())
    times = np.array(["2025-06-01T00:00:00", "2025-06-01T00:00:01"], "M8[ms]")
    put(root.create_group("meta"), "datetime", times)
    collection = l2view.Collection(root.store)
    params = {"x": datetime(2025, 6, 1, 0, 0, 1), "d": timedelta(seconds=1)}
    where = "datetime > $x - $d"
    said = json.loads(json.dumps(Query(where=where, params=params).to_json()))
    assert rows(collection.search(**said)) == rows(collection.search(where, params=params)) == [1]


@pytest.mark.parametrize("order_by", ["'cloud_cover'", "1", "NULL", "1.5", "true"])
def test_order_by_what_is_the_same_for_all(collection: l2view.Collection, order_by: str) -> None:
    with pytest.raises(QueryError, match="is the same for all; a field's name goes without"):
        collection.search(order_by=order_by, limit=5)


def test_order_by_chance(collection: l2view.Collection) -> None:
    with pytest.raises(QueryError, match="answers otherwise each time"):
        collection.search(order_by="random()")


@pytest.mark.parametrize(
    "where", ["idx IN (SELECT 1)", "EXISTS (SELECT 1)", "idx = (SELECT max(1))"]
)
def test_where_has_no_subquery(collection: l2view.Collection, where: str) -> None:
    with pytest.raises(QueryError, match="has a subquery, which is for sql"):
        collection.search(where)
    assert rows(collection.search("id <> '<subquery>'")) == list(range(20))


def test_null_in_a_condition(collection: l2view.Collection) -> None:
    for where in ("cloud_cover < NULL", "cloud_cover = $x", "NULL"):
        assert rows(collection.search(where, params={"x": None} if "$" in where else None)) == []
    with pytest.raises(QueryError, match="a comparison with NULL is never true; write IS NULL"):
        collection.search("cloud_cover < $x AND platform = 'A'", params={"x": None})


def test_habits(collection: l2view.Collection) -> None:
    assert rows(collection.search(limit=np.int64(3))) == [0, 1, 2]
    assert rows(collection.search(ids=pa.array(["S2A/002"]))) == [2]
    assert rows(collection.search(datetime="2025-06-02t00:00:00z/2025-06-02t12:00:00z")) == [1]
    with pytest.raises(QueryError, match="is no instant"):
        collection.search(datetime=pd.NaT)
