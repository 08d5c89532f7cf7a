"""Profiles, radars, radar images in HDF5, grids and GeoTIFFs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyproj
from products.catalogue import (
    COLUMNS,
    COUNTS,
    DATA,
    DAY,
    END,
    LAT,
    LON,
    NADIR,
    PRODUCTS,
    ROWS,
    START,
    TRACK,
    Box,
    degrees,
    product,
    seconds,
)
from products.writers import V, hdf5, netcdf, tiff
from rasterio.transform import from_origin


@product(
    "Argo profiles",
    "2",
    "netCDF-3",
    "R1900001_001.nc",
    place=(10.0, 40.0, 10.2, 40.2),
    time=(START, END),
    apart=0.2,
)
def argo(path: Path) -> None:
    days = [(t - datetime(1950, 1, 1)).total_seconds() / 86400 for t in (START, END)]
    netcdf(
        path,
        {"JULD": V("N_PROF", np.array(days), {"units": "days since 1950-01-01 00:00:00 UTC", "standard_name": "time", "_FillValue": 999999.0}),
         "LATITUDE": V("N_PROF", np.array([40.0, 40.2]), {"units": "degree_north", "_FillValue": 99999.0}),
         "LONGITUDE": V("N_PROF", np.array([10.0, 10.2]), {"units": "degree_east", "_FillValue": 99999.0}),
         "PLATFORM_NUMBER": V("N_PROF STRING8", np.array([list("1900001 ")] * 2, "S1"), {"_FillValue": b" "}),
         "REFERENCE_DATE_TIME": V("DATE_TIME", np.array(list("19500101000000"), "S1")),
         "PRES": V("N_PROF N_LEVELS", np.ones((2, 50), "f4"), {"_FillValue": np.float32(99999)})},
        {"Conventions": "Argo-3.1 CF-1.6", "featureType": "trajectoryProfile"}, model="NETCDF3_CLASSIC",
    )  # fmt: skip


@product(
    "Radar volume (CfRadial)",
    "1",
    "netCDF-4",
    "cfrad.20200102_030405_to_20200102_030905_XSAPR_PPI.nc",
    place=(10.0, 40.0, 10.0, 40.0),
    note="the place is the radar's, not its range",
)
def cfradial(path: Path) -> None:
    def text(value: str) -> V:
        return V("string_length_32", np.array(list(value.ljust(32, "\0")), "S1"))

    netcdf(
        path,
        {"latitude": V("", 40.0, {"units": "degrees_north"}), "longitude": V("", 10.0, {"units": "degrees_east"}),
         "altitude": V("", 100.0, {"units": "meters"}),
         "time_coverage_start": text("2020-01-02T03:04:05Z"), "time_coverage_end": text("2020-01-02T03:09:05Z"),
         "time": V("time", seconds(START), {"units": "seconds since 2020-01-02T03:04:05Z", "standard_name": "time"}),
         "range": V("range", np.arange(50, dtype="f4"), {"units": "meters"}),
         "azimuth": V("time", NADIR[0], {"units": "degrees"}),
         "DBZ": V("time range", np.zeros((ROWS, 50), "i2"), {"scale_factor": np.float32(0.01), "_FillValue": np.int16(-32768),
                                                             "coordinates": "elevation azimuth range"})},
        {"Conventions": "CF/Radial instrument_parameters", "instrument_name": "XSAPR"}, unlimited="time",
    )  # fmt: skip


@product(
    "NISAR L2 GCOV",
    "2",
    "HDF5",
    "NISAR_L2_PR_GCOV_001_005_A_219_2020_SHNA_A_20200102T030405_20200102T030905_P01101_F_N_J_001.h5",
    place=(11.58, 37.63, 11.82, 37.91),
    apart=0.05,
)
def nisar(path: Path) -> None:
    base = "science/LSAR/GCOV/grids/frequencyA"
    x, y = 200000 + 1000.0 * np.arange(COLUMNS), 4200000 - 1000.0 * np.arange(ROWS)
    complex_ = (DATA + 1j).astype("c8")
    hdf5(
        path,
        {f"{base}/xCoordinates": V("xCoordinates", x, {"units": "meters", "standard_name": "projection_x_coordinate"}),
         f"{base}/yCoordinates": V("yCoordinates", y, {"units": "meters", "standard_name": "projection_y_coordinate"}),
         f"{base}/projection": V("", np.uint32(32633), {"epsg_code": np.int64(32633), "grid_mapping_name": "universal_transverse_mercator",
             "utm_zone_number": np.int64(33), "semi_major_axis": 6378137.0, "inverse_flattening": 298.257223563,
             "ellipsoid": "WGS84", "longitude_of_central_meridian": 15.0, "latitude_of_projection_origin": 0.0,
             "false_easting": 500000.0, "false_northing": 0.0, "scale_factor_at_central_meridian": 0.9996}),
         f"{base}/HHHH": V("yCoordinates xCoordinates", DATA, {"grid_mapping": "projection", "_FillValue": np.float32("nan")}),
         f"{base}/HHHV": V("yCoordinates xCoordinates", complex_, {"grid_mapping": "projection"}),
         f"{base}/listOfPolarizations": V("", np.array([b"HH", b"HV"])),
         "science/LSAR/identification/zeroDopplerStartTime": V("", np.bytes_("2020-01-02T03:04:05.000000000")),
         "science/LSAR/identification/zeroDopplerEndTime": V("", np.bytes_("2020-01-02T03:09:05.000000000")),
         "science/LSAR/identification/boundingPolygon": V("", np.bytes_("POLYGON ((11.5 37.5, 12.5 37.5, 12.5 38.2, 11.5 38.2, 11.5 37.5))")),
         "science/LSAR/identification/trackNumber": V("", np.uint32(5))},
        {"": {"title": "NISAR L2 GCOV Product", "Conventions": "CF-1.7", "mission_name": "NISAR"}},
    )  # fmt: skip
    with h5py.File(path, "a") as file:
        for number, name in enumerate(("yCoordinates", "xCoordinates")):
            scale = file[f"{base}/{name}"]
            scale.make_scale(name)
            for data in ("HHHH", "HHHV"):
                file[f"{base}/{data}"].dims[number].attach_scale(scale)


@product(
    "OISST daily, time without limit",
    "4",
    "netCDF-4",
    "oisst-avhrr-v02r01.20200102.nc",
    place=(10.125, 40.125, 14.875, 47.375),
    time=(datetime(2020, 1, 2, 12), datetime(2020, 1, 2, 12)),
    apart=0.3,
)
def oisst(path: Path) -> None:
    lat, lon = (
        40.125 + 0.25 * np.arange(ROWS, dtype="f4"),
        10.125 + 0.25 * np.arange(COLUMNS, dtype="f4"),
    )
    netcdf(
        path,
        {"time": V("time", np.array([15341.0], "f4"), {"units": "days since 1978-01-01 12:00:00"}),
         "zlev": V("zlev", np.array([0], "f4"), {"units": "meters"}),
         "lat": V("lat", lat, {"units": "degrees_north"}), "lon": V("lon", lon, {"units": "degrees_east"}),
         "sst": V("time zlev lat lon", COUNTS.astype("i2")[None, None], {
             "scale_factor": np.float32(0.01), "add_offset": np.float32(0), "_FillValue": np.int16(-999)})},
        unlimited="time",
    )  # fmt: skip


UTM_X, UTM_Y = 300000.0, 4500000.0


def utm_place(width: int, height: int, size: float) -> Box:
    to = pyproj.Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    return to.transform_bounds(UTM_X, UTM_Y - height * size, UTM_X + width * size, UTM_Y)


def scene(size: float, dtype: str, count: int = 1, **options: Any) -> Callable[[Path], None]:
    """Return a writer of a scene in UTM."""

    def write(path: Path) -> None:
        values = (np.arange(count * 128 * 128) % 250).reshape(count, 128, 128).astype(dtype)
        tiff(path, values, crs="EPSG:32633", transform=from_origin(UTM_X, UTM_Y, size, size), **options)  # fmt: skip

    return write


COG = {
    "tiled": True,
    "blockxsize": 64,
    "blockysize": 64,
    "compress": "deflate",
    "overviews": (2, 4),
}
product("Landsat C2 L2SP", "2", "COG", "LC08_L2SP_190031_20200102_20200823_02_T1_SR_B4.TIF",
        place=utm_place(128, 128, 30), time=(DAY, None), apart=0.01)(scene(30, "u2", nodata=0, predictor=2, **COG))  # fmt: skip
product("Sentinel-2 L2A", "2", "COG", "S2A_33TUM_20200102_0_L2A_B04.tif", place=utm_place(128, 128, 10),
        time=(DAY, None), apart=0.01)(scene(10, "u2", nodata=0, **COG))  # fmt: skip
product("HLS L30", "2", "COG", "HLS.L30.T33TUM.2020002T030405.v2.0.B04.tif", place=utm_place(128, 128, 30),
        time=(START, None), apart=0.01)(scene(30, "i2", nodata=-9999, **COG))  # fmt: skip
product("PlanetScope analytic", "3", "GeoTIFF", "20200102_030405_1032_3B_AnalyticMS_SR.tif",
        place=utm_place(128, 128, 3), time=(START, None), apart=0.01)(scene(3, "u2", 4, nodata=0, compress="lzw", interleave="pixel"))  # fmt: skip
product("ECOSTRESS L2T LSTE tile", "2", "COG", "ECOv002_L2T_LSTE_08595_011_33TUM_20200102T030405_0713_01_LST.tif",
        place=utm_place(128, 128, 70), time=(START, None), apart=0.02)(scene(70, "f4", nodata=float("nan"), **COG))  # fmt: skip


@product(
    "WorldPop",
    "4",
    "GeoTIFF",
    "ita_ppp_2020.tif",
    place=(10.0, 38.0, 14.0, 40.0),
    time=(None, None),
    apart=0.01,
)
def worldpop(path: Path) -> None:
    values = np.where(np.arange(800) % 7, np.arange(800.0), -99999).astype("f4")
    tiff(path, np.tile(values, (400, 1)), crs="EPSG:4326", nodata=-99999.0, compress="lzw", BIGTIFF="YES",
         transform=from_origin(10, 40, 0.005, 0.005))  # fmt: skip


@product("COSMIC atmPrf", "2", "netCDF-3", "atmPrf_C001.2020.002.03.04.G05_2013.3520_nc", place=(10.42, 40.1, 11.0, 43.0),
         time=(DAY, None))  # fmt: skip
def cosmic(path: Path) -> None:
    fill = {"_FillValue": np.float32(-999)}
    netcdf(
        path,
        degrees("Lat Lon", "MSL_alt", *NADIR, "deg deg", valid_range=np.array([-180, 180], "f4"), **fill)
        | {"MSL_alt": V("MSL_alt", np.linspace(0, 60, ROWS, dtype="f4"), {"units": "km"}),
           "Temp": V("MSL_alt", NADIR[0], {"units": "C", **fill})},
        {"year": np.int32(2020), "month": np.int32(1), "day": np.int32(2), "hour": np.int32(3),
         "minute": np.int32(4), "second": 5.0, "lat": 41.5, "lon": 10.7},
        model="NETCDF3_CLASSIC",
    )  # fmt: skip


PRODUCTS[-1] = PRODUCTS[-1]._replace(time=(START, None))


@product("ACE-FTS", "2", "netCDF-4", "ACEFTS_L2_v4p1_O3.nc", place=TRACK, time=(START, END))
def ace(path: Path) -> None:
    def part(values: Any) -> V:
        return V("index", np.asarray(values, "i4"))

    hours = 3 + (4 + np.linspace(0, 5, ROWS)) / 60 + 5 / 3600
    netcdf(
        path,
        degrees("latitude longitude", "index", *NADIR)
        | {"year": part([2020] * ROWS), "month": part([1] * ROWS), "day": part([2] * ROWS),
           "hour": V("index", hours), "O3": V("index altitude", np.zeros((ROWS, 15), "f4"))},
        {"platform": "SCISAT-1"},
    )  # fmt: skip


PRODUCTS[-1] = PRODUCTS[-1]._replace(time=(None, None))


@product(
    "Weather radar (ODIM)",
    "2",
    "HDF5",
    "T_PAGZ42_C_LFPW_20200102030405.h5",
    place=(10.0, 40.0, 10.0, 40.0),
    time=(START, END),
)
def odim(path: Path) -> None:
    hdf5(
        path,
        {"dataset1/data1/data": V("", COUNTS.astype("u1"))},
        {"": {"Conventions": "ODIM_H5/V2_2"},
         "what": {"date": "20200102", "time": "030405", "object": "PVOL", "source": "NOD:frxxx"},
         "where": {"lat": 40.0, "lon": 10.0, "height": 100.0},
         "dataset1/what": {"startdate": "20200102", "starttime": "030405", "enddate": "20200102", "endtime": "030905"},
         "dataset1/where": {"elangle": 0.5, "nbins": np.int64(20), "nrays": np.int64(30), "rscale": 250.0},
         "dataset1/data1/what": {"gain": 0.5, "offset": -32.0, "nodata": 255.0, "quantity": "DBZH"}},
    )  # fmt: skip


@product(
    "PRISMA L2D",
    "2",
    "HDF5",
    "PRS_L2D_STD_20200102030405_20200102030905_0001.he5",
    time=(START, END),
)
def prisma(path: Path) -> None:
    base = "HDFEOS/SWATHS/PRS_L2D_HCO"
    hdf5(
        path,
        {f"{base}/Geolocation Fields/Latitude": V("", LAT), f"{base}/Geolocation Fields/Longitude": V("", LON),
         f"{base}/Data Fields/VNIR_Cube": V("", np.zeros((ROWS, 5, COLUMNS), "u2")),
         f"{base}/Data Fields/VNIR_PIXEL_SAT_ERR_MATRIX": V("", np.zeros((ROWS, 5, COLUMNS), "u1"))},
        {"": {"Product_StartTime": "2020-01-02T03:04:05.000000", "Product_StopTime": "2020-01-02T03:09:05.000000",
              "Processing_Level": "2D", "Epsg_Code": np.uint32(32633), "Processing_StartTime": "2021-01-02T03:04:05",
              "Processing_StopTime": "2021-01-02T03:09:05",
              "Product_center_lat": np.float32(41.5), "Product_center_long": np.float32(10.6)}},
    )  # fmt: skip
