"""Granules of several files: Sentinels' folders, Landsat's scenes, and what a caller groups."""

from __future__ import annotations

import re
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import shapely
import xarray as xr
from command_line import run

import l2view
from l2view.errors import IngestError
from l2view.ingest.entries import entries_of
from l2view.ingest.granule import Failure, name_assets
from l2view.ingest.harvest.products import read_manifest

ROWS, COLUMNS = 12, 10
OLCI = "S3A_OL_2_WFR____20210604T0{0}1016_20210604T0{0}1316_20210604T021918_0179_072_273_1440_MAR"

SENTINEL3 = """<?xml version="1.0"?>
<xfdu:XFDU xmlns:xfdu="urn:ccsds:schema:xfdu:1" xmlns:s="http://www.esa.int/safe/sentinel/1.1"
  xmlns:gml="http://www.opengis.net/gml" xmlns:s3="http://www.esa.int/safe/sentinel/sentinel-3/1.0">
<s:acquisitionPeriod><s:startTime>2021-06-04T0{0}:10:15.867265Z</s:startTime>
<s:stopTime>2021-06-04T0{0}:13:15.867265Z</s:stopTime></s:acquisitionPeriod>
<s:platform><s:familyName>Sentinel-3</s:familyName><s:number>A</s:number>
<s:instrument><s:familyName abbreviation="OLCI">Colour</s:familyName></s:instrument></s:platform>
<gml:posList>40 {0}0 40 {0}1 41 {0}1 41 {0}0 40 {0}0</gml:posList>
<s3:productType>OL_2_WFR___</s3:productType><s3:cloudyPixels percentage="{0}7.0"/></xfdu:XFDU>"""


def write_netcdf(path: Path, **variables: np.ndarray) -> None:
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("rows", ROWS)
        file.createDimension("columns", COLUMNS)
        for name, values in variables.items():
            units = {"latitude": "degrees_north", "longitude": "degrees_east"}.get(name, "1")
            variable = file.createVariable(name, "f4", ("rows", "columns"))
            variable.units = units
            variable[:] = values


def cells(west: float) -> tuple[np.ndarray, np.ndarray]:
    lat, lon = np.meshgrid(np.linspace(40, 41, ROWS), np.linspace(west, west + 1, COLUMNS))
    return lat.T, lon.T


def write_olci(folder: Path, number: int, manifest: str = "xfdumanifest.xml") -> Path:
    product = folder / f"{OLCI.format(number)}.SEN3"
    product.mkdir(parents=True)
    lat, lon = cells(10.0 * number)
    write_netcdf(product / "Oa08_reflectance.nc", Oa08_reflectance=lat + number)
    write_netcdf(product / "chl_nn.nc", CHL_NN=lon)
    write_netcdf(product / "geo_coordinates.nc", latitude=lat, longitude=lon)
    (product / manifest).write_text(SENTINEL3.format(number))
    (product / "quicklook.jpg").write_bytes(b"\xff\xd8\xff")
    return product


@pytest.mark.parametrize("named", ["folder of products", "product", "glob", "manifest"])
def test_folders_of_sentinel_3_are_granules(tmp_path: Path, named: str) -> None:
    first, second = (write_olci(tmp_path / "in", number) for number in (1, 2))
    inputs = {
        "folder of products": tmp_path / "in",
        "product": [first, second],
        "glob": f"{tmp_path}/in/*.SEN3/*",
        "manifest": [first / "xfdumanifest.xml", second / "xfdumanifest.xml"],
    }
    report = l2view.ingest(inputs[named], tmp_path / "store")
    assert not report.failures
    rows = l2view.search(tmp_path / "store", order_by="id").to_pylist()
    assert [row["id"] for row in rows] == [first.stem, second.stem]
    assert rows[0]["profile"] == rows[1]["profile"]
    for number, row in enumerate(rows, 1):
        assert row["datetime"] == datetime(2021, 6, 4, number, 10, 15, 867265)
        assert row["end_datetime"] == datetime(2021, 6, 4, number, 13, 15, 867265)
        assert shapely.from_wkb(row["bbox"]).equals(
            shapely.box(10 * number, 40, 10 * number + 1, 41)
        )
        assert (row["cloud_cover"], row["platform"]) == (10 * number + 7, "Sentinel-3A")
        assert (row["instrument"], row["product_type"]) == ("OLCI", "OL_2_WFR___")
    view = l2view.open(tmp_path / "store", bbox=(20, 40, 21, 41))
    assert list(view.names) == [second.stem]
    tree = view.to_datatree()
    with xr.open_dataset(second / "Oa08_reflectance.nc") as original:
        shown = tree[f"{second.stem}/Oa08_reflectance"].to_dataset()
        xr.testing.assert_equal(shown.Oa08_reflectance.load(), original.Oa08_reflectance)
    assert "*.jpg" in str(report)


