"""What people look at: reprs, maps, plots."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pytest
import shapely
import zarr
from builders import put, put_wkb, texts
from zarr.storage import MemoryStore

import l2view
from l2view.display.summary import MAX_FOOTPRINTS, read_footprints
from l2view.display.svg import WORLD, map_box, map_svg, ocean
from l2view.errors import FieldError
from l2view.limits import override_limits

mpl.use("Agg")


class Tags(HTMLParser):
    """Fails on tags that don't close, and gathers the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag != "br":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def text_of(html: str) -> str:
    parser = Tags()
    parser.feed(html)
    assert not parser.open
    return parser.text


def test_repr_of_a_collection(v3_store: MemoryStore) -> None:
    assert repr(l2view.Collection(v3_store)).splitlines() == [
        "<l2view Collection of 20 granules>",
        "  store   memory",
        "  time    2025-06-01T10:00:00Z to 2025-06-20T10:00:00Z",
        "  fields  idx: int64",
        "          bbox: binary",
        "          cloud_cover: double",
        "          datetime: timestamp[us]",
        "          eo:cloud_cover: int16",
        "          group_path: string",
        "          id: string",
        "          orbit: int32",
        "          platform: string",
    ]


def test_repr_of_a_view(v3_store: MemoryStore) -> None:
    view = l2view.open(v3_store, "idx > 15", fields=["id", "datetime"], variables="red")
    assert repr(view).splitlines() == [
        "<l2view View of 4 granules>",
        "  collection  memory",
        "  query       where='idx > 15'",
        "  time        2025-06-17T10:00:00Z to 2025-06-20T10:00:00Z",
        "  fields      idx, id, datetime",
        "  variables   red",
        "  granules    S2A_016, S2A_017, S2A_018, …",
    ]
    asked = l2view.open(v3_store, ids=["S2A/001"], fields=[])
    assert "query       ids=['S2A/001']" in repr(asked)
    many = l2view.open(v3_store, ids=[f"S2A/{n:03d}" for n in range(4, 8)], fields=[])
    assert "query       ids=(4 ids)" in repr(many)
    assert "View of 1 granule>" in repr(asked)


def test_html(v3_store: MemoryStore) -> None:
    collection = l2view.Collection(v3_store)
    shown = text_of(collection._repr_html_())
    for words in ("Collection of 20 granules", "2025-06-20T10:00:00Z", "S2A/004", "timestamp[us]"):
        assert words in shown
    assert "NULL" in shown
    view = collection.open("platform = 'A' AND cloud_cover < 30")
    html = view._repr_html_()
    shown = text_of(html)
    for words in ("View of 2 granules", "platform = 'A' AND cloud_cover < 30", "S2A/002"):
        assert words in shown
    assert html.count("<svg") == 1
    assert "POLYGON" not in shown


def test_html_escapes_what_it_shows() -> None:
    root = zarr.create_group(MemoryStore())
    root.create_group("x")
    meta = root.create_group("meta")
    put(meta, "id", texts(["<script>alert(1)</script>"]))
    put(meta, "path", texts(["x"]))
    html = l2view.open(root.store, "id <> '<b>'")._repr_html_()
    assert "<script>" not in html
    assert "<b>" not in html
    assert "&lt;script&gt;" in html


def test_a_collection_without_place_and_time() -> None:
    root = zarr.create_group(MemoryStore())
    put(root.create_group("meta"), "n", np.arange(3))
    collection = l2view.Collection(root.store)
    assert "time" not in repr(collection)
    assert "<svg" not in collection._repr_html_()
    with pytest.raises(FieldError, match="a search by place looks at the field bbox or geometry"):
        collection.plot()


@override_limits(run_rows=100)
def test_large_collections_are_sampled() -> None:
    root = zarr.create_group(MemoryStore())
    meta = root.create_group("meta")
    count = 3 * MAX_FOOTPRINTS
    put_wkb(meta, "bbox", shapely.points(np.linspace(-170, 170, count), 0), chunks=(100,))
    html = l2view.Collection(root.store)._repr_html_()
    assert "300 of 1,200 footprints" in html
    table = l2view.search(root.store)
    assert len(read_footprints(table, 10)[0]) == 10


def svg_of(shapes: list[shapely.Geometry]) -> ElementTree.Element:
    return ElementTree.fromstring(map_svg(np.array(shapes), "Map"))


