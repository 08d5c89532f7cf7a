"""Well-known products as small files: their groups, names, attributes, scales and fill values.

Each row tells what is to come of its file: the rectangle around its cells, and its times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from products.writers import V, fixed, hdf4, hdf5, netcdf, tiff

type Box = tuple[float, float, float, float]

START, END = datetime(2020, 1, 2, 3, 4, 5), datetime(2020, 1, 2, 3, 9, 5)
DAY, NEXT_DAY = datetime(2020, 1, 2), datetime(2020, 1, 3)
ISO = "2020-01-02T03:04:05.000Z", "2020-01-02T03:09:05.000Z"
COVERAGE = {"time_coverage_start": ISO[0], "time_coverage_end": ISO[1]}

ROWS, COLUMNS = 30, 20
_ROW, _COLUMN = np.arange(ROWS)[:, None], np.arange(COLUMNS)[None]
LAT = (40 + 0.1 * _ROW + 0.01 * _COLUMN).astype("f4")
LON = (10 + 0.1 * _COLUMN - 0.02 * _ROW).astype("f4")
SWATH: Box = (9.42, 40.0, 11.9, 43.09)
NADIR = LAT[:, 10], LON[:, 10]
TRACK: Box = (10.42, 40.1, 11.0, 43.0)
DATA = np.arange(ROWS * COLUMNS, dtype="f4").reshape(ROWS, COLUMNS)
COUNTS = (DATA % 250).astype("u2")


class Product(NamedTuple):
    """A product, and what is to come of its file.

    Attributes
    ----------
    place
        West, south, east and north of its cells' centres; None where it doesn't say them.
    omitted
        The arrays that don't come in.
    apart
        How far the footprint's sides may be from the place's, in degrees: about a cell.
    """

    name: str
    level: str
    form: str
    file: str
    write: Callable[[Path], None]
    place: Box | None = SWATH
    time: tuple[datetime | None, datetime | None] = (START, END)
    note: str = ""
    omitted: tuple[str, ...] = ()
    apart: float = 0.15


PRODUCTS: list[Product] = []


def product(
    name: str, level: str, form: str, file: str, **expected: Any
) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Enter a function that writes a file as a product."""

    def enter(write: Callable[[Path], None]) -> Callable[[Path], None]:
        PRODUCTS.append(Product(name, level, form, file, write, **expected))
        return write

    return enter


def seconds(epoch: datetime, count: int = ROWS, span: timedelta = END - START) -> Any:
    """Return the seconds since an epoch of evenly many times, from the first to the last."""
    return (START - epoch).total_seconds() + np.linspace(0, span.total_seconds(), count)


def degrees(
    names: str, dimensions: str, lat: Any, lon: Any, units: str = "degrees_north degrees_east",
    **attributes: Any,
) -> dict[str, V]:  # fmt: skip
    """Return latitudes and longitudes by name, with units; none where they are empty."""
    return {
        name: V(dimensions, values, {**({"units": unit} if unit else {}), **attributes})
        for name, values, unit in zip(
            names.split("|" if "|" in names else None),
            (lat, lon),
            units.split() or ("", ""),
            strict=True,
        )
    }


TAI93, J2000, GPS, UNIX = (
    datetime(1993, 1, 1), datetime(2000, 1, 1), datetime(1980, 1, 6), datetime(1970, 1, 1)
)  # fmt: skip

# --- HDF5 of NASA -------------------------------------------------------------------------------


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
        import h5py

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


def swath_in(
    group: str, names: str, *, attributes: Mapping[str, Mapping[str, Any]], data: str = "data",
    units: str = "", form: Any = fixed, keys: Mapping[str, Any] = {}, more: Mapping[str, V] = {},
    **of_data: Any,
) -> Callable[[Path], None]:  # fmt: skip
    """Return a writer of HDF5 with a swath in a group, without scales."""

    def write(path: Path) -> None:
        paths = " ".join(f"{group}/{name}".strip("/") for name in names.split())
        coordinates = {
            p: V("", v, {**({"units": units} if units else {}), **keys})
            for p, v in zip(paths.split(), (LAT, LON), strict=True)
        }
        hdf5(path, coordinates | {data: V("", DATA, of_data)} | more, attributes, form=form)

    return write


product("GPM 2A.DPR", "2", "HDF5", "2A.GPM.DPR.V9-20211125.20200102-S030405-E030905.033000.V07A.HDF5")(
    swath_in(
        "FS", "Latitude Longitude", data="FS/SLV/precipRateNearSurface", units="degrees",
        keys={"DimensionNames": "nscan,nrayNS", "_FillValue": np.float32(-9999.9)},
        DimensionNames="nscan,nrayNS", _FillValue=np.float32(-9999.9), units_="mm/hr",
        attributes={"": {"FileHeader": (
            "DOI=10.5067/GPM/DPR/GPM/2A/07;\nAlgorithmID=2ADPR;\nSatelliteName=GPM;\n"
            "InstrumentName=DPR;\nGenerationDateTime=2021-12-01T00:00:00.000Z;\n"
            f"StartGranuleDateTime={ISO[0]};\nStopGranuleDateTime={ISO[1]};\nGranuleNumber=33000;\n"
        )}},
        more={
            "FS/ScanTime/Year": V("", np.full(ROWS, 2020, "i2"), {"DimensionNames": "nscan"}),
            "FS/DSD/phase": V("", np.zeros((ROWS, COLUMNS, 4), "u1"),
                              {"DimensionNames": "nscan,nrayNS,nbin"}),
        },
    )
)  # fmt: skip


