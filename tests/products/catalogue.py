"""Well-known products as small files: their groups, names, attributes, scales and fill values.

Each row tells what is to come of its file: the rectangle around its cells, and its times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from products.writers import V, fixed, hdf5

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
