"""Footprints: which field they are, and those that are none."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
import shapely
import shapely.affinity
import zarr
from builders import boxes, put, put_wkb, texts
from hypothesis import example, given
from hypothesis import strategies as st
from zarr.storage import MemoryStore

import l2view
from l2view.errors import FieldError, L2ViewWarning
from l2view.meta.footprints import are_rectangles, bounds, read_geometries
from l2view.meta.schema import Field


def test_geometry_fields_by_name(v3_store: MemoryStore) -> None:
    root = zarr.open_group(v3_store)
    put_wkb(root["meta"], "footprint", boxes(20))
    collection = l2view.Collection(v3_store, geometry_field="footprint")
    field = collection.schema.field("footprint")
    assert field.metadata[b"ARROW:extension:name"] == b"geoarrow.wkb"
    assert collection.search(bbox=(-150, -90, -145, 90))["idx"].to_pylist() == [0]
    with pytest.raises(FieldError, match='the field "orbit" is int32; a geometry is WKB or WKT'):
        l2view.Collection(v3_store, geometry_field="orbit")
    with pytest.raises(FieldError, match='no field "footprnt"; did you mean "footprint"'):
        l2view.Collection(v3_store, geometry_field="footprnt")


def test_bad_geometries_name_field_and_row() -> None:
    root = zarr.create_group(MemoryStore())
    shapes = ["POINT (1 1)", "POLYGON((0 0, 1", "POINT (9 9)"]
    put(root.create_group("meta"), "bbox", texts(shapes))
    collection = l2view.Collection(root.store)
    said = 'the field "bbox" of idx 1 is not WKT: POLYGON'
    with pytest.warns(L2ViewWarning, match=f"{said}.*Such rows are not found by place"):
        assert collection.search(bbox=(0, 0, 2, 2))["idx"].to_pylist() == [0]
    session = collection.session()
    with pytest.raises(FieldError, match=said):
        session.read("SELECT ST_Area(ST_GeomFromText(bbox)) FROM meta")
    assert collection.search("idx = 0")["idx"].to_pylist() == [0]


@pytest.mark.parametrize("kind", ["WKB", "big-endian WKB", "WKT"])
def test_footprints_that_are_not_finite_are_null(kind: str) -> None:
    """A NaN in a footprint would end the process inside the functions of SQL."""
    shapes = [
        shapely.box(0, 0, 1, 1),
        shapely.Polygon([(0, 0), (1, math.inf), (1, 1)]),
        shapely.Point(math.nan, 1),
        shapely.Polygon(),
        shapely.Point(0.5, 0.5),
        shapely.Point(-1.7976931348623157e308, 1),
    ]
    root = zarr.create_group(MemoryStore())
    meta = root.create_group("meta")
    if kind == "WKT":
        texts_of = ["POINT (nan 1)" if s.is_empty else shapely.to_wkt(s) for s in shapes]
        put(meta, "bbox", texts(texts_of))
    else:
        order = 0 if kind.startswith("big") else 1
        wkb = np.array([shapely.to_wkb(s, byte_order=order) for s in shapes], dtype=object)
        put(meta, "bbox", wkb, zarr.dtype.VariableLengthBytes())
    with pytest.warns(L2ViewWarning, match='"bbox" of idx 1, 2.*a NaN|NaN or infinite'):
        assert l2view.search(root.store, bbox=(0, 0, 2, 2))["idx"].to_pylist() == [0, 4]


@st.composite
def polygons(draw: st.DrawFn) -> shapely.Geometry:
    """A polygon anywhere on the map, or across one of its edges."""
    x, y = draw(st.integers(-400, 400)), draw(st.integers(-70, 70))
    angles = sorted(draw(st.sets(st.integers(0, 35), min_size=3, max_size=9)))
    reach = draw(st.integers(1, 19))
    turns = np.radians(np.array(angles) * 10)
    outline = shapely.Polygon(np.c_[x + reach * np.cos(turns), y + reach * np.sin(turns)])
    corners = shapely.MultiPoint(outline.exterior.coords)
    along = shapely.MultiLineString([[(x, y), (x + 9, y)], [(x + 20, y), (x + 20, y + 9)]])
    mixed = shapely.GeometryCollection([shapely.Point(x + 50, y), outline])
    kinds = [outline, outline.exterior, shapely.Point(x, y), corners, along, mixed]
    return draw(st.sampled_from(kinds))


@pytest.fixture(scope="module", params=["WKB", "WKT"])
def tiles(request: pytest.FixtureRequest) -> l2view.Collection:
    root = zarr.create_group(MemoryStore())
    meta = root.create_group("meta")
    if request.param == "WKB":
        put_wkb(meta, "bbox", TILES)
    else:
        put(meta, "bbox", texts(shapely.to_wkt(TILES, rounding_precision=-1)))
    return l2view.Collection(root.store)


west, south = (edge.ravel() for edge in np.mgrid[-180:180:15, -90:90:15])
TILES = [*shapely.box(west, south, west + 12.5, south + 12.5), shapely.Point(0.5, 0.5)]


@given(shape=polygons())
@example(shape=shapely.Polygon([(180, 0), (179.98, 0.17), (179.94, 0.34)]))  # touches -180
def test_places_are_those_that_shapely_finds(
    tiles: l2view.Collection, shape: shapely.Geometry
) -> None:
    wanted = np.zeros(len(TILES), dtype=bool)
    for turn in range(-2, 3):
        moved = shapely.affinity.translate(shape, xoff=360 * turn)
        wanted |= shapely.intersects(moved, np.array(TILES))
    found = tiles.search(intersects=shape)["idx"].to_pylist()
    assert found == np.flatnonzero(wanted).tolist()


@pytest.mark.parametrize("sides", [(180, -180), (175, 180), (-180, -175), (-185, -180), (180, 185)])
def test_a_bbox_that_touches_the_antimeridian(sides: tuple[float, float]) -> None:
    root = zarr.create_group(MemoryStore())
    put_wkb(root.create_group("meta"), "bbox", shapely.box([170, -180, 0], 0, [180, -170, 9], 9))
    west, east = sides
    assert l2view.search(root.store, bbox=(west, 0, east, 5))["idx"].to_pylist() == [0, 1]
    if west < east:
        place = shapely.box(west, 0, east, 5)
        assert l2view.search(root.store, intersects=place)["idx"].to_pylist() == [0, 1]


@pytest.mark.parametrize("shape", ["POINT EMPTY", "POINT Z EMPTY", "CIRCULARSTRING(0 0,1 1,2 0)"])
def test_wkt_that_the_functions_of_sql_cannot_read(shape: str) -> None:
    root = zarr.create_group(MemoryStore())
    put(root.create_group("meta"), "bbox", texts([shapely.box(0, 0, 1, 1).wkt, shape]))
    with pytest.warns(L2ViewWarning, match="idx 1"):
        assert l2view.search(root.store, bbox=(0, 0, 1, 1))["idx"].to_pylist() == [0]


def test_curves_which_shapely_cannot_read() -> None:
    """They are named, and neither found nor drawn; the others are."""
    root = zarr.create_group(MemoryStore())
    curve = "CIRCULARSTRING(0 0,1 1,2 0)"
    put(root.create_group("meta"), "bbox", texts([shapely.box(0, 0, 1, 1).wkt, curve]))
    collection = l2view.Collection(root.store)
    assert "2 granules" in repr(collection)
    assert "<svg" in collection._repr_html_()
    triangle = shapely.Polygon([(-1, -1), (3, -1), (0, 5)])
    with pytest.warns(L2ViewWarning, match="idx 1"):
        assert collection.search(intersects=triangle)["idx"].to_pylist() == [0]
    assert read_geometries(collection.search()["bbox"])[1] is None


CORNER = st.integers(-3, 3)
RINGS = st.lists(st.tuples(CORNER, CORNER), min_size=3, max_size=5).map(shapely.LinearRing)
QUADS = st.permutations([(0, 0), (2, 0), (2, 1), (0, 1)]).map(shapely.LinearRing)
SHAPES = st.one_of(
    st.builds(shapely.Polygon, RINGS | QUADS),
    st.builds(shapely.box, CORNER, CORNER, CORNER, CORNER, ccw=st.booleans()),
    st.builds(shapely.Point, CORNER, CORNER),
    st.builds(
        lambda west, width: shapely.MultiPolygon([shapely.box(west, 0, west + width, 1)]),
        CORNER,
        st.integers(1, 3),
    ),
    st.none(),
)


@given(st.lists(SHAPES, min_size=1, max_size=12), st.integers(0, 3), st.sampled_from([0, 1]))
def test_rectangles_are_those_of_shapely(
    shapes: list[shapely.Geometry | None], skipped: int, order: int
) -> None:
    """Of two or more parts, or in big-endian, none is said to be one; that is only slower."""
    said = [None if shape is None else shapely.to_wkb(shape, byte_order=order) for shape in shapes]
    column = pa.array([b"x" * 93, *said, *said], pa.binary())[1 + skipped :]
    field = Field("bbox", "meta/bbox", {"shape": [1]}, pa.binary(), geometry="WKB")
    again = np.array([*shapes, *shapes], dtype=object)[skipped:]
    valid = shapely.is_valid(again) & (shapely.area(again) > 0)
    rectangles = valid & shapely.equals(again, shapely.envelope(again))
    alone = shapely.get_type_id(again) == shapely.GeometryType.POLYGON
    five = shapely.get_num_coordinates(again) == 5
    expected = rectangles & alone & five & (order == 1)
    assert are_rectangles(column, field).tolist() == expected.tolist()
    around = shapely.bounds(again)
    assert np.array_equal(bounds(column, field), around, equal_nan=True)