@product(
    "GPM IMERG (half hour)", "3", "HDF5",
    "3B-HHR.MS.MRG.3IMERG.20200102-S030405-E030905.0180.V07B.HDF5",
    place=(10.05, 40.05, 11.95, 42.95),
)  # fmt: skip
def imerg(path: Path) -> None:
    lat, lon = np.arange(40.05, 43, 0.1, "f4"), np.arange(10.05, 12, 0.1, "f4")
    fill = {"_FillValue": np.float32(-9999.9), "CodeMissingValue": "-9999.9"}
    hdf5(
        path,
        {
            "Grid/time": V("time", np.array([1577934245], "i4"), {
                "units": "seconds since 1970-01-01 00:00:00 UTC", "calendar": "julian",
                "standard_name": "time", "bounds": "time_bnds", "DimensionNames": "time"}),
            "Grid/lat": V("lat", lat, {"units": "degrees_north", "DimensionNames": "lat"}),
            "Grid/lon": V("lon", lon, {"units": "degrees_east", "DimensionNames": "lon"}),
            "Grid/precipitation": V("time lon lat", DATA.T[None].copy(), fill | {
                "DimensionNames": "time,lon,lat", "coordinates": "time lon lat", "units": "mm/hr"}),
        },
        {"": {"FileHeader": f"StartGranuleDateTime={ISO[0]};\nStopGranuleDateTime={ISO[1]};\n"
                            "AlgorithmID=3IMERGHH;\nDOI=x;\n"},
         "Grid": {"GridHeader": "BinMethod=ARITHEMATIC_MEAN;\nRegistration=CENTER;\n"}},
        scales=True,
    )  # fmt: skip


GRANULE = "Data_Products/VIIRS-M15-SDR"


def viirs_sdr(path: Path) -> None:
    """Write an aggregation of IDPS: metadata beside datasets of references, arrays of (1, 1)."""
    import h5py

    def cell(attributes: Mapping[str, Any]) -> dict[str, Any]:
        return fixed(attributes, (1, 1))

    hdf5(
        path,
        {
            "All_Data/VIIRS-M15-SDR_All/Radiance": V("", COUNTS),
            "All_Data/VIIRS-M15-SDR_All/RadianceFactors": V("", np.array([0.1, 1.0], "f4")),
            "All_Data/VIIRS-MOD-GEO-TC_All/Latitude": V("", LAT),
            "All_Data/VIIRS-MOD-GEO-TC_All/Longitude": V("", LON),
            "All_Data/VIIRS-MOD-GEO-TC_All/StartTime": V("", np.full(4, 1956640000000000)),
        },
        {
            "": {"Mission_Name": "S-NPP/JPSS", "Platform_Short_Name": "NPP", "N_GEO_Ref": "x.h5"},
            "Data_Products/VIIRS-M15-SDR": {"Instrument_Short_Name": "VIIRS"},
        },
        form=cell,
    )
    with h5py.File(path, "a") as file:
        group = file["All_Data/VIIRS-M15-SDR_All"]
        node = file[GRANULE].create_dataset(
            "VIIRS-M15-SDR_Aggr", data=np.array([group["Radiance"].ref], h5py.ref_dtype)
        )
        node.attrs.update(cell({
            "AggregateBeginningDate": "20200102", "AggregateBeginningTime": "030405.000000Z",
            "AggregateEndingDate": "20200102", "AggregateEndingTime": "030905.000000Z",
            "AggregateBeginningOrbitNumber": np.uint64(42312),
        }))  # fmt: skip
        region = group["Radiance"].regionref[:10, :]
        node = file[GRANULE].create_dataset(
            "VIIRS-M15-SDR_Gran_0", data=np.array([region], h5py.regionref_dtype)
        )
        node.attrs.update(cell({
            "Beginning_Date": "20200102", "Beginning_Time": "030405.000000Z",
            "Ending_Date": "20200102", "Ending_Time": "030905.000000Z",
            "North_Bounding_Coordinate": np.float32(43.09),
            "South_Bounding_Coordinate": np.float32(40),
            "East_Bounding_Coordinate": np.float32(11.9),
            "West_Bounding_Coordinate": np.float32(9.42),
        }))  # fmt: skip


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

# --- HDF-EOS5 -----------------------------------------------------------------------------------


def eos_swath(swath: str, fields: Mapping[str, str]) -> str:
    """Return the ODL of a swath's fields, each with its dimensions."""
    lines = [f'GROUP=SwathStructure\n\tGROUP=SWATH_1\n\t\tSwathName="{swath}"\n']
    for kind in ("Geo", "Data"):
        lines.append(f"\t\tGROUP={kind}Field\n")
        for field, dimensions in fields.items():
            if (field in ("Latitude", "Longitude", "Time")) == (kind == "Geo"):
                names = ",".join(f'"{name}"' for name in dimensions.split())
                lines.append(
                    f'\t\t\tOBJECT={kind}Field_1\n\t\t\t\t{kind}FieldName="{field}"\n'
                    f"\t\t\t\tDimList=({names})\n\t\t\tEND_OBJECT={kind}Field_1\n"
                )
        lines.append(f"\t\tEND_GROUP={kind}Field\n")
    return "".join([*lines, "\tEND_GROUP=SWATH_1\nEND_GROUP=SwathStructure\nEND\n"])


def odl(values: Mapping[str, str]) -> str:
    """Return an inventory of objects."""
    objects = (
        f"    OBJECT                 = {name}\n      NUM_VAL              = 1\n"
        f'      VALUE                = "{value}"\n    END_OBJECT             = {name}\n\n'
        for name, value in values.items()
    )
    return "\nGROUP = INVENTORYMETADATA\n  GROUPTYPE = MASTERGROUP\n\n" + "".join(objects) + "END\n"


RANGE = {
    "RANGEBEGINNINGDATE": "2020-01-02", "RANGEBEGINNINGTIME": "03:04:05.000000",
    "RANGEENDINGDATE": "2020-01-02", "RANGEENDINGTIME": "03:09:05.000000",
}  # fmt: skip
INFORMATION = "HDFEOS INFORMATION"


def eos5(
    swath: str, time: Mapping[str, Any], core: bool, track: bool = False
) -> Callable[[Path], None]:
    """Return a writer of a swath as Aura's products have it, or of profiles along a track."""

    def write(path: Path) -> None:
        base = f"HDFEOS/SWATHS/{swath}"
        lat, lon = NADIR if track else (LAT, LON)
        names = "nTimes nLevels" if track else "nTimes nXtrack"
        fill = {"_FillValue": np.array([-1.2676506e30], "f4"), "Units": "DU", "Title": "x"}
        texts = {f"{INFORMATION}/StructMetadata.0": V("", np.bytes_(eos_swath(swath, {
            "Latitude": names.split()[0] if track else names,
            "Longitude": names.split()[0] if track else names,
            "Time": "nTimes", "Column": names})))}  # fmt: skip
        if core:
            texts[f"{INFORMATION}/CoreMetadata.0"] = V("", np.bytes_(odl(RANGE)))
        hdf5(
            path,
            degrees(f"{base}/Geolocation Fields/Latitude|{base}/Geolocation Fields/Longitude",
                    "", lat, lon, "", Units="deg", MissingValue=np.array([-1.2676506e30], "f4"))
            | {f"{base}/Geolocation Fields/Time": V("", seconds(TAI93), {"Units": "s"})}
            | {f"{base}/Data Fields/Column": V("", DATA, fill)}
            | texts,
            {"HDFEOS": {}, "HDFEOS/ADDITIONAL/FILE_ATTRIBUTES": time, base: {"Pressure": "x"}},
        )  # fmt: skip

    return write