@pytest.mark.parametrize(
    "shape",
    [
        shapely.box(0, 0, 10, 10),
        shapely.Point(5, 5),
        shapely.LineString([(0, 0), (10, 10)]),
        shapely.MultiPolygon([shapely.box(170, 0, 180, 10), shapely.box(-180, 0, -170, 10)]),
        shapely.box(0, 0, 10, 10).difference(shapely.box(2, 2, 4, 4)),
        shapely.GeometryCollection([shapely.Point(0, 0), shapely.box(0, 0, 1, 1)]),
        shapely.box(-180, -90, 180, 90),
        shapely.box(-10, 80, 10, 90),
    ],
)
def test_maps_of_every_geometry(shape: shapely.Geometry) -> None:
    element = svg_of([shape])
    paths = [child for child in element if child.tag.endswith("path")]
    assert len(paths) == 2
    assert paths[1].attrib["d"].startswith("M")
    assert "nan" not in ElementTree.tostring(element, encoding="unicode")
    assert int(element.attrib["height"]) == 240


def test_map_boxes() -> None:
    assert map_box(np.array([])) == WORLD
    assert map_box(np.array([shapely.box(-170, -80, 170, 80)])) == WORLD
    west, south, east, north = map_box(np.array([shapely.Point(0, 0)]))
    assert (west, south, east, north) == (-6, -3, 6, 3)
    west, south, east, north = map_box(np.array([shapely.box(170, 85, 180, 90)]))
    assert east == 180
    assert north == 90
    assert east - west == pytest.approx(2 * (north - south))


def test_the_ocean_is_where_it_is() -> None:
    assert ocean().contains(shapely.Point(-30, 30))
    assert not ocean().contains(shapely.Point(10, 50))


def test_plots(v3_store: MemoryStore) -> None:
    collection = l2view.Collection(v3_store)
    axes = collection.plot()
    assert axes.get_title() == "20 footprints"
    view = collection.open("idx < 3")
    drawn = view.plot(facecolor="blue")
    water, outlines = drawn.collections
    assert len(outlines.get_paths()) == 3
    assert outlines.get_facecolor()[0][:3].tolist() == [0, 0, 1]
    assert water.get_zorder() < outlines.get_zorder()
    assert view.plot(ax=drawn) is drawn
    west, east = drawn.get_xlim()
    assert west < -150 < -110 < east
    assert collection.open("idx > 100").plot().get_title() == "0 footprints"
    with pytest.raises(FieldError, match="no geometry field"):
        collection.open(fields=["id"], ids=["S2A/001"]).plot()
    mpl.pyplot.close("all")


@pytest.mark.parametrize("name", ["cloud_cover", "datetime", "orbit", "platform", "id"])
def test_plots_by_a_field(v3_store: MemoryStore, name: str) -> None:
    collection = l2view.Collection(v3_store)
    axes = collection.plot(name, figsize=(4, 3))
    assert axes.figure.get_size_inches().tolist() == [4, 3]
    drawn = axes.collections[1]
    if name in ("platform", "id"):
        legend = axes.get_legend()
        assert legend.get_title().get_text() == name
        labels = [text.get_text() for text in legend.get_texts()]
        assert labels == (["A", "B"] if name == "platform" else [*labels[:8], "… (20 in all)"])
        assert len({tuple(color) for color in drawn.get_facecolor()}) == (
            2 if len(labels) < 3 else 8
        )
    else:
        assert len(drawn.get_array()) == 20
        assert axes.figure.axes[1].get_ylabel() == name
        axes.figure.canvas.draw()
        assert len({tuple(color) for color in drawn.get_facecolor()}) > 9
    with pytest.raises(FieldError, match="no field .platfrm.; did you mean .platform."):
        collection.plot("platfrm")
    with pytest.raises(FieldError, match="no field or variable .*did you mean .platform."):
        collection.open("idx < 2").plot("platfrm")
    mpl.pyplot.close("all")


@override_limits(drawn_outlines=10)
def test_a_plot_of_many_says_how_many(v3_store: MemoryStore) -> None:
    collection = l2view.Collection(v3_store)
    assert collection.plot().get_title() == "10 of 20 footprints"
    assert collection.open("idx <> 3").plot().get_title() == "10 of 19 footprints"
    mpl.pyplot.close("all")


