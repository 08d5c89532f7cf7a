"""HDF5 and netCDF of JAXA, ISRO, CMA and NSOAS."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from products.catalogue import (
    COLUMNS,
    COUNTS,
    DATA,
    ISO,
    LAT,
    LON,
    NADIR,
    PRODUCTS,
    ROWS,
    START,
    TAI93,
    TRACK,
    degrees,
    product,
    seconds,
    swath_in,
)
from products.writers import V, fixed, hdf5, netcdf


def ones(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return fixed(attributes, (1,))


JAXA = {"": {"ObservationStartDateTime": ISO[0], "ObservationEndDateTime": ISO[1],
             "PlatformShortName": "GCOM-W1", "SensorShortName": "AMSR2", "OrbitNumber": "40123",
             "GranuleID": "GW1AM2_202001020304_123A_L2SGCLWLD2220220"}}  # fmt: skip

product("AMSR2 L2 CLW (JAXA)", "2", "HDF5", "GW1AM2_202001020304_123A_L2SGCLWLD2220220.h5")(
    lambda path: hdf5(
        path,
        {"Latitude of Observation Point": V("", LAT, {"UNIT": "deg"}),
         "Longitude of Observation Point": V("", LON, {"UNIT": "deg"}),
         "Geophysical Data": V("", COUNTS.astype("i2")[..., None], {"SCALE FACTOR": np.float32(0.001), "UNIT": "Kg/m2"}),
         "Pixel Data Quality": V("", COUNTS.astype("u1")), "Scan Time": V("", seconds(TAI93))},
        JAXA, form=ones,
    )
)  # fmt: skip
product("AMSR2 L1B (JAXA)", "1", "HDF5", "GW1AM2_202001020304_123A_L1SGBTBR_2220220.h5",
        place=(9.42, 40.0, 11.9, 43.09))(
    lambda path: hdf5(
        path,
        {"Latitude of Observation Point for 89A": V("", LAT, {"UNIT": "deg"}),
         "Longitude of Observation Point for 89A": V("", LON, {"UNIT": "deg"}),
         "Latitude of Observation Point for 89B": V("", LAT, {"UNIT": "deg"}),
         "Longitude of Observation Point for 89B": V("", LON, {"UNIT": "deg"}),
         "Brightness Temperature (89.0GHz-A,V)": V("", COUNTS, {"SCALE FACTOR": np.float32(0.01), "UNIT": "K"}),
         "Brightness Temperature (6.9GHz,V)": V("", COUNTS[:, ::2].copy(), {"SCALE FACTOR": np.float32(0.01), "UNIT": "K"})},
        JAXA, form=ones,
    )
)  # fmt: skip


@product("GCOM-C SGLI L2 OC (scene)", "2", "HDF5", "GC1SG1_20200102D01D_T0529_L2SG_NWLRK_2000.h5")
def sgli(path: Path) -> None:
    hdf5(
        path,
        {"Geometry_data/Latitude": V("", LAT[::10, ::5].copy(), {"Resampling_interval": np.array([10], "i4"), "Unit": "degree"}),
         "Geometry_data/Longitude": V("", LON[::10, ::5].copy(), {"Resampling_interval": np.array([10], "i4"), "Unit": "degree"}),
         "Image_data/CHLA": V("", COUNTS, {"Slope": np.array([0.0016], "f4"), "Offset": np.array([0], "f4"),
                                           "Error_DN": np.array([65535], "u2"), "Unit": "mg/m^3"}),
         "Image_data/Line_tai93": V("", seconds(TAI93))},
        {"Global_attributes": {"Scene_start_time": "20200102 03:04:05.000", "Scene_end_time": "20200102 03:09:05.000",
                               "Satellite": "Global Change Observation Mission - Climate (GCOM-C)",
                               "Sensor": "Second-generation Global Imager (SGLI)", "Product_level": "Level-2"},
         "Geometry_data": {"Upper_left_latitude": np.float32(40), "Image_projection": "x"}},
        form=ones,
    )  # fmt: skip


PRODUCTS[-1] = PRODUCTS[-1]._replace(place=(9.6, 40.0, 11.5, 42.15), apart=0.6)


@product(
    "GOSAT TANSO-FTS L2 XCO2",
    "2",
    "HDF5",
    "GOSATTFTS20200102_02P02SV0290R200102000.h5",
    place=TRACK,
)
def gosat(path: Path) -> None:
    times = np.array(
        [f"2020-01-02 03:{4 + i // 6:02d}:{5 + i % 6 * 10:02d}.000".encode() for i in range(ROWS)]
    )
    hdf5(
        path,
        {"Data/geolocation/latitude": V("", NADIR[0], {"unit": "degree", "invalidValue": np.float32(-9999)}),
         "Data/geolocation/longitude": V("", NADIR[1], {"unit": "degree", "invalidValue": np.float32(-9999)}),
         "Data/mixingRatio/XCO2": V("", NADIR[0], {"unit": "ppmv"}),
         "scanAttribute/time": V("", times), "Global/metadata/startDate": V("", np.array([b"2020-01-02"])),
         "Global/metadata/startTime": V("", np.array([b"03:04:05"])),
         "Global/metadata/endDate": V("", np.array([b"2020-01-02"])),
         "Global/metadata/endTime": V("", np.array([b"03:09:05"]))},
        form=ones,
    )  # fmt: skip


product("HY-2 scatterometer L2B", "2", "HDF5", "H2B_OPER_SCA_L2B_OR_20200102T030405_20200102T030905_05970_dps_250_20_owv.h5")(
    swath_in("", "wvc_lat wvc_lon", data="wind_speed_selection", units="degree",
             keys={"scale_factor": np.float32(1), "_FillValue": np.float32(-9999)}, form=ones,
             attributes={"": {"Range_Beginning_Time": "20200102T03:04:05", "Range_Ending_Time": "20200102T03:09:05",
                              "Orbit_Number": "05970", "Platform_Short_Name": "HY-2B"}},
             more={"row_time": V("", np.full(ROWS, b"20200102T03:04:05"))})
)  # fmt: skip
product("FY-3 MERSI GEO", "1", "HDF5", "FY3D_MERSI_GBAL_L1_20200102_0304_GEO1K_MS.HDF")(
    swath_in("Geolocation", "Latitude Longitude", data="Data/LandCover", units="degree",
             keys={"Slope": np.float32(1), "Intercept": np.float32(0), "FillValue": np.float32(-999)},
             attributes={"": {"Observing Beginning Date": "2020-01-02", "Observing Beginning Time": "03:04:05.000",
                              "Observing Ending Date": "2020-01-02", "Observing Ending Time": "03:09:05.000",
                              "Satellite Name": "FY-3D", "Sensor Name": "MERSI", "Orbit Number": np.int32(11111)}})
)  # fmt: skip


@product("INSAT-3D L2B SST", "2", "HDF5", "3DIMG_02JAN2020_0304_L2B_SST_V01R00.h5")
def insat(path: Path) -> None:
    packed = {
        "_FillValue": np.array([32767], "i2"),
        "scale_factor": np.array([0.01], "f4"),
        "add_offset": np.array([0], "f4"),
    }
    hdf5(
        path,
        degrees("Latitude Longitude", "GeoY GeoX", *((a * 100).round().astype("i2") for a in (LAT, LON)), **packed)
        | {"GeoY": V("GeoY", np.arange(ROWS)), "GeoX": V("GeoX", np.arange(COLUMNS)),
           "SST": V("GeoY GeoX", DATA, {"_FillValue": np.array([-999], "f4"), "coordinates": "Latitude Longitude"})},
        {"": {"Acquisition_Start_Time": "02-JAN-2020T03:04:05", "Acquisition_End_Time": "02-JAN-2020T03:09:05",
              "Satellite_Name": "INSAT-3D", "left_longitude": np.array([9.4], "f4")}},
        scales=True,
    )  # fmt: skip


@product(
    "Himawari L2 CLP (JAXA P-Tree)",
    "2",
    "netCDF-4",
    "NC_H09_20200102_0304_L2CLP010_FLDK.02401_02401.nc",
    place=(10.0, 40.0, 11.9, 42.9),
    time=(START, START),
)
def himawari(path: Path) -> None:
    lat, lon = np.arange(42.9, 39.95, -0.1, "f4"), np.arange(10, 11.95, 0.1, "f4")
    netcdf(
        path,
        degrees("latitude longitude", "", lat, lon) | {
            "CLOT": V("latitude longitude", COUNTS.astype("i2"), {"scale_factor": np.float32(0.01), "missing_value": np.int16(-32768)}),
            "start_time": V("", np.float64((START - datetime(1858, 11, 17)) / timedelta(1)), {"units": "days since 1858-11-17 0:0:0", "long_name": "observation start time"})}
        | {"latitude": V("latitude", lat, {"units": "degrees_north"}), "longitude": V("longitude", lon, {"units": "degrees_east"})},
        {"title": "Himawari", "id": "NC_H09_20200102_0304"},
    )  # fmt: skip


@product("SCATSAT-1 L2B winds", "2", "HDF5", "S1L2B2020002_17654_17655.h5", place=None)
def scatsat(path: Path) -> None:
    """Write latitudes whose scale is an attribute of the file alone: as numbers they are none."""
    hdf5(
        path,
        {"science_data/Latitude": V("", (100 * LAT).round().astype("i2")),
         "science_data/Longitude": V("", (100 * LON).round().astype("u2")),
         "science_data/Wind_speed_selection": V("", COUNTS.astype("i2"))},
        {"science_data": {"Latitude Scale": "0.01", "Longitude Scale": "0.01", "L2B Begin Date": "x",
                          "Range Beginning Date": "2020-01-02", "Range Beginning Time": "03:04:05.000",
                          "Range Ending Date": "2020-01-02", "Range Ending Time": "03:09:05.000"}},
    )  # fmt: skip


PRODUCTS[-1] = PRODUCTS[-1]._replace(
    note="its latitudes are numbers whose scale only the file's text tells"
)