product("OMI OMTO3", "2", "HDF-EOS5", "OMI-Aura_L2-OMTO3_2020m0102t0304-o82500_v003-2020m0102t205504.he5")(
    eos5("OMI Column Amount O3", {"InstrumentName": "OMI", "GranuleYear": np.int32(2020),
         "GranuleMonth": np.int32(1), "GranuleDay": np.int32(2),
         "TAI93At0zOfGranule": 852076810.0}, core=True)
)  # fmt: skip
product(
    "MLS L2GP-O3", "2", "HDF-EOS5", "MLS-Aura_L2GP-O3_v05-01-c01_2020d002.he5", place=TRACK,
)(eos5("O3", {"InstrumentName": "MLS Aura", "StartUTC": ISO[0], "EndUTC": ISO[1]},
       core=False, track=True))  # fmt: skip
product(
    "TES L2 O3 (nadir)", "2", "HDF-EOS5", "TES-Aura_L2-O3-Nadir_r0000002945_F08_12.he5", place=TRACK
)(eos5("O3NadirSwath", {"InstrumentName": "TES"}, core=True, track=True))

# --- netCDF of NASA -----------------------------------------------------------------------------


def ocean_colour(path: Path) -> None:
    lines = "number_of_lines pixels_per_line"
    fill = {"_FillValue": np.float32(-32767)}
    netcdf(
        path,
        {
            "sensor_band_parameters/wavelength_3d": V("wavelength_3d", np.arange(4.0)),
            "scan_line_attributes/time": V("number_of_lines", seconds(DAY), {
                "units": "seconds since 2020-01-02", "_FillValue": -999.0}),
            "geophysical_data/chlor_a": V(lines, DATA, fill, {"zlib": True}),
            "geophysical_data/Rrs": V(f"{lines} wavelength_3d", np.zeros((ROWS, COLUMNS, 4), "i2"), {
                "scale_factor": np.float32(2e-6), "add_offset": np.float32(0.05),
                "_FillValue": np.int16(-32767)}, {"zlib": True}),
            "geophysical_data/l2_flags": V(lines, DATA.astype("i4"), {
                "flag_masks": np.array([1, 2, -2147483648], "i4"), "flag_meanings": "A B C"}),
        }
        | degrees("navigation_data/latitude navigation_data/longitude", lines, LAT, LON, **fill)
        | {"navigation_data/tilt": V("number_of_lines", NADIR[0])},
        COVERAGE | {"platform": "PACE", "instrument": "OCI", "processing_level": "L2",
                    "geospatial_lat_max": np.float32(43.09), "geospatial_lat_min": np.float32(40),
                    "geospatial_lon_max": np.float32(11.9), "geospatial_lon_min": np.float32(9.42),
                    "orbit_number": 1234},
        groups={"processing_control": {"software_name": "l2gen"},
                "processing_control/input_parameters": {"ifile": "x"}},
    )  # fmt: skip


product("PACE OCI L2 OC_AOP", "2", "netCDF-4", "PACE_OCI.20200102T030405.L2.OC_AOP.V3_0.nc")(
    ocean_colour
)
product("VIIRS L2 OC", "2", "netCDF-4", "SNPP_VIIRS.20200102T030405.L2.OC.nc")(ocean_colour)
product("MODIS L2 OC", "2", "netCDF-4", "AQUA_MODIS.20200102T030405.L2.OC.nc")(ocean_colour)


@product(
    "VIIRS L1B and GEO (VNP02/03MOD)",
    "1",
    "netCDF-4",
    "VNP02MOD.A2020002.0304.002.2021124101010.nc",
)
def viirs_l1b(path: Path) -> None:
    lines = "number_of_lines number_of_pixels"
    netcdf(
        path,
        {
            "observation_data/M15": V(lines, COUNTS, {
                "scale_factor": np.float32(0.0024), "add_offset": np.float32(0.5),
                "_FillValue": np.uint16(65535), "valid_max": np.uint16(65527)}),
            "observation_data/M15_brightness_temperature_lut": V("number_of_LUT_values", np.arange(9.0)),
            "scan_line_attributes/scan_start_time": V("number_of_scans", seconds(TAI93, 3), {
                "units": "seconds since 1993-01-01", "_FillValue": -999.9}),
        }
        | degrees("geolocation_data/latitude geolocation_data/longitude", lines, LAT, LON,
                  _FillValue=np.float32(-999.9)),
        COVERAGE | {"platform": "Suomi-NPP", "OrbitNumber": 1234, "DayNightFlag": "Day",
                    "GRingPointLatitude": np.array([40, 40, 43, 43.0])},
    )  # fmt: skip


@product("EMIT L2A RFL", "2", "netCDF-4", "EMIT_L2A_RFL_001_20200102T030405_2200101_002.nc")
def emit(path: Path) -> None:
    swath, fill = "downtrack crosstrack", {"_FillValue": np.float32(-9999)}
    netcdf(
        path,
        {
            "reflectance": V(f"{swath} bands", np.repeat(DATA[..., None], 5, 2), fill, {"zlib": True}),
            "sensor_band_parameters/wavelengths": V("bands", np.arange(5, dtype="f4")),
            "location/elev": V(swath, DATA, fill),
            "location/glt_x": V("ortho_y ortho_x", np.ones((40, 35), "i4"), {"_FillValue": 0}),
            "location/glt_y": V("ortho_y ortho_x", np.ones((40, 35), "i4"), {"_FillValue": 0}),
        }
        | degrees("location/lat location/lon", swath, LAT.astype("f8"), LON.astype("f8"),
                  "degrees_north degrees_east", _FillValue=-9999.0),
        {
            "time_coverage_start": "2020-01-02T03:04:05+0000",
            "time_coverage_end": "2020-01-02T03:09:05+0000", "platform": "ISS", "sensor": "EMIT",
            "westernmost_longitude": 9.42, "easternmost_longitude": 11.9,
            "southernmost_latitude": 40.0, "northernmost_latitude": 43.09,
            "geotransform": np.array([9.42, 0.08, -0.0, 43.09, -0.0, -0.08]), "spatial_ref": 'GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563]],PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]]',
        },
    )  # fmt: skip