def test_a_crop_cuts_the_files_of_a_product_alike(tmp_path: Path) -> None:
    product = write_olci(tmp_path, 1)
    l2view.ingest(product, tmp_path / "store")
    crop = l2view.open(tmp_path / "store").sel(bbox=(10.5, 40, 11, 40.4), exact=True)
    lat, lon = cells(10)
    rows, columns = lat[:, 0] <= 40.5, lon[0] >= 10.4
    shapes = {
        array.shape
        for _, array in crop[product.stem].members(max_depth=None)
        if hasattr(array, "shape")
    }
    assert len(shapes) == 1
    ((height, width),) = shapes
    assert 0 < height <= rows.sum()
    assert 0 < width <= columns.sum()


def test_products_without_a_manifest_say_it(tmp_path: Path) -> None:
    product = write_olci(tmp_path / "in", 1, "other.txt")
    report = l2view.ingest(tmp_path / "in", tmp_path / "store")
    assert report.added.ids == [product.stem]
    assert "its manifest" in str(report)
    assert "no such file" in str(report)
    (row,) = l2view.search(tmp_path / "store").to_pylist()
    assert row["datetime"] == datetime(2021, 6, 4, 1, 10, 16)  # of the name
    assert shapely.from_wkb(row["bbox"]).contains(shapely.Point(10.5, 40.5))


def test_damaged_manifests_cost_what_they_say_alone(tmp_path: Path) -> None:
    product = write_olci(tmp_path / "in", 1)
    (product / "xfdumanifest.xml").write_text("<a><b>")
    report = l2view.ingest(tmp_path / "in", tmp_path / "store")
    assert report.added.ids == [product.stem]
    assert "xfdumanifest.xml: it can't be read" in str(report)


@pytest.mark.parametrize("bulk", [b"", b"<html><p>log in</p></html>", b"[" * 100_000, b"\0" * 99])
def test_manifests_that_say_nothing_are_named(tmp_path: Path, bulk: bytes) -> None:
    product = write_olci(tmp_path / "in", 1)
    (product / "xfdumanifest.xml").write_bytes(bulk)
    report = l2view.ingest(tmp_path / "in", tmp_path / "store")
    assert report.added.ids == [product.stem]
    assert "its manifest" in str(report)


def test_manifests_of_other_encodings_and_odd_numbers(tmp_path: Path) -> None:
    text = SENTINEL3.format(1).replace('1.0"?>', '1.0" encoding="UTF-16"?>', 1)
    text = text.replace("<s3:productType>", "<s:orbitNumber>n/a</s:orbitNumber><s3:productType>")
    fields, _ = read_manifest(text.encode("utf-16"))
    assert fields["cloud_cover"] == 17
    assert "orbit" not in fields


def test_files_of_products_in_any_order(tmp_path: Path) -> None:
    products = [write_olci(tmp_path / "in", number) for number in (1, 2)]
    names = ("chl_nn.nc", "geo_coordinates.nc", "Oa08_reflectance.nc")
    files = [product / name for name in names for product in products]
    report = l2view.ingest(files, tmp_path / "store")
    assert report.added.count == 2
    view = l2view.open(tmp_path / "store")
    for product in products:
        assert len(list(view[product.stem].group_keys())) == 3


def test_a_product_within_a_folder_of_its_name(tmp_path: Path) -> None:
    inner = write_olci(tmp_path / "in" / f"{OLCI.format(1)}.SEN3", 1)
    report = l2view.ingest(tmp_path / "in", tmp_path / "store")
    assert report.added.ids == [inner.stem]
    assert l2view.search(tmp_path / "store")["cloud_cover"].to_pylist() == [17]


@pytest.mark.parametrize(
    ("datatake", "polarizations"),
    [("049F13", ("vh", "vv")), ("0052FC", ("vh", "vv")), ("049F13", ("vv",))],
)
def test_sentinel_1_has_the_same_names_in_all_products(
    tmp_path: Path, datatake: str, polarizations: tuple[str, ...]
) -> None:
    stamp = "20210809T173953_20210809T174018_039156"
    product = tmp_path / f"S1A_IW_GRDH_1SDV_{stamp}_{datatake}_6FF8.SAFE"
    (product / "measurement").mkdir(parents=True)
    for number, name in enumerate(polarizations, 1):
        stem = f"s1a-iw-grd-{name}-{stamp}-{datatake}-{number:03}".lower().replace("_", "-")
        (product / "measurement" / f"{stem}.tiff").touch()
    (entry,) = entries_of(product)
    assert list(entry.assets) == [f"grd_{name}" for name in polarizations]


