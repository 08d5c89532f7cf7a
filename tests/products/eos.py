"""HDF-EOS5, HDF-EOS2 and other HDF4."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
from products.catalogue import (
    COLUMNS,
    COUNTS,
    DATA,
    END,
    ISO,
    LAT,
    LON,
    NADIR,
    ROWS,
    START,
    TAI93,
    TRACK,
    Box,
    degrees,
    product,
    seconds,
)
from products.writers import V, hdf4, hdf5


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


def hdf4_grid(odl_text: str, datasets: Mapping[str, V]) -> Callable[[Path], None]:
    """Return a writer of grids of HDF-EOS2, whose place is in their structure alone."""
    return lambda path: hdf4(
        path, datasets, {"CoreMetadata.0": odl(RANGE), "StructMetadata.0": odl_text}
    )


def several(*texts: str) -> str:
    """Return the ODL of several grids."""
    grids = (text.split("\nGROUP=GridStructure")[1].split("\nEND_GROUP=GridS")[0] for text in texts)
    inner = "".join(grid.replace("GRID_1", f"GRID_{n}") for n, grid in enumerate(grids, 1))
    return f"GROUP=GridStructure{inner}\nEND_GROUP=GridStructure\nEND\n"


product(
    "MODIS MOD09GA with two grids", "2G", "HDF4-EOS", "MOD09GA.A2020002.h19v05.006.2020005123456.hdf",
    place=sinusoidal_place(TILE, 24),
)(hdf4_grid(
    several(
        eos_grid(TILE, (12, 12), "GCTP_SNSOID", SINUSOIDAL, "MODIS_Grid_1km_2D", "state_1km_1"),
        eos_grid(TILE, (24, 24), "GCTP_SNSOID", SINUSOIDAL, "MODIS_Grid_500m_2D", "sur_refl_b01_1"),
    ),
    {"state_1km_1": V("YDim:MODIS_Grid_1km_2D XDim:MODIS_Grid_1km_2D", np.zeros((12, 12), "u2")),
     "sur_refl_b01_1": V("YDim:MODIS_Grid_500m_2D XDim:MODIS_Grid_500m_2D", np.zeros((24, 24), "i2"))},
))  # fmt: skip

product(
    "MODIS MCD43A1 tile", "3", "HDF4-EOS", "MCD43A1.A2020002.h19v05.061.2020005123456.hdf",
    place=sinusoidal_place(TILE, 24),
)(hdf4_grid(
    eos_grid(TILE, (24, 24), "GCTP_SNSOID", SINUSOIDAL, "MOD_Grid_BRDF", "BRDF").replace(
        '("YDim","XDim")', '("YDim","XDim","Num_Parameters")'),
    {"BRDF": V("YDim:MOD_Grid_BRDF XDim:MOD_Grid_BRDF Num_Parameters:MOD_Grid_BRDF",
               np.zeros((24, 24, 3), "i2"), {"_FillValue": np.int16(32767)})},
))  # fmt: skip

product(
    "MODIS MOD11C1 (climate modelling grid)", "3", "HDF4-EOS", "MOD11C1.A2020002.061.2020005123456.hdf",
    place=(-180, -90, 180, 90), apart=0.5,
)(hdf4_grid(
    eos_grid((-180000000.0, 90000000.0, 180000000.0, -90000000.0), (36, 72), "GCTP_GEO", "", "MODIS_CMG", "LST"),
    {"LST": V("YDim:MODIS_CMG XDim:MODIS_CMG", np.zeros((36, 72), "u2"), {"_FillValue": np.uint16(0)})},
))  # fmt: skip

product(
    "NISE, EASE-Grid north", "3", "HDF4-EOS", "NISE_SSMISF18_20200102.HDFEOS",
    place=(-180, -80.7, 180, 90), apart=4,
)(hdf4_grid(
    eos_grid((-9036842.762500, 9036842.762500, 9036842.762500, -9036842.762500), (72, 72), "GCTP_LAMAZ",
             "\t\tProjParams=(6371228,0,0,0,0,90000000,0,0,0,0,0,0,0)\n\t\tSphereCode=-1\n", "Northern Hemisphere", "Extent"),
    {"Extent": V("YDim:Northern_Hemisphere XDim:Northern_Hemisphere", np.zeros((72, 72), "u1"))},
))  # fmt: skip


def eos5_grid(grid: str, field: str, text: str, shape: tuple[int, int]) -> Callable[[Path], None]:
    """Return a writer of a grid of HDF-EOS5, without scales."""

    def write(path: Path) -> None:
        hdf5(
            path,
            {f"HDFEOS/GRIDS/{grid}/Data Fields/{field}": V("", np.ones(shape, "i2"), {"_FillValue": np.int16(-9999)}),
             f"{INFORMATION}/StructMetadata.0": V("", np.bytes_(text.replace("\t\tProjection=", "\t\tProjection=HE5_"))),
             f"{INFORMATION}/CoreMetadata.0": V("", np.bytes_(odl(RANGE)))},
        )  # fmt: skip

    return write


product("VIIRS VNP09GA tile", "2G", "HDF-EOS5", "VNP09GA.A2020002.h19v05.002.2020005123456.h5",
        place=sinusoidal_place(TILE, 24))(
    eos5_grid("VIIRS_Grid_1km_2D", "SurfReflect_M1_1", eos_grid(
        TILE, (24, 24), "GCTP_SNSOID", SINUSOIDAL, "VIIRS_Grid_1km_2D", "SurfReflect_M1_1"), (24, 24)))  # fmt: skip
product("OMI OMTO3e", "3", "HDF-EOS5", "OMI-Aura_L3-OMTO3e_2020m0102_v003-2020m0104t023456.he5",
        place=(-180, -90, 180, 90), apart=0.1)(
    eos5_grid("OMI Column Amount O3", "ColumnAmountO3", eos_grid(
        (-180000000.0, 90000000.0, 180000000.0, -90000000.0), (72, 144), "GCTP_GEO", "",
        "OMI Column Amount O3", "ColumnAmountO3"), (72, 144)))  # fmt: skip


@product(
    "ECOSTRESS L2 LSTE swath (collection 1)",
    "2",
    "HDF5",
    "ECOSTRESS_L2_LSTE_08595_011_20200102T030405_0601_01.h5",
)
def ecostress(path: Path) -> None:
    hdf5(
        path,
        {"SDS/LST": V("", COUNTS, {"_FillValue": np.uint16(0), "scale_factor": np.float64(0.02), "add_offset": 0.0, "units": "K"}),
         **{f"StandardMetadata/{name}": V("", np.bytes_(value)) for name, value in {
             "RangeBeginningDate": "2020-01-02", "RangeBeginningTime": "03:04:05.000000",
             "RangeEndingDate": "2020-01-02", "RangeEndingTime": "03:09:05.000000",
             "PlatformShortName": "ISS", "InstrumentShortName": "ECOSTRESS"}.items()},
         **{f"StandardMetadata/{name}BoundingCoordinate": V("", np.float64(value)) for name, value in {
             "West": 9.42, "South": 40.0, "East": 11.9, "North": 43.09}.items()}},
    )  # fmt: skip


@product("TRMM 3B42", "3", "HDF4", "3B42.20200102.03.7.HDF", place=(-180, -50, 180, 50), apart=0.3)
def trmm_grid(path: Path) -> None:
    header = f"AlgorithmID=3B42;\nStartGranuleDateTime={ISO[0]};\nStopGranuleDateTime={ISO[1]};\n"
    grid = (
        "BinMethod=ARITHEMATIC_MEAN;\nRegistration=CENTER;\nLatitudeResolution=2.5;\n"
        "LongitudeResolution=2.5;\nNorthBoundingCoordinate=50;\nSouthBoundingCoordinate=-50;\n"
        "EastBoundingCoordinate=180;\nWestBoundingCoordinate=-180;\nOrigin=SOUTHWEST;\n"
    )
    hdf4(
        path,
        {"precipitation": V("nlon nlat", np.zeros((144, 40), "f4"), {"units": "mm/hr"})},
        {"FileHeader": header, "GridHeader": grid},
    )


@product(
    "MODIS MOD04 3K with times since 1993",
    "2",
    "HDF4-EOS",
    "granule_without_time_in_its_name.hdf",
    time=(START, END),
)
def mod04_3k(path: Path) -> None:
    dims = "Cell_Along_Swath:mod04 Cell_Across_Swath:mod04"
    hdf4(
        path,
        degrees("Latitude Longitude", dims, LAT, LON, "Degrees_north Degrees_east")
        | {"Scan_Start_Time": V(dims, np.repeat(seconds(TAI93)[:, None], COLUMNS, 1),
                                {"units": "Seconds since 1993-1-1 00:00:00.0 0"})},
    )  # fmt: skip