@product(
    "CYGNSS L2 wind",
    "2",
    "netCDF-4",
    "cyg.ddmi.s20200102-030405-e20200102-030905.l2.wind-mss.a31.d32.nc",
    place=TRACK,
    time=(START.replace(microsecond=261), END.replace(microsecond=261)),
)
def cygnss(path: Path) -> None:
    lon = np.where(NADIR[1] < 0, NADIR[1] + 360, NADIR[1])
    netcdf(
        path,
        degrees("lat lon", "sample", NADIR[0], lon, _FillValue=np.float32(-9999))
        | {
            "sample_time": V("sample", seconds(START), {
                "units": "seconds since 2020-01-02 03:04:05.000261529", "calendar": "gregorian"}),
            "wind_speed": V("sample", NADIR[0], {"_FillValue": np.float32(-9999)}),
            "spacecraft_id": V("", np.int16(247)),
        },
        {"time_coverage_start": "2020-01-02T03:04:05.000261529Z",
         "time_coverage_end": "2020-01-02T03:09:05.000261529Z", "platform": "CYGNSS",
         "geospatial_lat_min": "40.1N", "geospatial_lat_max": "43.0N",
         "geospatial_lon_min": "10.4E", "geospatial_lon_max": "11.0E"},
        unlimited="sample",
    )  # fmt: skip


def pixel_cloud(path: Path) -> None:
    fill = {"_FillValue": 9.969209968386869e36}
    netcdf(
        path,
        degrees("pixel_cloud/latitude pixel_cloud/longitude", ".points",
                LAT.ravel().astype("f8"), LON.ravel().astype("f8"), **fill)
        | {
            "pixel_cloud/height": V(".points", DATA.ravel(), {
                "_FillValue": np.float32(9.969209968386869e36), "coordinates": "longitude latitude"}),
            "pixel_cloud/interferogram": V(".points .complex_depth", np.ones((600, 2), "f4")),
            "tvp/time": V(".num_tvps", seconds(J2000, 12), {
                "units": "seconds since 2000-01-01 00:00:00.000", "standard_name": "time"}),
            "noise/noise_plus_y": V(".num_lines", np.arange(9, dtype="f4")),
        }
        | degrees("tvp/latitude tvp/longitude", ".num_tvps", NADIR[0][:12], NADIR[1][:12] + 3),
        {"time_granule_start": ISO[0], "time_granule_end": ISO[1], "cycle_number": np.int16(1),
         "time_coverage_start": "2020-01-02T03:04:05.000000Z",
         "time_coverage_end": "2020-01-02T03:09:05.000000Z",
         "geospatial_lon_min": 9.42, "geospatial_lon_max": 11.9, "geospatial_lat_min": 40.0,
         "geospatial_lat_max": 43.09, "pass_number": np.int16(13), "tile_name": "013_185R"},
    )  # fmt: skip


product(
    "SWOT L2 HR PIXC", "2", "netCDF-4",
    "SWOT_L2_HR_PIXC_001_013_185R_20200102T030405_20200102T030905_PIC0_01.nc",
    note="the track of the spacecraft beside the points is part of its place",
    place=(9.42, 40.0, 14.0, 43.09),
)(pixel_cloud)  # fmt: skip


@product(
    "SWOT L2 LR SSH", "2", "netCDF-4",
    "SWOT_L2_LR_SSH_Expert_001_013_20200102T030405_20200102T030905_PIC0_01.nc",
)  # fmt: skip
def swot_ssh(path: Path) -> None:
    lines = "num_lines num_pixels"
    packed = {"scale_factor": 1e-6, "_FillValue": np.int32(2147483647)}
    netcdf(
        path,
        degrees("latitude longitude", lines, *((a * 1e6).round().astype("i4") for a in (LAT, LON)), **packed)
        | degrees("latitude_nadir longitude_nadir", "num_lines", *((a * 1e6).round().astype("i4") for a in NADIR), **packed)
        | {
            "time": V("num_lines", seconds(J2000), {
                "units": "seconds since 2000-01-01 00:00:00.0", "calendar": "gregorian",
                "_FillValue": 9.969209968386869e36, "leap_second": "0000-00-00T00:00:00Z"}),
            "ssh_karin": V(lines, DATA.astype("i4"), {
                "scale_factor": 1e-4, "_FillValue": np.int32(2147483647),
                "coordinates": "longitude latitude"}),
        },
        COVERAGE | {"left_first_longitude": 10.0, "wavelength": 0.008, "platform": "SWOT"},
    )  # fmt: skip


# --- netCDF of ESA and EUMETSAT -----------------------------------------------------------------


@product(
    "Sentinel-5P L2 CH4", "2", "netCDF-4",
    "S5P_OFFL_L2__CH4____20200102T030405_20200102T030905_11520_01_010302_20200103T203800.nc",
)  # fmt: skip
def sentinel5p(path: Path) -> None:
    dims = ".time .scanline .ground_pixel"
    netcdf(
        path,
        degrees("PRODUCT/latitude PRODUCT/longitude", dims, LAT[None], LON[None],
                _FillValue=np.float32(9.96921e36))
        | {
            "PRODUCT/scanline": V(".scanline", np.arange(ROWS, dtype="i4")),
            "PRODUCT/ground_pixel": V(".ground_pixel", np.arange(COLUMNS, dtype="i4")),
            "PRODUCT/time": V(".time", np.array([315619200], "i4"), {
                "units": "seconds since 2010-01-01 00:00:00", "standard_name": "time"}),
            "PRODUCT/delta_time": V(".time .scanline", (1000 * seconds(DAY))[None].astype("i4"), {
                "units": "milliseconds since 2020-01-02 00:00:00"}),
            "PRODUCT/time_utc": V(".time .scanline", np.full((1, ROWS), "2020-01-02T03:04:05.000000Z")),
            "PRODUCT/methane_mixing_ratio": V(dims, DATA[None], {
                "_FillValue": np.float32(9.96921e36),
                "coordinates": "/PRODUCT/longitude /PRODUCT/latitude"}),
        },
        COVERAGE | {"geospatial_lat_min": np.float32(40), "geospatial_lat_max": np.float32(43.09),
                    "geospatial_lon_min": np.float32(11.9), "geospatial_lon_max": np.float32(9.42),
                    "time_reference": "2020-01-02T00:00:00Z", "orbit": np.int32(11520)},
        groups={"METADATA/QA_STATISTICS": {"number_of_pixels": 600},
                "METADATA/EOP_METADATA/om:phenomenonTime": {
                    "gml:beginPosition": ISO[0], "gml:endPosition": ISO[1]}},
    )  # fmt: skip


