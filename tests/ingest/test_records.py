"""STAC Items and CMR records as granules."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
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
from pystac_client.stac_api_io import StacApiIO
from zarr_cm import multiscales

import l2view
from l2view.errors import IngestError
from l2view.ingest.entries import entries_of
from l2view.ingest.granule import Entry, Failure
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