def test_geometries_that_are_none_are_left_out() -> None:
    raw = [shapely.Point(1, 1).wkb, None, b"damaged", shapely.Polygon().wkb]
    metadata = {"ARROW:extension:name": "geoarrow.wkb"}
    schema = pa.schema([pa.field("g", pa.binary(), metadata=metadata)])
    assert len(read_footprints(pa.table([pa.array(raw, pa.binary())], schema=schema))[0]) == 1


def swaths() -> MemoryStore:
    """Three swaths of temperatures, the second across the antimeridian, the third a raster."""
    store = MemoryStore()
    root = zarr.create_group(store)
    for number, lon in enumerate((10.0, 175.0, 0.0)):
        group = root.create_group(f"g{number}")
        y, x = np.mgrid[:20, :12] * 1.0
        options: dict[str, Any] = {"dimension_names": ("y", "x")}
        attributes = {"units": "K", "long_name": "temperature", "scale_factor": 0.5}
        values = (y * 12 + x).astype("i2")
        group.create_array("sst", data=values, attributes=attributes, **options)
        if number < 2:
            east = (lon + x + 180) % 360 - 180
            group.create_array("lat", data=y, attributes={"units": "degrees_north"}, **options)
            group.create_array("lon", data=east, attributes={"units": "degrees_east"}, **options)
    put(root.create_group("meta"), "id", texts(["g0", "g1", "g2"]))
    return store


def test_quicklooks() -> None:
    """A panel a granule, with the colours of all of them."""
    view = l2view.open(swaths())
    axes = view.plot("sst", ncols=2, figsize=(6, 5))
    assert axes.shape == (2, 2)
    assert [ax.get_title() for ax in axes.flat] == ["g0", "g1", "g2", ""]
    mesh = axes[0, 0].collections[0]
    drawn = mesh.get_array()
    assert drawn.count() == 240
    assert float(drawn.max()) == 239 * 0.5
    assert len(axes[1, 0].images) == 1  # it says nothing of its place
    bar = axes[0, 0].figure.axes[-1]
    assert bar.get_ylabel() == "temperature [K]"
    west, east = axes[0, 1].get_xlim()
    west, east = west % 360, east % 360
    assert 174 < west < 176
    assert 186 < east < 188  # in one piece across the antimeridian
    view.plot("sst", ncols=1, limit=1)[0, 0].figure.canvas.draw()
    mpl.pyplot.close("all")


def test_swaths_on_one_map() -> None:
    view = l2view.open(swaths(), "id <> 'g2'")
    ax = view.plot("sst", cmap="magma")
    assert ax.get_title() == "sst of 2 granules"
    assert len(ax.collections) == 3  # two swaths and the sea
    assert ax.collections[0].get_cmap().name == "magma"
    assert view.plot("sst", ax) is ax
    # Coordinates needn't be variables of the view.
    joined = l2view.open(swaths(), layout="stack", variables="sst")
    assert joined.head(3).plot("sst").get_title() == "sst of 2 of 3 granules"
    with pytest.raises(l2view.L2ViewError, match="ncols= draws them without a map"):
        l2view.open(swaths(), "id = 'g2'").plot("sst")
    mpl.pyplot.close("all")


def test_what_cannot_be_drawn_is_named() -> None:
    view = l2view.open(swaths())
    with pytest.raises(FieldError, match='called|"sts"; did you mean "sst"'):
        view.plot("sts", ncols=2)
    with pytest.raises(FieldError, match="no field or variable"):
        l2view.open(swaths(), "id = 'none'").plot("sst")


def test_a_raster_is_drawn_where_its_transform_says() -> None:
    """By the names of Zarr's conventions, as it is cropped."""
    store = MemoryStore()
    root = zarr.create_group(store)
    said = {"spatial:transform": [1.0, 0.0, 10.0, 0.0, -1.0, 50.0], "proj:code": "EPSG:4326"}
    values = np.arange(12.0).reshape(3, 4)
    group = root.create_group("g", attributes=said)
    group.create_array("v", data=values, dimension_names=("y", "x"))
    put(root.create_group("meta"), "id", texts(["g"]))
    ax = l2view.open(store).plot("v")
    corners = ax.collections[0].get_coordinates()
    np.testing.assert_allclose(corners[0, 0], [10, 50], atol=0.02)
    np.testing.assert_allclose(corners[-1, -1], [14, 47], atol=0.02)
    mpl.pyplot.close("all")