def altimeter(prefix: str, **attributes: Any) -> Callable[[Path], None]:
    """Return a writer of a 1 Hz and a 20 Hz track, whose positions are packed integers."""

    def write(path: Path) -> None:
        variables: dict[str, V] = {}
        for rate in ("01", "20"):
            dims = f"time_{rate}"
            at = np.linspace(0, ROWS - 1, ROWS if rate == "01" else 4 * ROWS)
            lat, lon = (np.interp(at, np.arange(ROWS), a) for a in NADIR)
            packed = {"scale_factor": 1e-6, "_FillValue": np.int32(2147483647)}
            variables |= degrees(
                f"lat_{rate} lon_{rate}",
                dims,
                *((a * 1e6).round().astype("i4") for a in (lat, lon)),
                **packed,
            )
            variables[dims] = V(
                dims,
                seconds(J2000, len(at)),
                {"units": "seconds since 2000-01-01 00:00:00.0", "standard_name": "time"},
            )
            variables[f"range_ocean_{rate}_ku"] = V(
                dims,
                np.arange(len(at), dtype="i4"),
                {
                    "scale_factor": 1e-4,
                    "add_offset": 700000.0,
                    "_FillValue": np.int32(2147483647),
                    "coordinates": f"lon_{rate} lat_{rate}",
                },
            )
        netcdf(path, {prefix + n: v for n, v in variables.items()}, attributes)  # fmt: skip

    return write


product(
    "Sentinel-3 SRAL L2", "2", "netCDF-4", "standard_measurement.nc", place=TRACK
)(altimeter("", first_meas_time="2020-01-02 03:04:05.000000",
            last_meas_time="2020-01-02 03:09:05.000000", mission_name="Sentinel 3A",
            altimeter_sensor_name="SRAL", pass_number=13, cycle_number=1))  # fmt: skip
product(
    "CryoSat-2 L2", "2", "netCDF-4",
    "CS_OFFL_SIR_GDR_2__20200102T030405_20200102T030905_D001.nc", place=TRACK,
)(altimeter("", sensing_start="02-JAN-2020 03:04:05.000000",
            sensing_stop="02-JAN-2020 03:09:05.000000", mission="Cryosat",
            first_record_time="TAI=02-JAN-2020 03:04:42.000000"))  # fmt: skip


def jason(path: Path) -> None:
    packed = {"scale_factor": 1e-6, "_FillValue": np.int32(2147483647)}
    variables: dict[str, V] = {}
    for rate, step in (("01", 1), ("20", 1)):
        group = f"data_{rate}"
        variables |= degrees(
            f"{group}/latitude {group}/longitude",
            ".time",
            *((a[::step] * 1e6).round().astype("i4") for a in NADIR),
            **packed,
        )
        variables[f"{group}/time"] = V(
            ".time",
            seconds(J2000),
            {"units": "seconds since 2000-01-01 00:00:00.0", "standard_name": "time"},
        )
        variables[f"{group}/ku/range_ocean"] = V("time", np.arange(ROWS, dtype="i4"), {
            "scale_factor": 1e-4, "coordinates": "longitude latitude"})  # fmt: skip
    netcdf(path, variables, {
        "first_meas_time": "2020-01-02 03:04:05.000000", "mission_name": "Jason-3",
        "last_meas_time": "2020-01-02 03:09:05.000000", "cycle_number": 144, "pass_number": 13,
    })  # fmt: skip


product(
    "Jason-3 GDR-F", "2", "netCDF-4", "JA3_GPN_2PfP144_013_20200102_030405_20200102_030905.nc",
    place=TRACK,
)(jason)  # fmt: skip


@product(
    "SARAL GDR",
    "2",
    "netCDF-3",
    "SRL_GPN_2PfP140_0013_20200102_030405_20200102_030905.CNES.nc",
    place=TRACK,
)
def saral(path: Path) -> None:
    packed = {"scale_factor": 1e-6}
    lat, lon = ((np.repeat(a[:, None], 40, 1) * 1e6).round().astype("i4") for a in NADIR)
    netcdf(
        path,
        {"time": V("time", seconds(J2000), {
            "units": "seconds since 2000-01-01 00:00:00.0", "standard_name": "time",
            "calendar": "gregorian", "tai_utc_difference": -37.0}),
         "meas_ind": V("meas_ind", np.arange(40, dtype="i1")),
         "time_40hz": V("time meas_ind", np.repeat(seconds(J2000)[:, None], 40, 1), {
             "units": "seconds since 2000-01-01 00:00:00.0"}),
         "range_40hz": V("time meas_ind", np.zeros((ROWS, 40), "i4"), {
             "_FillValue": np.int32(2147483647), "coordinates": "lon_40hz lat_40hz"})}
        | degrees("lat lon", "time", *((a * 1e6).round().astype("i4") for a in NADIR), **packed)
        | degrees("lat_40hz lon_40hz", "time meas_ind", lat, lon, **packed),
        {"first_meas_time": "2020-01-02 03:04:05.000000", "mission_name": "SARAL",
         "last_meas_time": "2020-01-02 03:09:05.000000"},
        model="NETCDF3_CLASSIC", unlimited="time",
    )  # fmt: skip


@product("Sentinel-3 SLSTR geodetic (geodetic_in.nc)", "1", "netCDF-4", "geodetic_in.nc")
def slstr(path: Path) -> None:
    packed = {"scale_factor": 1e-6, "add_offset": 0.0, "_FillValue": np.int32(-2147483648)}
    netcdf(
        path,
        degrees("latitude_in longitude_in", "rows columns",
                *((a * 1e6).round().astype("i4") for a in (LAT, LON)), **packed)
        | {"elevation_in": V("rows columns", COUNTS.astype("i2"), {"_FillValue": np.int16(-32768)})},
        {"start_time": ISO[0], "stop_time": ISO[1], "absolute_orbit_number": np.uint32(20000),
         "track_offset": np.int16(998), "resolution": "[ 1000 1000 ]"},
    )  # fmt: skip


