"""Odd but real input: each comes out as its file says, or stands in the report by name."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
import pytest
import rasterio
import rasterio.transform
import shapely
import xarray as xr
import zarr
from builders import outline_of, write_swath

import l2view
from l2view.errors import IngestError, L2ViewWarning
from l2view.geolocation.cell_outlines import of_axes
from l2view.geolocation.footprint import of_bounds, on_the_globe
from l2view.ingest.entries import entries_of
from l2view.ingest.granule import Entry, Failure, Granule
from l2view.ingest.harvest.attributes import harvest_attributes, parse_time
from l2view.ingest.harvest.cmr import record_of
from l2view.ingest.harvest.stac import item_of
from l2view.ingest.options import ParseOptions
from l2view.ingest.parse import parse_granule
from l2view.ingest.pipeline import count_entries
from l2view.stores.trust import trust, trusted_prefixes

DEFAULTS = {"datetime": "2025-06-01", "bbox": shapely.to_wkb(shapely.box(0, 0, 1, 1))}


@pytest.mark.parametrize("storage", ["packed", "groups"])
def test_attributes_that_are_no_json(tmp_path: Path, storage: Any) -> None:
    values = {"missing_value": math.nan, "valid_range": [-math.inf, math.inf], "note": "Infinity"}
    for number in range(3):
        path = write_swath(tmp_path / f"s{number}.h5", number)
        with h5py.File(path, "a") as file:
            if number != 1:
                file["lat"].attrs.update(values)
            file.attrs["limit"] = math.nan if number else 1.0
            file.attrs["institution"] = np.bytes_("Météo".encode("latin-1"))
    report = l2view.ingest(tmp_path / "*.h5", tmp_path / "c", storage=storage)
    assert report.failed == []
    view = l2view.open(tmp_path / "c")
    attributes = dict(view["s0/lat"].attrs)
    if storage == "packed":
        assert math.isnan(attributes["missing_value"])
        assert attributes["valid_range"] == [-math.inf, math.inf]
        assert math.isnan(view["s1"].attrs["limit"])
    else:
        assert "missing_value" not in attributes
        assert attributes["valid_range"] == ["-Infinity", "Infinity"]
    assert attributes["note"] == "Infinity"
    assert "missing_value" not in view["s1/lat"].attrs
    assert view["s0"].attrs["limit"] == 1.0
    assert view["s2"].attrs["institution"] == "Météo"
    loaded = view.to_datatree()["s2"].to_dataset()
    assert np.isfinite(loaded["lat"].values).all()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"bbox": b"junk"}, "is no geometry"),
        ({"bbox": "POINT (1"}, "is no geometry"),
        ({"bbox": (1, 2, 3)}, "is no geometry"),
        ({"bbox": {"type": "Polygon"}}, "is no geometry"),
        ({"bbox": shapely.to_wkb(shapely.Polygon())}, "is empty"),
        ({"bbox": shapely.to_wkb(shapely.box(10, 50, 20, 95))}, "latitude beyond 90"),
        ({"id": None}, "its id is None"),
        ({"id": 7}, "its id is 7"),
        ({1: 2}, ""),
        ({"slot": 3}, "where l2view keeps"),
    ],
)
def test_harvesters_that_return_something_else(
    tmp_path: Path, said: dict[Any, Any], reason: str
) -> None:
    paths = [write_swath(tmp_path / f"s{number}.h5", number) for number in range(2)]

    def harvest(group: zarr.Group, url: str) -> dict[Any, Any]:
        return said if "s0" in url else {}

    report = l2view.ingest(paths, tmp_path / "c", harvest=harvest)
    assert report.added.ids == ["s1"]
    assert reason in report.failed[0].reason


def test_what_a_harvester_may_return(tmp_path: Path) -> None:
    path = write_swath(tmp_path / "s.h5", 1)
    fields = {"bbox": shapely.box(170, -5, 190, 5), "x": {1: 2, "b": [3]}, "odd": "caf\udce9"}
    assert l2view.ingest(path, tmp_path / "c", harvest=lambda *_: fields).failed == []
    row = l2view.search(tmp_path / "c", bbox=(-175, 0, -170, 1)).to_pylist()[0]
    assert shapely.from_wkb(row["bbox"]).geom_type == "MultiPolygon"
    assert json.loads(row["x"]) == {"1": 2, "b": [3]}
    assert row["odd"] == "café"


@pytest.mark.parametrize(
    ("key", "name"),
    [
        *[("..", ".._"), (".", "._"), ("zarr.json", "zarr.json_"), ("a//b", "a__b"), ("", "")],
        *[("other/sst", "other_sst"), ("other/", "other_"), ("\\", "_"), ("B04/10m", "B04/10m")],
    ],
)
def test_assets_with_names_that_zarr_lacks(tmp_path: Path, key: str, name: str) -> None:
    path = write_swath(tmp_path / "s.h5", 1)
    found = parse_granule(Entry("x", {"other": path.as_uri(), key: path.as_uri()}), ParseOptions())
    assert isinstance(found, Granule), found
    assert {"other/sst", f"{name}/sst".lstrip("/")} <= {a.path for a in found.references.arrays}
    assert (f"its asset {key!r} is called {name}" in found.notes) == (name != key)


@pytest.mark.parametrize("href", ["gone.h5", "text.h5", "https://h.example/get?id=1.h5", "//["])
def test_an_asset_that_cannot_be_read_costs_itself_alone(tmp_path: Path, href: str) -> None:
    path = write_swath(tmp_path / "s.h5", 1)
    (tmp_path / "text.h5").write_text("text")
    assets = {"bad": {"href": href}, "good": {"href": path.name}}
    item = {"type": "Feature", "id": "x", "properties": {}, "assets": assets}
    (tmp_path / "x.json").write_text(json.dumps(item))
    (tmp_path / "y.json").write_text(json.dumps(item | {"id": "y", "assets": {"b": assets["bad"]}}))
    report = l2view.ingest([tmp_path / "x.json", tmp_path / "y.json"], tmp_path / "c")
    assert (report.added.ids, [failure.id for failure in report.failed]) == (["x"], ["y"])
    assert [path for path, _ in report.omitted] == ["bad"]
    assert "without bad: 1 granules, x the first" in str(report)
    assert "sst" in l2view.open(tmp_path / "c")["x/good"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("S2A.nc", "S2A"),
        ("gfs.t00z.pgrb2.f003", "gfs.t00z.pgrb2.f003"),
        ("x.zarr.zip", "x"),
        ("y.nc.dmrpp", "y"),
        ("v2.0.NC4", "v2.0"),
        (".nc", ".nc"),
        ("20250601", "20250601"),
    ],
)
def test_ids_are_names_without_what_says_the_format(name: str, expected: str) -> None:
    assert Entry.of_file(f"s3://b/{name}").id == expected


def test_urls_with_queries(tmp_path: Path) -> None:
    found = parse_granule(Entry("x", {"": "https://host.example/get?file=one.nc"}), ParseOptions())
    assert isinstance(found, Failure)
    assert "its URL has a query" in found.reason
    asset = parse_granule(
        Entry("x", {"a": "https://me:secret@host.example/get?file=one"}), ParseOptions()
    )
    assert isinstance(asset, Failure)
    assert "secret" not in str(asset)
    (entry,) = entries_of("https://host.example/get?file=one.nc")
    assert isinstance(entry, Entry)
    assert "secret" not in str(Failure("x", "http://me:secret@host/none.nc", "gone"))


def test_references_from_afar_to_files_here(tmp_path: Path) -> None:
    """Whatever parser says so."""
    path = write_swath(tmp_path / "s.h5", 1)

    def parser(url: str, registry: Any) -> Any:
        from virtualizarr.parsers import HDFParser

        from l2view.ingest.files import store_registry

        return HDFParser()(path.as_uri(), store_registry(path.as_uri()))

    found = parse_granule(Entry("x", {"": "memory:///x.h5"}), ParseOptions(parser=parser))
    assert isinstance(found, Failure)


def test_zarr_chunks_that_the_parser_does_not_look_for(tmp_path: Path) -> None:
    root = zarr.create_group(tmp_path / "g.zarr")
    encoding = {"name": "v2", "separator": "."}
    odd = root.create_array("odd", shape=(4,), dtype="i4", chunk_key_encoding=encoding)
    odd[:] = [1, 2, 3, 4]
    root.create_array("plain", data=np.arange(3))
    root.create_array("empty", shape=(3,), dtype="i4", fill_value=5)
    report = l2view.ingest(tmp_path / "g.zarr", tmp_path / "c", defaults=DEFAULTS)
    assert list(report.omitted) == [
        ("odd", "its chunks have names that VirtualiZarr's parser doesn't look for")
    ]
    view = l2view.open(tmp_path / "c")
    assert sorted(view["g"].array_keys()) == ["empty", "plain"]
    assert view["g/empty"][...].tolist() == [5, 5, 5]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2020010112", "2020-01-01 12:00:00"),
        ("20200101123456", "2020-01-01 12:34:56"),
        ("2019-233T17:48:11Z", "2019-08-21 17:48:11"),
        ("2019-233T17:48:11.25Z", "2019-08-21 17:48:11.250000"),
        ("2019233", "2019-08-21 00:00:00"),
        ("20200101", "2020-01-01 00:00:00"),
        ("2020-01-01T12:00:00 UTC", "2020-01-01 12:00:00"),
        ("2020999", None),
        ("12345", None),
    ],
)
def test_times_of_older_files(text: str, expected: str | None) -> None:
    found = parse_time(text)
    assert (None if found is None else str(found)) == expected


def test_fields_have_one_kind_in_all_files() -> None:
    group = zarr.create_group({})
    group.attrs.update({"product_version": 2.0, "orbit_number": "07", "cycle_number": [3]})
    found = harvest_attributes(group)[0]
    assert found["product_version"] == "2.0"
    assert found["orbit"] == 7
    assert found["cycle"] == 3


def grid(lat: Any, lon: Any, names: Any = (None, None)) -> zarr.Group:
    group = zarr.create_group({})
    for name, values, dimension in (("lat", lat, names[0]), ("lon", lon, names[1])):
        values = np.asarray(values, dtype="f8")
        dimensions = [dimension] if dimension else None
        group.create_array(name, data=values, dimension_names=dimensions)
    return group


def test_places_that_are_said_in_odd_ways() -> None:
    across = of_axes(np.arange(0, 5.0), np.array([178.0, 179, -180, -179]))
    assert across is not None
    assert across.bounds == (-180, -0.5, 180, 4.5)
    assert across.area == pytest.approx(4 * 5)
    for names in ((None, None), ("phony_dim_0", "phony_dim_0")):
        for count in (50, 60):
            shape = outline_of(grid(np.arange(50) * 0.1, np.arange(count) * 0.1, names))
            assert shape is not None
            assert shape.area == pytest.approx(50 * count * 0.01)
    track = outline_of(grid(np.sin(np.arange(50) / 10), np.arange(50.0), ("x", "x")))
    assert track is not None
    assert track.area < 10
    with_time = np.broadcast_to(np.arange(4.0)[:, None], (1, 4, 3))
    swath = outline_of(grid(with_time, np.broadcast_to(np.arange(3.0), (1, 4, 3))))
    assert swath is not None
    assert swath.covers(shapely.box(0, 0, 2, 3))
    names = ("geospatiallonmin", "geospatiallatmin", "geospatiallonmax", "geospatiallatmax")
    line = of_bounds(dict(zip(names, (180, 0, 180, 1), strict=True)))
    assert line is None
    polar = [{"Longitude": lon, "Latitude": 70} for lon in (0, 90, 180, -90, 0)]
    shape = {"GPolygons": [{"Boundary": {"Points": polar}}]}
    record = {
        "GranuleUR": "x",
        "RelatedUrls": [
            {"Type": "GET DATA", "URL": f"https://host.example/HLS.x.{band}.tif"}
            for band in ("B01", "B02")
        ],
        "SpatialExtent": {"HorizontalSpatialDomain": {"Geometry": shape}},
    }
    _, assets, fields = record_of(record)
    assert shapely.from_wkb(fields["bbox"]).covers(shapely.Point(33, 85))
    assert sorted(assets) == ["B01", "B02"]
    assert on_the_globe(shapely.Point(10, 20)).area > 0
    assert on_the_globe(shapely.box(170, 0, 190, 1)).covers(shapely.box(-180, 0, -170, 1))


def test_rasters_in_degrees(tmp_path: Path) -> None:
    for name, west, count in (("far", 170, 32), ("globe", 0, 360)):
        place = rasterio.transform.from_origin(west, 10, 1, 1)
        with rasterio.open(
            tmp_path / f"{name}.tif",
            "w",
            driver="GTiff",
            height=8,
            width=count,
            count=1,
            dtype="uint8",
            crs="EPSG:4326",
            transform=place,
            blockysize=8,
        ) as file:
            file.write(np.ones((1, 8, count), "uint8"))
    defaults = {"datetime": "2025-06-01"}
    assert l2view.ingest(tmp_path / "*.tif", tmp_path / "c", defaults=defaults).failed == []
    far, globe = map(shapely.from_wkb, l2view.search(tmp_path / "c")["bbox"].to_pylist())
    expected = shapely.union(shapely.box(170, 2, 180, 10), shapely.box(-180, 2, -158, 10))
    assert shapely.equals(far, expected)
    assert shapely.equals(globe, shapely.box(-180, 2, 180, 10))


def test_assets_of_items_in_odd_places() -> None:
    item: dict[str, Any] = {
        "type": "Feature",
        "id": "x",
        "geometry": None,
        "bbox": [1, 2, 0, 3, 4, 9],
        "properties": {"datetime": "2025-06-01T00:00:00Z"},
        "links": [{"rel": "self", "href": "s3://bucket/items/i.json"}],
        "assets": {
            "a": {"href": "./red file.nc", "type": "application/netcdf"},
            "b": {"href": "../b.tif", "proj:shape": [5, 6], "proj:transform": [1, 0, 2, 0, -1, 3]},
            "c": {"href": "https://host.example/c", "roles": ["data"], "type": "application/x-odd"},
            "d": {"href": "d.bin"},
            "e": {"href": "e.png", "roles": ["thumbnail"]},
        },
    }
    entry = item_of(item)
    assets, fields = entry.assets, entry.fields
    assert assets["b"] == "s3://bucket/b.tif"
    assert assets["a"].startswith("s3://bucket/items/red")
    assert set(entry.omitted) == {"c", "d"}
    assert shapely.from_wkb(fields["bbox"]).bounds == (1, 2, 3, 4)
    only_b = item | {"assets": {"b": item["assets"]["b"]}}
    assert item_of(only_b).fields["transform_2"] == 2.0
    assert item_of(only_b).fields["shape_x"] == 6


@pytest.mark.parametrize(
    "text",
    ["[1, 2]", '{"features": null}', '{"features": [1]}', '{"items": [null]}', "3", '{"umm": 1}'],
)
def test_json_that_is_no_record(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    found = list(entries_of(tmp_path / "x.json"))
    assert found
    assert all(isinstance(one, Failure) for one in found)


def test_lines_of_records_are_read_one_by_one(tmp_path: Path) -> None:
    record = {
        "umm": {"GranuleUR": "g", "RelatedUrls": [{"Type": "GET DATA", "URL": "s3://b/x.nc"}]}
    }
    lines = [json.dumps(record), "{broken", "", json.dumps(record)]
    (tmp_path / "x.ndjson").write_text("\n".join(lines))
    found = list(entries_of(tmp_path / "x.ndjson"))
    assert [type(one) for one in found] == [Entry, Failure, Entry]
    (gone,) = entries_of(tmp_path / "gone.ndjson")
    assert isinstance(gone, Failure)
    (odd,) = entries_of("ftp://host.example/x.json")
    assert isinstance(odd, Failure)


def test_a_state_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import icechunk

    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nowhere")
    store = icechunk.local_filesystem_store("/data")
    container = icechunk.VirtualChunkContainer("file:///data/", store)
    storage = icechunk.local_filesystem_storage(str(tmp_path))
    with pytest.warns(L2ViewWarning, match="opening this collection will take authorize="):
        trust(storage, {"file:///data/": container})


def test_what_cannot_be_sent_to_processes(tmp_path: Path) -> None:
    path = write_swath(tmp_path / "s.h5", 1)
    with pytest.raises(IngestError, match="harvest= and parser= must pickle"):
        l2view.ingest(path, tmp_path / "c", parallel=2, harvest=lambda *_: {})
    script = tmp_path / "script.py"
    script.write_text(
        f"import l2view\nl2view.ingest({str(path)!r}, {str(tmp_path / 'd')!r}, parallel=2)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert 'must stand under if __name__ == "__main__"' in done.stderr


def test_fill_values_that_are_names() -> None:
    group = grid([[1.0, 2], [3, 4]], [[1.0, 2], [3, 4]])
    for name in ("lat", "lon"):
        group[name].attrs["_FillValue"] = "NaN"
    assert outline_of(group) is not None


def test_places_and_times_of_records() -> None:
    geometry = {
        "Lines": [{"Points": [{"Longitude": x, "Latitude": 10} for x in (179, -179)]}],
        "Points": [{"Longitude": 5, "Latitude": 6}],
    }
    record = {
        "GranuleUR": "x",
        "RelatedUrls": [{"Type": "GET DATA", "URL": "https://host.example/x.nc"}],
        "SpatialExtent": {"HorizontalSpatialDomain": {"Geometry": geometry}},
        "TemporalExtent": {"SingleDateTime": "soon"},
    }
    _, _, fields = record_of(record)
    outline = shapely.from_wkb(fields["bbox"])
    for x, y in ((179.5, 10), (-179.5, 10), (5, 6)):
        assert outline.covers(shapely.Point(x, y))
    assert not outline.intersects(shapely.box(-100, 9, 100, 11))
    assert fields["datetime"] == "soon"  # which is named where all fields are looked at


def test_a_bar_takes_nothing_from_an_iterator(tmp_path: Path) -> None:
    """Counting what can be gone through but once would lose it."""
    paths = [write_swath(tmp_path / f"s{number}.h5", number) for number in range(4)]
    assert count_entries([str(path) for path in paths]) == 4
    assert count_entries(tmp_path / "*.h5") == 4
    for granules in (iter(paths), [iter(paths)], [paths[0], iter(paths[1:])]):
        assert count_entries(granules) is None
    assert l2view.ingest([iter(paths)], tmp_path / "c", progress=True).added.count == 4


def test_a_dry_run_names_folders_with_odd_names(tmp_path: Path) -> None:
    for name in ("my files", "my other"):
        (tmp_path / name / "deep").mkdir(parents=True)
        write_swath(tmp_path / name / "deep" / f"{name}.h5", 1)
    dry = l2view.ingest(tmp_path, tmp_path / "c", dry_run=True)
    wet = l2view.ingest(tmp_path, tmp_path / "c")
    assert dry.containers == wet.containers == [f"file://{tmp_path}/"]


@pytest.mark.parametrize("text", ["[]", "3", '{"x": ["old"]}', "{"])
def test_a_list_of_containers_that_is_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    import icechunk

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "l2view").mkdir()
    (tmp_path / "l2view" / "containers.json").write_text(text)
    assert (
        trusted_prefixes(icechunk.local_filesystem_storage(str(tmp_path / "r")), {}) == frozenset()
    )


def test_cells_along_transposed_coordinates_have_none(tmp_path: Path) -> None:
    """Rather than those of other cells."""
    rows, columns = np.mgrid[:3, :2]
    with netCDF4.Dataset(tmp_path / "g.nc", "w") as file:
        file.createDimension("y", 3)
        file.createDimension("x", 2)
        for name, dims, values, units in (
            ("lat", ("y", "x"), 40.0 + rows, "degrees_north"),
            ("lon", ("y", "x"), 10.0 + columns, "degrees_east"),
            ("along", ("y", "x"), 100.0 * rows + columns, "1"),
            ("across", ("x", "y"), (100.0 * rows + columns).T, "1"),
        ):
            variable = file.createVariable(name, "f8", dims)
            variable[:] = values
            variable.units = units
    l2view.ingest(tmp_path / "g.nc", tmp_path / "c")
    view = l2view.open(tmp_path / "c")
    along = view.cells("along").to_table().to_pandas()
    assert (along["value"] == 100 * (along["lat"] - 40) + along["lon"] - 10).all()
    assert not {"lat", "lon"} & set(view.cells("across").schema.names)


def test_coordinates_that_are_texts_are_no_axes(tmp_path: Path) -> None:
    variables = {
        "red": (("y", "x"), np.zeros((9, 9))),
        "angles": (("band", "angle"), np.ones((2, 2))),
    }
    axes = {"x": np.arange(9) * 5e3 + 7e5, "y": 4.6e6 - np.arange(9) * 5e3}
    labels = {"band": ["b1", "b2"], "angle": ["zenith", "azimuth"]}
    xr.Dataset(variables, axes | labels, {"proj:code": "EPSG:32632"}).to_netcdf(tmp_path / "g.nc")
    report = l2view.ingest(tmp_path / "g.nc", tmp_path / "c")
    assert report.failed == []
    view = l2view.open(tmp_path / "c")
    shown: Any = view.sel(bbox=(11.4, 41.2, 11.6, 41.4), exact=True)["g"]
    assert shown["red"].shape != (9, 9)
    assert shown["angles"].shape == (2, 2)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((30, 30), (3, 3)), ((30, 30, 30), (30, 30, 30)), ((5, 30, 30), (5, 3, 3))],
)
def test_axes_of_one_length_are_not_taken_for_each_other(
    tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    with h5py.File(tmp_path / "g.h5", "w") as file:
        rows, columns = np.mgrid[:30, :30]
        file["lat"], file["lon"] = rows * 0.1, columns * 0.1
        file["red"] = np.broadcast_to(rows * 1000 + columns, shape)
    l2view.ingest(tmp_path / "g.h5", tmp_path / "c")
    view = l2view.open(tmp_path / "c").sel(bbox=(1, 2, 1.2, 2.2), exact=True)
    is_known = expected != shape
    with nullcontext() if is_known else pytest.warns(L2ViewWarning, match="red lies along lat"):
        shown: Any = view["g"]
        assert shown["red"].shape == expected
    assert shown["lat"].shape == expected[-2:]
    if is_known:
        values = shown["red"][...].reshape(-1, 3, 3)[0]
        np.testing.assert_array_equal(
            values, np.round(shown["lat"][...] * 10) * 1000 + np.round(shown["lon"][...] * 10)
        )
