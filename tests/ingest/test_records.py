"""STAC Items and CMR records as granules."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pystac_client
import pytest
import rasterio
import rustac
import shapely
import shapely.geometry
import xarray as xr
import zarr
from builders import write_swath
from pystac_client.stac_api_io import StacApiIO
from zarr_cm import multiscales

import l2view
from l2view.errors import IngestError
from l2view.ingest.entries import entries_of
from l2view.ingest.granule import Entry, Failure
from l2view.ingest.harvest.attributes import parse_time
from l2view.limits import override_limits


def only(granules: Any) -> Entry:
    (entry,) = entries_of(granules)
    assert isinstance(entry, Entry), entry
    return entry


@pytest.mark.parametrize("scene", ["014033", "015032", "030033"])
def test_landsat_items(shared_data: Path, scene: str) -> None:
    found = (shared_data / "stac").glob("LC80*.json")
    (path,) = (path for path in found if f"_{scene}_" in path.read_text())
    said = json.loads(path.read_text())
    entry = only(path)
    assert entry.id == said["id"]
    tiffs = {k: a["href"] for k, a in said["assets"].items() if "tiff" in a.get("type", "")}
    assert dict(entry.assets) == tiffs
    assert entry.fields["datetime"].isoformat() == said["properties"]["datetime"][:19]
    for name in ("eo:cloud_cover", "proj:epsg", "platform", "gsd"):
        assert entry.fields[name] == said["properties"][name]
    for index, value in enumerate(said["properties"]["proj:transform"][:6]):
        assert entry.fields[f"transform_{index}"] == value
    shape = said["properties"]["proj:shape"]
    assert [entry.fields["shape_y"], entry.fields["shape_x"]] == shape
    assert entry.fields["asset_thumbnail"] == said["assets"]["thumbnail"]["href"]
    outline = shapely.geometry.shape(said["geometry"])
    assert shapely.from_wkb(entry.fields["bbox"]).equals(outline)


def test_items_of_other_versions(shared_data: Path) -> None:
    code = only(shared_data / "stac" / "example-landsat8.json")
    assert code.fields["proj:epsg"] == 32614
    radar = only(shared_data / "stac" / "sentinel-1.json")
    assert list(radar.assets) == ["measurement"]
    assert radar.fields["start_datetime"] <= radar.fields["end_datetime"]
    (failure,) = entries_of(shared_data / "stac" / "eo-sentinel2-item.json")
    assert isinstance(failure, Failure)
    assert "has no asset with arrays" in failure.reason


def test_records_of_the_repository_of_metadata(shared_data: Path) -> None:
    modis, rain, laser = (
        only(shared_data / "cmr" / f"{name}_umm.json")
        for name in ("G1593453400-LAADS", "GPM_3IMERGHH", "atl03")
    )
    assert modis.id == "LAADS:4389864073"
    assert modis.url.endswith("MYD021KM.A2019051.0430.006.2019051235515.hdf")
    assert str(modis.fields["datetime"]) == "2019-02-20 04:30:00"
    assert str(modis.fields["end_datetime"]) == "2019-02-20 04:35:00"
    assert modis.fields["platform"] == "Aqua"
    outline = shapely.from_wkb(modis.fields["bbox"])
    assert outline.bounds == pytest.approx((-60.901471, 56.577721, 19.845911, 80.417613))
    assert shapely.from_wkb(rain.fields["bbox"]).equals(shapely.box(-180, -90, 180, 90))
    assert rain.fields["collection"] == "GPM_3IMERGHH"
    assert laser.fields["orbit"] == 22728
    assert "bbox" not in laser.fields  # only an orbit; its file says where


def item(path: Path, **assets: str) -> dict[str, Any]:
    said = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": path.stem,
        "geometry": shapely.geometry.mapping(shapely.box(5, 6, 7, 8)),
        "bbox": [5, 6, 7, 8],
        "properties": {"datetime": "2025-06-01T00:00:00Z", "eo:cloud_cover": 7},
        "links": [],
        "collection": "scenes",
        "assets": {
            key: {"href": href, "type": "image/tiff; application=geotiff", "roles": ["data"]}
            for key, href in assets.items()
        },
    }
    path.write_text(json.dumps(said))
    return said


def test_an_item_with_several_assets(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "l2" / "cog.tif"
    shutil.copy(source, tmp_path / "red.tif")
    with rasterio.open(source) as file:
        values = file.read(1)
        profile = {
            "driver": "GTiff",
            "height": 500,
            "width": 500,
            "count": 1,
            "dtype": "int16",
            "transform": file.transform,
            "tiled": True,
            "blockxsize": 256,
            "blockysize": 256,
        }
        with rasterio.open(tmp_path / "mask.tif", "w", **profile) as mask:
            mask.write(values > 0, 1)
    one = item(tmp_path / "one.json", red="red.tif", mask="./mask.tif")
    report = l2view.ingest(tmp_path / "one.json", tmp_path / "c")
    assert report.failed == []
    view = l2view.open(tmp_path / "c", '"eo:cloud_cover" < 10', bbox=(6, 7, 6.5, 7.5))
    assert view.names == ["one"]
    np.testing.assert_array_equal(view["one/red/0"][...], values)
    assert view["one/red/1"].shape == (250, 250)
    np.testing.assert_array_equal(view["one/mask"][...], values > 0)
    row = l2view.search(tmp_path / "c").to_pylist()[0]
    assert row["asset_mask"] == f"{tmp_path.as_uri()}/mask.tif"
    assert row["collection"] == "scenes"
    for key, name in (("red", "red.tif"), ("mask", "mask.tif")):
        one["assets"][key]["href"] = f"{tmp_path.as_uri()}/{name}"
    two, three = ({**one, "id": name} for name in ("two", "three"))
    lines = "\n".join(json.dumps(record) for record in (two, {"type": "Feature", "id": "bad"}))
    (tmp_path / "items.ndjson").write_text(lines + "\n")
    report = l2view.ingest(
        [tmp_path / "items.ndjson", {"type": "FeatureCollection", "features": [three]}],
        tmp_path / "c",
    )
    assert report.added.ids == ["two", "three"]
    assert [(one.id, one.reason) for one in report.failed] == [
        ("bad", "it is no STAC Item and no CMR record")
    ]


def test_what_speaks_stac(tmp_path: Path) -> None:
    said = item(tmp_path / "one.json", red="s3://bucket/red.tif")

    class Item:
        def to_dict(self) -> dict[str, Any]:
            return said

    class Search:
        def items_as_dicts(self) -> Any:
            yield said
            yield {**said, "id": "two"}

    assert only(Item()).assets == {"red": "s3://bucket/red.tif"}
    assert [entry.id for entry in entries_of(Search())] == ["one", "two"]
    assert only({**said, "geometry": None}).fields["bbox"] == shapely.to_wkb(
        shapely.box(5, 6, 7, 8)
    )
    crossing = only({**said, "geometry": None, "bbox": [170, 6, -170, 8]})
    assert shapely.from_wkb(crossing.fields["bbox"]).geom_type == "MultiPolygon"


def test_what_is_no_granule(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    (failure,) = entries_of(tmp_path / "broken.json")
    assert isinstance(failure, Failure)
    assert failure.reason.startswith("it can't be read: ")
    with pytest.raises(IngestError, match="or an iterable of them, not int"):
        list(entries_of(7))
    (umm,) = entries_of({"umm": {"GranuleUR": "x"}})
    assert isinstance(umm, Failure)
    assert umm.reason == "the record x names no file to get"


def test_objects_of_pystac(shared_data: Path) -> None:
    paths = sorted((shared_data / "stac").glob("LC80*.json"))
    items = [pystac.Item.from_file(str(path)) for path in paths]
    plain = [only(json.loads(path.read_text())) for path in paths]
    for entries in (
        list(entries_of(items)),
        list(entries_of(pystac.ItemCollection(items))),
        list(entries_of(iter(items))),
    ):
        assert [entry.id for entry in entries] == [entry.id for entry in plain]
        assert [entry.assets for entry in entries] == [entry.assets for entry in plain]
        for entry, other in zip(entries, plain, strict=True):
            # pystac brings an Item to the present version of STAC, where proj:code is.
            assert entry.fields["proj:code"] == f"EPSG:{other.fields['proj:epsg']}"
            said = {name: entry.fields[name] for name in other.fields if name != "href"}
            assert said == {name: v for name, v in other.fields.items() if name != "href"}


class Pages(StacApiIO):
    """An API that counts the pages it was asked for."""

    def __init__(self, items: list[dict[str, Any]]) -> None:
        super().__init__()
        self.items = items
        self.asked = 0

    def get_pages(self, *_: Any, **__: Any) -> Iterator[dict[str, Any]]:
        for start in range(0, len(self.items), 2):
            self.asked += 1
            yield {"type": "FeatureCollection", "features": self.items[start : start + 2]}


def test_a_search_is_read_page_by_page(tmp_path: Path) -> None:
    said = item(tmp_path / "one.json", red="s3://bucket/red.tif")
    pages = Pages([{**said, "id": str(number)} for number in range(10)])
    search = pystac_client.ItemSearch("https://api.example/search", stac_io=pages)
    entries = entries_of(search)
    first = next(entries)
    assert isinstance(first, Entry)
    assert (first.id, pages.asked) == ("0", 1)
    assert [entry.id for entry in entries] == [str(number) for number in range(1, 10)]
    assert pages.asked == 5


@override_limits(record_rows=2)
def test_stac_geoparquet(shared_data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    paths = sorted((shared_data / "stac").glob("LC80*.json"))
    items = [json.loads(path.read_text()) for path in paths]
    rustac.write_sync(str(tmp_path / "items.parquet"), items)
    entries = list(entries_of(tmp_path / "items.parquet"))
    assert [entry.id for entry in entries] == [one["id"] for one in items]
    for entry, path in zip(entries, paths, strict=True):
        assert isinstance(entry, Entry)
        plain = only(path)
        assert entry.assets == plain.assets
        same = set(plain.fields) - {"bbox", "collection", "href"}
        assert {name: entry.fields[name] for name in same} == {n: plain.fields[n] for n in same}
        shapes = (shapely.from_wkb(one.fields["bbox"]) for one in (entry, plain))
        assert shapely.equals(*shapes)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1PAR1PAR1")
    (failure,) = entries_of(tmp_path / "broken.parquet")
    assert isinstance(failure, Failure)
    assert failure.reason.startswith("it can't be read: ArrowInvalid")
    (failure,) = entries_of(tmp_path / "nothing.parquet")
    assert isinstance(failure, Failure)
    assert "there is no such file" in failure.reason


def test_results_of_earthaccess(shared_data: Path) -> None:
    """They are dictionaries with methods."""

    class DataGranule(dict[str, Any]):
        def data_links(self) -> list[str]:
            return []

    (record,) = json.loads((shared_data / "cmr" / "atl03_umm.json").read_text())["items"]
    plain = only(shared_data / "cmr" / "atl03_umm.json")
    assert only([DataGranule(record)]) == plain


@pytest.mark.parametrize(
    "broken",
    [
        {"SpatialExtent": {"HorizontalSpatialDomain": {"Geometry": {"GPolygons": [{"x": 1}]}}}},
        {"SpatialExtent": {"HorizontalSpatialDomain": {"Geometry": "everywhere"}}},
        {"SpatialExtent": None, "TemporalExtent": None, "CloudCover": "none"},
        {"TemporalExtent": [], "Platforms": [{}], "DataGranule": 1, "CollectionReference": "x"},
        {"TemporalExtent": {"RangeDateTime": {"BeginningDateTime": "soon"}}, "Platforms": "x"},
    ],
)
def test_what_a_record_says_wrongly_comes_from_its_file(
    broken: dict[str, Any], tmp_path: Path
) -> None:
    path = write_swath(tmp_path / "swath.h5", 1)
    record = {"GranuleUR": "x", "RelatedUrls": [{"URL": path.as_uri(), "Type": "GET DATA"}]}
    report = l2view.ingest([{**record, **broken}], tmp_path / "c")
    l2view.ingest(path, tmp_path / "plain")
    assert report.added.ids == ["x"]
    names = ["datetime", "bbox"]
    rows = l2view.search(tmp_path / "c", fields=names).select(names)
    assert rows.equals(l2view.search(tmp_path / "plain", fields=names).select(names))


def test_overviews_say_what_they_are_of(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "l2" / "cog.tif"
    defaults = {"datetime": "2016-01-01"}
    assert l2view.ingest(source, tmp_path / "c", defaults=defaults).failed == []
    attributes = l2view.open(tmp_path / "c")["cog"].attrs.asdict()
    assert multiscales.detect(attributes) is not None
    _, convention = multiscales.extract(attributes)
    with rasterio.open(source) as file:
        factors = [1, *file.overviews(1)]
    assert [level["asset"] for level in convention["layout"]] == [
        str(i) for i in range(len(factors))
    ]
    for factor, level in zip(factors[1:], convention["layout"][1:], strict=True):
        assert level["derived_from"] == "0"
        assert level["transform"]["scale"] == [factor, factor]
    scene = item(tmp_path / "one.json", red=str(source))
    l2view.ingest(scene, tmp_path / "d")
    view = l2view.open(tmp_path / "d")
    assert view["one/red"].attrs["multiscales"] == attributes["multiscales"]
    assert "multiscales" not in view["one"].attrs


def record(name: str, href: Path, key: str = "a", **changes: Any) -> dict[str, Any]:
    """Return an Item of one file over (3, 41, 4, 42), with changed members or properties."""
    members = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "geometry": shapely.geometry.mapping(shapely.box(3, 41, 4, 42)),
        "bbox": [3, 41, 4, 42],
        "links": [],
        "assets": {key: {"href": str(href), "type": "application/x-netcdf"}},
    }
    changed = {name: changes.pop(name) for name in members if name in changes}
    return {**members, **changed, "properties": {"datetime": "2025-01-01T00:00:00Z", **changes}}


def ring(*corners: tuple[float, float]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [[*corners, corners[0]]]}


RASTER = {"nodata": 0, "scale": 1e-4, "offset": -0.1}
NAMED = {"nodata": 0, "raster:scale": 1e-4, "raster:offset": -0.1}


@pytest.mark.parametrize(
    ("asset", "properties"),
    [
        ({"raster:bands": [RASTER]}, {}),
        ({"bands": [NAMED]}, {}),
        ({"bands": [{"name": "B04"}], **NAMED}, {}),
        ({"raster:bands": [{**RASTER, "offset": 0}]}, {}),
        ({"raster:bands": [RASTER]}, {"earthsearch:boa_offset_applied": True}),
    ],
)
def test_items_say_how_pixels_are_read(
    tmp_path: Path, asset: dict[str, Any], properties: dict[str, Any]
) -> None:
    """Two halves of a scene, of which one is of another encoding."""
    offset = 0 if properties or "'offset': 0" in str(asset) else -0.1
    profile: dict[str, Any] = {"driver": "GTiff", "count": 1, "height": 64, "width": 64}
    profile |= {"dtype": "uint16", "crs": "EPSG:32631", "tiled": True, "blockxsize": 32}
    profile |= {"transform": rasterio.Affine(10, 0, 5e5, 0, -10, 4.6e6), "blockysize": 32}
    items = []
    for name, pixel, cut in (("old", 2000, slice(32, 64)), ("new", 2000 - offset * 1e4, slice(32))):
        pixels = np.full((1, 64, 64), pixel, "uint16")
        pixels[..., cut] = 0
        with rasterio.open(tmp_path / f"{name}.tif", "w", **profile) as file:
            file.write(pixels)
        items.append(item(tmp_path / f"{name}.json", B04=f"{name}.tif"))
        packing = {"raster:bands": [{**RASTER, "offset": 0}]} if name == "old" else asset
        items[-1]["assets"]["B04"] |= {"href": str(tmp_path / f"{name}.tif"), **packing}
        items[-1]["properties"] |= {} if name == "old" else properties
    report = l2view.ingest(items, tmp_path / "c")
    assert (report.failed, report.notes) == ([], {})
    view = l2view.open(tmp_path / "c")
    opened = xr.open_zarr(view.store, group="new", consolidated=False)["B04"].to_numpy()
    np.testing.assert_allclose(np.unique(opened), [0.2, np.nan])
    mosaic = l2view.mosaic(view, crs="EPSG:32631", resolution=10, bands="B04")["B04"]
    np.testing.assert_allclose(mosaic, 0.2)


@pytest.mark.parametrize(
    ("bands", "note"),
    [
        ([RASTER, {**RASTER, "scale": 1}], "0 isn't decoded: its bands differ in scale_factor"),
        ([{"scale": "a tenth"}], "isn't decoded by scale_factor='a tenth'"),
        ([{"scale": [1], "nodata": {}, "offset": None}, 5], "isn't decoded by scale_factor="),
        ("none", ""),
        ([{"scale": 1, "offset": 0}], ""),
        ([{"nodata": -9999}], ""),
    ],
)
def test_packings_of_items_that_no_array_can_have(
    shared_data: Path, tmp_path: Path, bands: Any, note: str
) -> None:
    source = shared_data / "l2" / "cog.tif"
    scene = item(tmp_path / "one.json", red=str(source))
    scene["assets"]["red"]["raster:bands"] = bands
    report = l2view.ingest(scene, tmp_path / "c")
    assert report.failed == []
    assert note in " ".join(report.notes)
    assert bool(note) == bool(report.notes)
    opened = xr.open_zarr(l2view.open(tmp_path / "c").store, group="one/red", consolidated=False)
    with rasterio.open(source) as file:
        expected = file.read(1, masked=True).astype(float).filled(np.nan)
    np.testing.assert_array_equal(opened["0"], expected)


def test_what_an_item_lacks_is_harvested(tmp_path: Path) -> None:
    path = write_swath(tmp_path / "s.h5", 1)
    l2view.ingest(path, tmp_path / "plain")
    (expected,) = l2view.search(tmp_path / "plain").to_pylist()
    items = [
        record("nowhere", path, geometry=None, bbox=None),
        record("never", path, datetime=None),
        record("broken", path, geometry={"type": "Polygon"}, bbox=[1, 2], datetime="soon"),
        record("beyond", path, geometry=None, bbox=[3, 41, 4, 95]),
    ]
    report = l2view.ingest(items, tmp_path / "c")
    assert report.failed == []
    notes = " ".join(report.notes)
    assert "is 'soon', which is no time" in notes
    assert '"bbox" is no geometry' in notes
    for row in l2view.search(tmp_path / "c").to_pylist():
        if row["id"] != "never":
            assert row["bbox"] == expected["bbox"]
        if row["id"] in ("never", "broken"):
            assert row["datetime"] == expected["datetime"]
        else:
            assert row["datetime"] == datetime(2025, 1, 1)
            assert row["end_datetime"] is None


def test_properties_and_keys_that_fields_lack(tmp_path: Path) -> None:
    path = write_swath(tmp_path / "s.h5", 1)
    properties = {"a/b": 1, "large": 2**63, "c/d": 2, "c_d": 3}
    report = l2view.ingest(record("x", path, "B04/10m", **properties), tmp_path / "c")
    assert report.failed == []
    (row,) = l2view.search(tmp_path / "c").to_pylist()
    assert {name: row[name] for name in ("a_b", "c_d")} == {"a_b": 1, "c_d": 3}
    assert row["asset_B04_10m"] == path.as_uri()
    assert "large" not in row
    notes = " ".join(report.notes)
    assert 'its field "a/b" is called "a_b"' in notes
    assert '"large" is 9223372036854775808, which needs more than 64 bits' in notes
    assert 'called "c/d", and there is "c_d"' in notes
    assert "sst" in l2view.open(tmp_path / "c")["x/B04/10m"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-01-01t00:00:00z", "2025-01-01 00:00:00"),
        ("2016-12-31T23:59:60Z", "2017-01-01 00:00:00"),
        ("2016-12-31T23:59:60.5Z", "2017-01-01 00:00:00.500000"),
        ("20161231T235960Z", "2017-01-01 00:00:00"),
        ("2017-01-01T05:29:60+05:30", "2017-01-01 00:00:00"),
        ("2016060", "2016-02-29 00:00:00"),
        ("14-apr-2017 10:27:29", "2017-04-14 10:27:29"),
    ],
)
def test_times_of_rfc_3339(text: str, expected: str) -> None:
    assert str(parse_time(text)) == expected


def test_places_on_the_edges_of_the_map(tmp_path: Path) -> None:
    path = write_swath(tmp_path / "s.h5", 1)
    west, east = 175, -175
    uncut = ring((west, 0), (east, 0), (east, 5), (west, 5))
    half_a_pixel = [-180.05, -90.05, 179.95, 90.05]
    globe = shapely.geometry.mapping(shapely.box(*half_a_pixel))
    inverted = ring((11.4, 42.4), (12.7, 42.3), (12.7, 41.4), (11.4, 41.4))
    items = {
        "uncut": (record("uncut", path, geometry=uncut, bbox=[west, 0, east, 5]), 50),
        "globe": (record("globe", path, geometry=globe, bbox=half_a_pixel), 360 * 180),
        "bbox": (record("bbox", path, geometry=None, bbox=half_a_pixel), 360 * 180),
        "inverted": (
            record("inverted", path, geometry=inverted, bbox=[12.7, 41.4, 11.4, 42.4]),
            shapely.geometry.shape(inverted).area,
        ),
        "heights": (record("heights", path, geometry=None, bbox=[3, 41, 0, 4, 42, 90]), 1),
    }
    report = l2view.ingest([one for one, _ in items.values()], tmp_path / "c")
    assert (report.failed, report.notes) == ([], {})
    for row in l2view.search(tmp_path / "c").to_pylist():
        assert shapely.from_wkb(row["bbox"]).area == pytest.approx(items[row["id"]][1])
    assert l2view.search(tmp_path / "c", bbox=(179, 1, -179, 2), ids=["uncut"]).num_rows == 1
    assert l2view.search(tmp_path / "c", bbox=(-1, 1, 1, 2), ids=["uncut"]).num_rows == 0


def test_items_of_pystac_on_this_machine(shared_data: Path, tmp_path: Path) -> None:
    shutil.copy(shared_data / "l2" / "cog.tif", tmp_path / "a red.tif")
    said = item(tmp_path / "one.json", red="./a red.tif")
    with rasterio.open(tmp_path / "a red.tif") as file:
        expected = file.read(1)
    for name in ("relative", "absolute"):
        one = pystac.Item.from_file(str(tmp_path / "one.json"))
        one.id = name
        if name == "absolute":
            one.make_asset_hrefs_absolute()
        assert l2view.ingest(one, tmp_path / "c").failed == []
        view = l2view.open(tmp_path / "c", ids=[name])
        np.testing.assert_array_equal(view[f"{name}/red/0"][...], expected)
    assert said["id"] == "one"


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_assets_that_are_arrays(tmp_path: Path, zarr_format: Any) -> None:
    values = np.arange(20, dtype="i2").reshape(4, 5)
    root = zarr.create_group(tmp_path / "s.zarr", zarr_format=zarr_format)
    array = root.create_array("r10m/b02", shape=(4, 5), chunks=(2, 5), dtype="i2", fill_value=-1)
    array[:2] = values[:2]
    scene = record("scene", tmp_path, geometry=None)
    scene["assets"] = {
        key: {"href": str(tmp_path / "s.zarr" / path), "type": "application/vnd+zarr"}
        for key, path in (("blue", "r10m/b02"), ("all", "r10m"))
    }
    alone = tmp_path / "s.zarr" / "r10m" / "b02"
    assert l2view.ingest([scene, alone], tmp_path / "c").failed == []
    view = l2view.open(tmp_path / "c")
    for path in ("scene/blue", "scene/all/b02", "b02/b02"):
        np.testing.assert_array_equal(view[path][...], root["r10m/b02"][...])
        assert view[path].attrs.get("_FillValue") == (-1 if zarr_format == 2 else None)


def test_eopf_products_are_read_as_items(shared_data: Path, tmp_path: Path) -> None:
    (path,) = (shared_data / "multi").glob("S2A*.zarr")
    assert l2view.ingest(path, tmp_path / "c").failed == []
    (row,) = l2view.search(tmp_path / "c").to_pylist()
    discovery = json.loads((path / ".zattrs").read_text())["stac_discovery"]
    assert discovery["bbox"][0] > discovery["bbox"][2]  # which is no crossing of the antimeridian
    expected = pystac.Item.from_dict(discovery, migrate=False)
    assert shapely.from_wkb(row["bbox"]).equals(shapely.geometry.shape(expected.geometry))
    start = expected.common_metadata.start_datetime
    assert start is not None
    assert row["datetime"] == start.replace(tzinfo=None)
    for name in ("eo:cloud_cover", "platform", "sat:relative_orbit"):
        assert row[name] == expected.properties[name]
    assert row["id"] == path.stem


@pytest.mark.parametrize(
    ("granule", "reason"),
    [
        ("", "has no path"),
        ("file://", "has no path"),
        ("s3://", "has no path"),
        ("none/*.nc", "names no file"),
        ("none/[z-a].nc", "bad character range"),
        ("no\udc80ne/*.nc", "names no file"),
        ("http://me:s3cret@[none", "http://… names no file"),
        (b"none.nc", "not bytes"),
        (3, "not int"),
        (None, "not NoneType"),
    ],
)
def test_what_names_no_granule_costs_itself_alone(granule: Any, reason: str) -> None:
    before, failure, after = entries_of(["a.nc", granule, "b.nc"])
    assert isinstance(before, Entry)
    assert isinstance(after, Entry)
    assert isinstance(failure, Failure)
    assert reason in failure.reason
    str(failure).encode()
    assert "s3cret" not in str(failure)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "zarr.json", ".zattrs", "a\\b", "a\0b", "a\udc80", "idx", "__x"]
)
def test_a_name_that_no_field_can_have_costs_the_field(tmp_path: Path, name: str) -> None:
    path = write_swath(tmp_path / "s.h5", 1)
    report = l2view.ingest(
        [path], tmp_path / "c", harvest=lambda *_: {name: 1, "good": 2}, defaults={}
    )
    assert report.failed == []
    assert any("a field can't be called" in note for note in report.notes)
    collection = l2view.Collection(tmp_path / "c")
    assert collection.search()["good"].to_pylist() == [2]
    assert name not in set(collection.schema.names) - {"idx"}