@product(
    "Sentinel-1 OCN",
    "2",
    "netCDF-4",
    "s1a-iw-ocn-vv-20200102t030405-20200102t030905-030600-038-001.nc",
)
def sentinel1_ocn(path: Path) -> None:
    owi, rvl = "owiAzSize owiRaSize", "rvlAzSize rvlRaSize rvlSwath"
    fill = {"_FillValue": np.float32(-999)}
    lat3, lon3 = (np.repeat(a[:10, :8, None], 3, 2) for a in (LAT, LON))
    netcdf(
        path,
        degrees("owiLat owiLon", owi, LAT, LON, **fill) | degrees("rvlLat rvlLon", rvl, lat3, lon3, **fill)
        | {"owiWindSpeed": V(owi, DATA, fill), "rvlRadVel": V(rvl, lat3, fill)},
        {"firstMeasurementTime": ISO[0], "lastMeasurementTime": ISO[1], "missionName": "S1A"},
    )  # fmt: skip


@product(
    "OSI SAF sea ice concentration",
    "3",
    "netCDF-4",
    "ice_conc_nh_polstere-100_multi_202001021200.nc",
    place=(-180, 31.0, 180, 90),
    time=(datetime(2020, 1, 2, 12), None),
    apart=2,
)
def osisaf(path: Path) -> None:
    import pyproj

    xc, yc = np.arange(-3850, 3751, 100.0), np.arange(5850, -5351, -100.0)
    mapping = {
        "grid_mapping_name": "polar_stereographic", "straight_vertical_longitude_from_pole": -45.0,
        "latitude_of_projection_origin": 90.0, "standard_parallel": 70.0, "false_easting": 0.0,
        "false_northing": 0.0, "semi_major_axis": 6378273.0, "semi_minor_axis": 6356889.44891,
        "proj4_string": "+proj=stere +a=6378273 +b=6356889.44891 +lat_0=90 +lat_ts=70 +lon_0=-45",
    }  # fmt: skip
    to = pyproj.Transformer.from_crs(mapping["proj4_string"], "EPSG:4326", always_xy=True)
    lon, lat = to.transform(*(1e3 * a for a in np.meshgrid(xc, yc)))
    netcdf(
        path,
        {"Polar_Stereographic_Grid": V("", np.int32(0), mapping),
         "time": V("time", np.array([1325505600.0]), {
             "units": "seconds since 1978-01-01 00:00:00", "standard_name": "time", "axis": "T"}),
         "xc": V("xc", xc, {"units": "km", "standard_name": "projection_x_coordinate"}),
         "yc": V("yc", yc, {"units": "km", "standard_name": "projection_y_coordinate"}),
         "ice_conc": V("time yc xc", np.ones((1, len(yc), len(xc)), "i4"), {
             "scale_factor": 0.01, "_FillValue": np.int32(-999), "coordinates": "time lat lon",
             "grid_mapping": "Polar_Stereographic_Grid"})}
        | degrees("lat lon", "yc xc", lat.astype("f4"), lon.astype("f4")),
        {"start_date": "2020-01-02 12:00:00", "title": "Sea Ice Concentration"}, unlimited="time",
    )  # fmt: skip


GEOS = {
    "grid_mapping_name": "geostationary", "perspective_point_height": 35786400.0,
    "semi_major_axis": 6378137.0, "semi_minor_axis": 6356752.3142451793,
    "inverse_flattening": 298.257223563, "latitude_of_projection_origin": 0.0,
    "longitude_of_projection_origin": 0.0, "sweep_angle_axis": "y",
}  # fmt: skip


@product(
    "MTG FCI L2 CLM",
    "2",
    "netCDF-4",
    "W_XX-EUMETSAT-Darmstadt,IMG+SAT,MTI1+FCI-2-CLM--FD------NC4E_C_EUMT_20200102030905_L2PF_OPE_20200102030405_20200102030905_N__T_0019_0000.nc",
    place=(-81, -81, 81, 81),
    apart=3,
)
def fci(path: Path) -> None:
    count = 64
    step = 2 * 0.15561777642350116 / count
    angles = np.arange(count, dtype="i2")
    axis = {"units": "rad", "scale_factor": step, "add_offset": -0.15561777642350116 + step / 2}
    names = "number_of_rows number_of_columns"
    netcdf(
        path,
        {"mtg_geos_projection": V("", np.int32(0), GEOS),
         "y": V("number_of_rows", angles, axis | {"standard_name": "projection_y_coordinate"}),
         "x": V("number_of_columns", angles, axis | {"standard_name": "projection_x_coordinate"}),
         "cloud_state": V(names, np.ones((count, count), "i1"), {
             "_FillValue": np.int8(-127), "grid_mapping": "mtg_geos_projection"})},
        {"time_coverage_start": "20200102030405", "time_coverage_end": "20200102030905",
         "platform": "MTI1", "Conventions": "CF-1.7"},
    )  # fmt: skip


@product(
    "IASI L2",
    "2",
    "netCDF-4",
    "W_XX-EUMETSAT-Darmstadt,HYPERSPECT+SOUNDING,METOPA+IASI_C_EUMP_20200102030405_53653_eps_o_l2.nc",
)
def iasi(path: Path) -> None:
    swath = "along_track across_track"
    packed = {
        "scale_factor": 1e-4,
        "_FillValue": np.int32(-2147483648),
        "missing_value": np.int32(-2147483648),
    }
    netcdf(
        path,
        degrees("lat lon", swath, *((a * 1e4).round().astype("i4") for a in (LAT, LON)), **packed)
        | {"atmospheric_temperature": V(f"{swath} nlt", np.zeros((ROWS, COLUMNS, 4), "u2"), {
            "scale_factor": 0.01, "_FillValue": np.uint16(65535), "coordinates": "lat lon"}),
           "record_start_time": V("along_track", seconds(J2000), {"units": "seconds since 2000-01-01 00:00:00"})},
        {"start_sensing_time": "x", "sensing_start": "20200102030405Z", "sensing_end": "20200102030905Z",
         "orbit_start": np.int32(53653), "spacecraft": "M02"},
    )  # fmt: skip