def test_images_in_jpeg_2000_are_named(tmp_path: Path) -> None:
    product = tmp_path / "in" / "S2A_MSIL2A_20251008T100041_N0511_R122_T32TQM_20251008T122613.SAFE"
    images = product / "GRANULE" / "L2A_T32TQM" / "IMG_DATA"
    images.mkdir(parents=True)
    (images / "T32TQM_20251008T100041_B02_10m.jp2").write_bytes(b"\x00\x00\x00\x0cjP  ")
    (product / "manifest.safe").write_text("<a/>")
    report = l2view.ingest(tmp_path / "in", tmp_path / "store")
    (failure,) = report.failed
    assert failure.id == product.stem
    assert "JPEG 2000" in failure.reason


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["VNP02MOD.A2020001.0006.002.2021120.nc", "VNP03MOD.A2020001.0006.002.2021121.nc"],
         ["VNP02MOD", "VNP03MOD"]),
        (["HLS.S30.T32TQM.2020001T10.v2.0.B02.tif", "HLS.S30.T32TQM.2020001T10.v2.0.Fmask.tif"],
         ["B02", "Fmask"]),
        (["s1a-iw-grd-vh-20200101t052000-20200101t052025-030600-0381a1-002.tiff",
          "s1a-iw-grd-vv-20200101t052000-20200101t052025-030600-0381a1-001.tiff"], ["vh", "vv"]),
        (["V2020001000600.L1B_GEO.nc", "V2020001000600.L2_SST.nc"], ["L1B_GEO", "L2_SST"]),
        (["a/data.nc", "b/data.nc"], ["data_0", "data_1"]),
        (["swath.nc", "swath_geo.nc"], ["swath", "swath_geo"]),
        (["alone.A2020001.nc"], [""]),
    ],
)  # fmt: skip
def test_files_are_named_without_what_differs_between_granules(
    files: list[str], names: list[str]
) -> None:
    assert list(name_assets([f"file:///in/{name}" for name in files])) == names


VIIRS = r"(VNP)0[23](MOD)\.(A\d{7}\.\d{4})"


def write_viirs(folder: Path) -> None:
    folder.mkdir()
    for number, stamp in enumerate(("0000", "0006"), 1):
        lat, lon = cells(10.0 * number)
        made = f"20211200{number}5"
        write_netcdf(folder / f"VNP02MOD.A2020001.{stamp}.002.{made}.nc", M05=lat)
        write_netcdf(
            folder / f"VNP03MOD.A2020001.{stamp}.002.{made}.nc", latitude=lat, longitude=lon
        )


@pytest.mark.parametrize("how", ["regex", "callable", "command"])
def test_callers_group_files(tmp_path: Path, how: str) -> None:
    write_viirs(tmp_path / "in")

    def granule_of(url: str) -> str | None:
        match = re.search(VIIRS, url)
        return match and "_".join(match.groups())

    if how == "command":
        run("ingest", str(tmp_path / "in"), "--store", str(tmp_path / "store"), "--group-by", VIIRS)
    else:
        grouping = VIIRS if how == "regex" else granule_of
        report = l2view.ingest(tmp_path / "in", tmp_path / "store", granule_of=grouping)
        assert not report.failures
    view = l2view.open(tmp_path / "store", bbox=(20, 40, 21, 41))
    assert list(view.names) == ["VNP_MOD_A2020001.0006"]
    assert sorted(view["VNP_MOD_A2020001.0006"].group_keys()) == ["VNP02MOD", "VNP03MOD"]
    profiles = l2view.search(tmp_path / "store")["profile"].to_pylist()
    assert len(profiles) == 2
    assert len(set(profiles)) == 1
    np.testing.assert_array_equal(
        view["VNP_MOD_A2020001.0006/VNP02MOD/M05"][:], cells(20)[0].astype("f4")
    )


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        (r"^(.*)_(?P<asset>red|nir)", ["nir", "red"]),
        (r"^(scene\d)_", ["nir", "red"]),
        (r"/in/(scene\d)_", ["nir", "red"]),
    ],
)
def test_patterns_name_the_files_of_a_granule(
    tmp_path: Path, pattern: str, names: list[str]
) -> None:
    (tmp_path / "in").mkdir()
    for band in ("red", "nir"):
        write_netcdf(tmp_path / "in" / f"scene1_{band}.nc", data=np.ones((ROWS, COLUMNS)))
    report = l2view.ingest(tmp_path / "in", tmp_path / "store", granule_of=pattern)
    assert report.added.ids == ["scene1"]
    assert sorted(l2view.open(tmp_path / "store")["scene1"].group_keys()) == names


