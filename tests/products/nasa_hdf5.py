"""HDF5 of NASA and NOAA, most of it without dimension scales."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import h5py
import numpy as np
from products.catalogue import (
    _COLUMN,
    _ROW,
    COVERAGE,
    DATA,
    GRANULE,
    ISO,
    LAT,
    LON,
    NADIR,
    PRODUCTS,
    ROWS,
    TAI93,
    TRACK,
    UNIX,
    degrees,
    product,
    seconds,
    viirs_sdr,
)
from products.writers import V, hdf5, netcdf


@product("SMAP L2_SM_P", "2", "HDF5", "SMAP_L2_SM_P_26342_A_20200102T030405_R17000_001.h5",
         place=(9.46, 40.0, 11.88, 43.07))  # fmt: skip
def smap_l2(path: Path) -> None:
    group = "Soil_Moisture_Retrieval_Data"
    lat, lon, values = (a.ravel()[::3] for a in (LAT, LON, DATA))
    keys = {"_FillValue": np.float32(-9999), "valid_min": np.float32(-90)}
    hdf5(
        path,
        degrees(f"{group}/latitude {group}/longitude", "", lat, lon, "degrees degrees", **keys)
        | {
            f"{group}/soil_moisture": V("", values, {"_FillValue": np.float32(-9999)}),
            f"{group}/EASE_row_index": V("", np.arange(len(lat), dtype="u2")),
            f"{group}/tb_time_utc": V("", np.full(len(lat), b"2020-01-02T03:04:05.123Z")),
        },
        {
            "Metadata/Extent": {
                "rangeBeginningDateTime": ISO[0], "rangeEndingDateTime": ISO[1],
                "westBoundLongitude": np.float32(9.42), "eastBoundLongitude": np.float32(11.9),
                "southBoundLatitude": np.float32(40), "northBoundLatitude": np.float32(43.09),
            },
            "Metadata/DatasetIdentification": {"shortName": "SPL2SMP", "VersionID": "R17000"},
        },
    )  # fmt: skip


@product("SMAP L3_SM_P", "3", "HDF5", "SMAP_L3_SM_P_20200102_R16510_001.h5")
def smap_l3(path: Path) -> None:
    group = "Soil_Moisture_Retrieval_Data_AM"
    unseen = _ROW % 29 + _COLUMN % 19 == 1  # cells that no swath of the day saw
    fill = {"_FillValue": np.float32(-9999)}
    lat, lon = (np.where(unseen, np.float32(-9999), values) for values in (LAT, LON))
    hdf5(
        path,
        degrees(f"{group}/latitude {group}/longitude", "", lat, lon, "degrees degrees", **fill)
        | {f"{group}/soil_moisture": V("", np.where(unseen, -9999, DATA).astype("f4"), fill)},
        {"Metadata/Extent": {"rangeBeginningDateTime": ISO[0], "rangeEndingDateTime": ISO[1]}},
    )


def icesat2(group: str, names: str, dimensions: str, **more: V) -> Callable[[Path], None]:
    """Return a writer of one beam of an ICESat-2 product, whose scale is the time."""

    def write(path: Path) -> None:
        time = {"units": "seconds since 2018-01-01", "standard_name": "time"}
        fill = np.float32(3.4028235e38)
        hdf5(
            path,
            {f"{group}/delta_time": V("delta_time", seconds(datetime(2018, 1, 1)), time)}
            | {f"{group}/h_li": V("delta_time", NADIR[0], {"_FillValue": fill, "units": "meters"})}
            | degrees(" ".join(f"{group}/{n}" for n in names.split()), "delta_time", *NADIR)
            | {
                "ancillary_data/atlas_sdp_gps_epoch": V("", np.array([1198800018.0])),
                "ancillary_data/data_start_utc": V("", np.array([ISO[0].encode()])),
                "quality_assessment/qa_granule_pass_fail": V("", np.array([0], "i4")),
                "orbit_info/sc_orient": V("", np.array([1], "i1")),
            }
            | more,
            {
                "": COVERAGE | {"short_name": "ATL", "level": "L2", "geospatial_lat_units": "deg"},
                "METADATA/DatasetIdentification": {"creationDate": "2021-05-05T00:00:00Z"},
                "METADATA/Extent": {
                    "rangeBeginningDateTime": ISO[0], "rangeEndingDateTime": ISO[1],
                },
            },
            scales=False,
        )  # fmt: skip
        with h5py.File(path, "a") as file:
            scale = file[f"{group}/delta_time"]
            scale.make_scale("delta_time")
            for name, node in file[group].items():
                if isinstance(node, h5py.Dataset) and name != "delta_time":
                    node.dims[0].attach_scale(scale)

    return write


for number, group, names in (
    ("03", "gt1l/heights", "lat_ph lon_ph"),
    ("06", "gt1l/land_ice_segments", "latitude longitude"),
    ("08", "gt1l/land_segments", "latitude longitude"),
    ("10", "gt1l/freeboard_segment", "latitude longitude"),
    ("13", "gt1l", "segment_lat segment_lon"),
):
    file = f"ATL{number}_20200102030405_01330610_006_01.h5"
    product(f"ICESat-2 ATL{number}", "2", "HDF5", file, place=TRACK)(
        icesat2(group, names, "delta_time")
    )


@product(
    "GEDI L2A", "2", "HDF5", "GEDI02_A_2020002030405_O05946_01_T04603_02_003_01_V002.h5",
    place=TRACK,
)  # fmt: skip
def gedi(path: Path) -> None:
    names = "BEAM0000/lat_lowestmode BEAM0000/lon_lowestmode"
    time = {"units": "seconds since 2018-01-01"}
    hdf5(
        path,
        degrees(names, "", *(a.astype("f8") for a in NADIR), "degrees degrees")
        | degrees("BEAM0000/geolocation/lat_highestreturn_a1 "
                  "BEAM0000/geolocation/lon_highestreturn_a1", "", *NADIR, "degrees degrees")
        | {
            "BEAM0000/rh": V("", np.tile(NADIR[0][:, None], 101), {"units": "m"}),
            "BEAM0000/shot_number": V("", np.arange(ROWS, dtype="u8")),
            "BEAM0000/delta_time": V("", seconds(datetime(2018, 1, 1)), time),
        },
        {"": {"short_name": "GEDI_L2A"},
         "METADATA/DatasetIdentification": {"VersionID": "01", "shortName": "GEDI_L2A"}},
    )  # fmt: skip


product(
    "VIIRS SDR with GEO (JPSS)", "1", "HDF5",
    "GMTCO-SVM15_npp_d20200102_t0304050_e0309050_b42312_c20200102101010101010_nobc_ops.h5",
    omitted=(f"{GRANULE}/VIIRS-M15-SDR_Aggr", f"{GRANULE}/VIIRS-M15-SDR_Gran_0"),
    note="datasets of references have no values; their attributes come in as groups",
)(viirs_sdr)  # fmt: skip

product(
    "OCO-2 L2 Standard",
    "2",
    "HDF5",
    "oco2_L2StdND_29194a_200102_B10004r_200220103432.h5",
    place=TRACK,
)(
    lambda path: hdf5(
        path,
        degrees(
            "RetrievalGeometry/retrieval_latitude RetrievalGeometry/retrieval_longitude",
            "",
            *NADIR,
            "",
            Shape="Retrieval_Array",
            Units="Degrees",
        )
        | {
            "RetrievalResults/xco2": V("", NADIR[0], {"Units": "Mole Mole^{-1}"}),
            "RetrievalHeader/retrieval_time_tai93": V("", seconds(TAI93), {"Units": "Second"}),
            "Metadata/RangeBeginningDate": V("", np.array([b"2020-01-02"])),
            "Metadata/RangeBeginningTime": V("", np.array([b"03:04:05.000Z"])),
            "Metadata/RangeEndingDate": V("", np.array([b"2020-01-02"])),
            "Metadata/RangeEndingTime": V("", np.array([b"03:09:05.000Z"])),
            "Metadata/PlatformShortName": V("", np.array([b"OCO-2"])),
        },
    )
)


@product("OCO-2 Lite", "2", "netCDF-4", "oco2_LtCO2_200102_B11100Ar_230603130000s.nc4", place=TRACK)
def oco2_lite(path: Path) -> None:
    corners = np.repeat(NADIR[0][:, None], 4, 1)
    netcdf(
        path,
        degrees("latitude longitude", "sounding_id", *NADIR, _FillValue=np.float32(-999999))
        | {
            "sounding_id": V("sounding_id", np.arange(2020010203040500, 2020010203040500 + ROWS)),
            "time": V("sounding_id", seconds(UNIX), {"units": "seconds since 1970-01-01 00:00:00"}),
            "vertex_latitude": V("sounding_id vertices", corners, {"units": "degrees_north"}),
            "vertex_longitude": V("sounding_id vertices", corners, {"units": "degrees_east"}),
            "vertices": V("vertices", np.arange(4, dtype="f4")),
            "date": V("sounding_id epoch_dimension", np.full((ROWS, 7), 1, "i2")),
            "xco2": V("sounding_id", NADIR[0], {"_FillValue": np.float32(-999999)}),
            "Retrieval/psurf": V("sounding_id", NADIR[0]),
            "Sounding/operation_mode": V("sounding_id", np.zeros(ROWS, "i1")),
        },
        {"Conventions": "CF-1.6", "Platform": "OCO-2", "Sensor": "OCO-2"},
    )


product("Aquarius L2", "2", "HDF5", "Q2020002030400.L2_SCI_V5.0")(
    lambda path: hdf5(
        path,
        degrees("Navigation/beam_clat Navigation/beam_clon", "", LAT[:, :3], LON[:, :3],
                "degrees degrees")
        | degrees("Navigation/sclat Navigation/sclon", "", *NADIR, "degrees degrees")
        | {"Aquarius Data/SSS": V("", DATA[:, :3].copy(), {"_FillValue": np.float32(-9999)})},
        {"": {"Product Name": "Q2020002030400.L2_SCI_V5.0", "Title": "Aquarius Level 2 Data",
              "Start Time": "2020002030405000", "End Time": "2020002030905000",
              "Sensor": "Aquarius", "Orbit Number": np.int32(1234)}},
    )
)  # fmt: skip
PRODUCTS[-1] = PRODUCTS[-1]._replace(place=(9.42, 40.0, 10.2, 42.92), apart=0.9)