@product(
    "ASCAT winds (KNMI)",
    "2",
    "netCDF-3",
    "ascat_20200102_030405_metopa_45145_eps_o_250_2300_ovw.l2.nc",
)
def ascat(path: Path) -> None:
    swath = "NUMROWS NUMCELLS"
    packed = {
        "scale_factor": 1e-5,
        "_FillValue": np.int32(-2147483647),
        "missing_value": np.int32(-2147483647),
    }
    netcdf(
        path,
        {"time": V(swath, np.repeat(seconds(datetime(1990, 1, 1))[:, None].round().astype("i4"), COLUMNS, 1), {
            "units": "seconds since 1990-01-01 00:00:00", "_FillValue": np.int32(-2147483647)})}
        | degrees("lat lon", swath, *((a * 1e5).round().astype("i4") for a in (LAT, LON)), **packed)
        | {"wind_speed": V(swath, COUNTS.astype("i2"), {"scale_factor": 0.01, "_FillValue": np.int16(-32767),
                                                        "coordinates": "lat lon"})},
        {"start_date": "2020-01-02", "start_time": "03:04:05", "stop_date": "2020-01-02",
         "stop_time": "03:09:05", "source": "Metop-A ASCAT", "orbit_number": np.int32(45145)},
        model="NETCDF3_CLASSIC",
    )  # fmt: skip


# --- HDF4 ---------------------------------------------------------------------------------------

CORE = {"CoreMetadata.0": odl(RANGE | {
    "WESTBOUNDINGCOORDINATE": "9.42", "EASTBOUNDINGCOORDINATE": "11.9",
    "SOUTHBOUNDINGCOORDINATE": "40.0", "NORTHBOUNDINGCOORDINATE": "43.09",
    "SHORTNAME": "MOD"})}  # fmt: skip


def modis_swath(kind: str, data: Mapping[str, V]) -> Callable[[Path], None]:
    """Return a writer of a swath of HDF-EOS2."""
    swath = f"Cell_Along_Swath:{kind} Cell_Across_Swath:{kind}"
    fields = {"Latitude": swath, "Longitude": swath} | {n: v.dimensions for n, v in data.items()}

    def write(path: Path) -> None:
        keys = {"_FillValue": np.float32(-999), "scale_factor": 1.0, "add_offset": 0.0,
                "Parameter_Type": "MODIS Input"}  # fmt: skip
        hdf4(
            path,
            degrees("Latitude Longitude", swath, LAT, LON, "Degrees_north Degrees_east", **keys)
            | data,
            CORE | {"StructMetadata.0": eos_swath(kind, fields)},
        )

    return write


_MOD = "Cell_Along_Swath:mod04 Cell_Across_Swath:mod04"
product("MODIS MOD04 aerosol", "2", "HDF4-EOS", "MOD04_L2.A2020002.0304.061.2020005123456.hdf")(
    modis_swath("mod04", {
        "Optical_Depth": V(_MOD, COUNTS.astype("i2"), {"_FillValue": np.int16(-9999),
                           "scale_factor": 0.001, "add_offset": 0.0}),
        "Mean_Reflectance": V(f"MODIS_Band:mod04 {_MOD}", np.zeros((7, ROWS, COLUMNS), "i2"), {
            "_FillValue": np.int16(-9999)})})
)  # fmt: skip
product("MODIS MOD35 cloud mask", "2", "HDF4-EOS", "MOD35_L2.A2020002.0304.061.2020005123456.hdf")(
    modis_swath("mod35", {"Cloud_Mask": V(
        "Byte_Segment:mod35 Cell_Along_Swath_1km:mod35 Cell_Across_Swath_1km:mod35",
        np.zeros((6, 5 * ROWS, 5 * COLUMNS), "i1"))})
)  # fmt: skip


def eos_grid(
    corners: tuple[float, ...],
    shape: tuple[int, int],
    projection: str,
    extra: str = "",
    grid: str = "MOD_Grid",
    data: str = "sur_refl_b01",
) -> str:
    """Return the ODL of a grid."""
    west, north, east, south = corners
    return (
        f'GROUP=SwathStructure\nEND_GROUP=SwathStructure\nGROUP=GridStructure\n\tGROUP=GRID_1\n'
        f'\t\tGridName="{grid}"\n\t\tXDim={shape[1]}\n\t\tYDim={shape[0]}\n'
        f"\t\tUpperLeftPointMtrs=({west:.6f},{north:.6f})\n"
        f"\t\tLowerRightMtrs=({east:.6f},{south:.6f})\n\t\tProjection={projection}\n{extra}"
        f'\t\tGROUP=DataField\n\t\t\tOBJECT=DataField_1\n\t\t\t\tDataFieldName="{data}"\n'
        f'\t\t\t\tDataType=DFNT_INT16\n\t\t\t\tDimList=("YDim","XDim")\n\t\t\tEND_OBJECT=DataField_1\n'
        f"\t\tEND_GROUP=DataField\n\tEND_GROUP=GRID_1\nEND_GROUP=GridStructure\nEND\n"
    )  # fmt: skip


SINUSOIDAL = (
    "\t\tProjParams=(6371007.181000,0,0,0,0,0,0,0,0,0,0,0,0)\n\t\tSphereCode=-1\n"
    "\t\tGridOrigin=HDFE_GD_UL\n"
)
TILE = (1111950.519667, 4447802.078667, 2223901.039333, 3335851.559)  # h19v05


def sinusoidal_place(corners: tuple[float, ...], count: int) -> Box:
    """Return the place of the centres of cells along the edges of a tile."""
    import pyproj

    west, north, east, south = corners
    to = pyproj.Transformer.from_crs(
        "+proj=sinu +R=6371007.181", "+proj=longlat +R=6371007.181", always_xy=True
    )
    edge = np.linspace(0, 1, 101)
    x, y = np.meshgrid(west + edge * (east - west), north + edge * (south - north))
    lon, lat = to.transform(x, y)
    return lon.min(), lat.min(), lon.max(), lat.max()