def test_files_of_no_group_are_named(tmp_path: Path) -> None:
    write_viirs(tmp_path / "in")
    write_netcdf(tmp_path / "in" / "other.nc", data=np.ones((ROWS, COLUMNS)))

    def granule_of(url: str) -> str | None:
        if "other" in url:
            raise KeyError("other")
        return None if "0006" in url else "first"

    report = l2view.ingest(tmp_path / "in", tmp_path / "store", granule_of=granule_of)
    assert report.added.ids == ["first"]
    reasons = sorted(failure.reason for failure in report.failed)
    assert len(reasons) == 3
    assert "granule_of= (--group-by): KeyError" in reasons[0]
    assert "it names no granule of this file" in reasons[1]
    with pytest.raises(IngestError, match="no regular expression"):
        l2view.ingest(tmp_path / "in", tmp_path / "other", granule_of="(")


@pytest.mark.real
@pytest.mark.parametrize("manifest", ["MTL.json", "MTL.txt"])
def test_a_scene_of_landsat_is_a_granule(shared_data: Path, tmp_path: Path, manifest: str) -> None:
    name = "LC08_L2SP_005009_20150710_20200908_02_T2"
    originals = shared_data / "multi" / "landsat"
    (tmp_path / "in").mkdir()
    for scene in (name, name.replace("005009", "005010")):
        for file in originals.glob("*.TIF"):
            shutil.copy(file, tmp_path / "in" / file.name.replace(name, scene))
        text = (originals / f"{name}_{manifest}").read_text()
        (tmp_path / "in" / f"{scene}_{manifest}").write_text(text.replace(name, scene))
    (tmp_path / "in" / f"{name}_SR_stac.json").write_text("{}")
    report = l2view.ingest(tmp_path / "in", tmp_path / "store")
    assert not report.failures
    assert report.added.count == 2
    for pattern in ("*.TIF", "*MTL*", "*.json", "*"):
        ids = {entry.id for entry in entries_of(f"{tmp_path}/in/{pattern}")}
        assert name in ids, pattern
    first, second = l2view.search(tmp_path / "store", order_by="id").to_pylist()
    assert first["id"] == name
    assert first["profile"] == second["profile"]
    assert first["datetime"] == datetime(2015, 7, 10, 14, 34, 35, 978399)
    assert (first["cloud_cover"], first["platform"]) == (54.65, "LANDSAT_8")
    west, south, east, north = shapely.from_wkb(first["bbox"]).bounds
    assert np.allclose((west, south, east, north), (-43.2, 70.98, -34.95, 73.35), atol=0.01)
    scene = xr.open_zarr(l2view.open(tmp_path / "store", ids=[name]).store, group=name)
    assert sorted(scene) == ["QA_PIXEL", "SR_B2", "SR_B3", "ST_B10"]
    stored = xr.open_zarr(
        l2view.open(tmp_path / "store", ids=[name]).store, group=name, mask_and_scale=False
    ).SR_B2.values
    expected = np.where(stored == 0, np.nan, stored * 2.75e-05 - 0.2)
    np.testing.assert_allclose(scene.SR_B2.values, expected, rtol=1e-6)
    assert scene.QA_PIXEL.dtype.kind == "u"


def test_bands_without_their_scenes_metadata_are_granules(tmp_path: Path) -> None:
    name = "LC08_L2SP_005009_20150710_20200908_02_T2_SR_B{}"
    for band in (4, 5):
        write_netcdf(tmp_path / f"{name.format(band)}.nc", data=np.ones((ROWS, COLUMNS)))
    ids = [entry.id for entry in entries_of(tmp_path)]
    assert sorted(ids) == [name.format(4), name.format(5)]


@pytest.mark.parametrize("answer", [(None, "a"), ("g", None), b"ab", "", 5, ("a", "b", "c")])
def test_answers_that_are_no_ids_cost_their_file(tmp_path: Path, answer: Any) -> None:
    write_netcdf(tmp_path / "x.nc", data=np.ones((ROWS, COLUMNS)))
    (failure,) = entries_of(tmp_path, lambda url: answer)
    assert isinstance(failure, Failure)
    assert "granule_of= (--group-by)" in failure.reason


def test_names_that_a_caller_gives_stay(tmp_path: Path) -> None:
    for day in ("A2025154", "A2025155"):
        for band in (412, 443):
            path = tmp_path / "in" / f"{day}.L3m.Rrs_{band}.nc"
            path.parent.mkdir(exist_ok=True)
            write_netcdf(path, data=np.ones((ROWS, COLUMNS)))
    entries = list(entries_of(tmp_path / "in", r"(A\d{7})\.L3m\.(?P<asset>Rrs_\d+)"))
    assert [list(entry.assets) for entry in entries] == [["Rrs_412", "Rrs_443"]] * 2


def test_grouped_files_are_known_again_in_any_order(tmp_path: Path) -> None:
    write_viirs(tmp_path / "in")
    files = sorted((tmp_path / "in").iterdir())
    first = l2view.ingest(files, tmp_path / "store", granule_of=VIIRS)
    again = l2view.ingest(files[::-1], tmp_path / "store", granule_of=VIIRS)
    assert (first.added.count, again.skipped.count, again.failures) == (2, 2, 0)