for name, level in (("MOD09GA", "2G"), ("MOD13A2", "3")):
    product(
        f"MODIS {name} tile", level, "HDF4-EOS", f"{name}.A2020002.h19v05.061.2020005123456.hdf",
        place=sinusoidal_place(TILE, 24),
    )(
        lambda path: hdf4(
            path,
            {"sur_refl_b01": V("YDim:MOD_Grid XDim:MOD_Grid", np.arange(576, dtype="i2").reshape(24, 24), {
                "_FillValue": np.int16(-28672), "scale_factor": 10000.0, "add_offset": 0.0})},
            {"CoreMetadata.0": odl(RANGE), "StructMetadata.0": eos_grid(TILE, (24, 24), "GCTP_SNSOID", SINUSOIDAL)},
        )
    )  # fmt: skip


@product(
    "AIRS L2 RetStd", "2", "HDF4-EOS", "AIRS.2020.01.02.031.L2.RetStd.v6.0.31.0.G20003120000.hdf"
)
def airs(path: Path) -> None:
    dims = "GeoTrack:L2_Standard_atmospheric&surface_product GeoXTrack:L2_Standard_atmospheric&surface_product"
    hdf4(
        path,
        degrees("Latitude Longitude", dims, LAT.astype("f8"), LON.astype("f8"), "")
        | {"Time": V(dims, np.repeat(seconds(TAI93)[:, None], COLUMNS, 1)),
           "TSurfStd": V(dims, DATA, {"_FillValue": np.float32(-9999)})},
        {"coremetadata": odl(RANGE), "StructMetadata.0": eos_swath("L2_Standard_atmospheric&surface_product", {
            "Latitude": dims, "Longitude": dims, "Time": dims, "TSurfStd": dims})},
        {"start_year": [("start_year", np.array([2020], "i4"))]},
    )  # fmt: skip


@product(
    "CALIPSO L2 5 km layers",
    "2",
    "HDF4",
    "CAL_LID_L2_05kmALay-Standard-V4-51.2020-01-02T03-04-05ZD.hdf",
    place=(10.42, 40.08, 11.0, 43.02),
    time=(START, END),
)
def calipso(path: Path) -> None:
    lat, lon = (
        (a[:, None] + d).astype("f4")
        for a, d in zip(NADIR, (np.array([-0.02, 0, 0.02]), np.zeros(3)), strict=True)
    )
    text = {"format": "Float_32", "valid_range": "-90.0...90.0", "fillvalue": np.float32(-9999)}
    hdf4(
        path,
        degrees("Latitude Longitude", "n three", lat, lon, "deg deg", **text)
        | {"Profile_Time": V("n three", np.repeat(seconds(TAI93)[:, None], 3, 1), {"units": "sec", "format": "Float_64"}),
           "Layer_Top_Altitude": V("n layers", DATA[:, :8].copy(), {"units": "kilometers", "fillvalue": np.float32(-9999)})},
        tables={"metadata": [
            ("Product_ID", np.array([b"L2_Lidar"])),
            ("Date_Time_at_Granule_Start", np.array([b"2020-01-02T03:04:05.0000Z"])),
            ("Date_Time_at_Granule_End", np.array([b"2020-01-02T03:09:05.0000Z"]))]},
    )  # fmt: skip


@product(
    "CloudSat 2B-GEOPROF",
    "2",
    "HDF4-EOS",
    "2020002030405_72900_CS_2B-GEOPROF_GRANULE_P1_R05_E09_F00.hdf",
    place=TRACK,
    time=(START, None),
)
def cloudsat(path: Path) -> None:
    hdf4(
        path,
        {"Radar_Reflectivity": V("nray:2B-GEOPROF nbin:2B-GEOPROF", COUNTS.astype("i2"), {"_FillValue": np.int16(-8888)})},
        {"StructMetadata.0": eos_swath("2B-GEOPROF", {"Latitude": "nray", "Longitude": "nray"})},
        {"Latitude": [("Latitude", NADIR[0])], "Longitude": [("Longitude", NADIR[1])],
         "Profile_time": [("Profile_time", seconds(START).astype("f4") )],
         "UTC_start": [("UTC_start", np.array([11045.0], "f4"))],
         "start_time": [("start_time", np.array([b"20200102030405"]))]},
    )  # fmt: skip


@product("TRMM 2A12", "2", "HDF4", "2A12.20200102.12345.7.HDF")
def trmm(path: Path) -> None:
    header = f"AlgorithmID=2A12;\nStartGranuleDateTime={ISO[0]};\nStopGranuleDateTime={ISO[1]};\n"
    hdf4(
        path,
        degrees("Latitude Longitude", "nscan npixel", LAT, LON, "degrees degrees", _FillValue=np.float32(-9999.9))
        | {"surfacePrecipitation": V("nscan npixel", DATA, {"_FillValue": np.float32(-9999.9), "units": "mm/hr"})},
        {"FileHeader": header, "InputRecord": "InputFileNames=x;\n", "SwathHeader": "NumberScansInSet=1;\n"},
    )  # fmt: skip


@product("SeaWiFS L2 (HDF4)", "2", "HDF4", "S2020002030405.L2_GAC_OC.hdf")
def seawifs(path: Path) -> None:
    dims = "rec fake"
    hdf4(
        path,
        degrees("latitude longitude", dims, LAT, LON, "degrees degrees")
        | {"chlor_a": V(dims, DATA, {"slope": np.float32(1), "intercept": np.float32(0)})},
        {"Product Name": "S2020002030405.L2_GAC_OC", "Start Time": "2020002030405000",
         "End Time": "2020002030905000", "Sensor Name": "SeaWiFS",
         "Westernmost Longitude": 9.42, "Easternmost Longitude": 11.9,
         "Southernmost Latitude": 40.0, "Northernmost Latitude": 43.09},
    )  # fmt: skip


# --- JAXA, ISRO, CMA, NSOAS ---------------------------------------------------------------------


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


# --- Others -------------------------------------------------------------------------------------


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
    import h5py

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
    import pyproj

    to = pyproj.Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    return to.transform_bounds(UTM_X, UTM_Y - height * size, UTM_X + width * size, UTM_Y)


def scene(size: float, dtype: str, count: int = 1, **options: Any) -> Callable[[Path], None]:
    """Return a writer of a scene in UTM."""
    from rasterio.transform import from_origin

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
    from rasterio.transform import from_origin

    values = np.where(np.arange(800) % 7, np.arange(800.0), -99999).astype("f4")
    tiff(path, np.tile(values, (400, 1)), crs="EPSG:4326", nodata=-99999.0, compress="lzw", BIGTIFF="YES",
         transform=from_origin(10, 40, 0.005, 0.005))  # fmt: skip
