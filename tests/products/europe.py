"""netCDF of ESA and EUMETSAT."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
from products.catalogue import (
    COLUMNS,
    COUNTS,
    COVERAGE,
    DATA,
    DAY,
    ISO,
    J2000,
    LAT,
    LON,
    NADIR,
    ROWS,
    TRACK,
    degrees,
    product,
    seconds,
)
from products.writers import V, hdf5, netcdf


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
    place=(-81, -81, 0, 81),
    apart=3,
)
def fci(path: Path) -> None:
    """Write the western half of the disk: x grows to the west."""
    edge, count = 0.15561777642350116, 64
    step = 2 * edge / count
    y, x = np.arange(count, dtype="i2"), np.arange(count // 2, dtype="i2")
    up = {"units": "rad", "scale_factor": step, "add_offset": step / 2 - edge}
    west = {"units": "rad", "scale_factor": -step, "add_offset": edge - step / 2}
    names = "number_of_rows number_of_columns"
    netcdf(
        path,
        {"mtg_geos_projection": V("", np.int32(0), GEOS),
         "y": V("number_of_rows", y, up | {"standard_name": "projection_y_coordinate"}),
         "x": V("number_of_columns", x, west | {"standard_name": "projection_x_coordinate"}),
         "cloud_state": V(names, np.ones((count, count // 2), "i1"), {
             "_FillValue": np.int8(-127), "grid_mapping": "mtg_geos_projection"})},
        {"time_coverage_start": "20200102030405", "time_coverage_end": "20200102030905",
         "platform": "MTI1", "Conventions": "CF-1.7"},
    )  # fmt: skip


def packed_degrees(dims: str, factor: float, fill: int) -> dict[str, V]:
    """Return latitudes and longitudes as EUMETSAT's products pack them."""
    packed = {
        "scale_factor": 1 / factor,
        "_FillValue": np.int32(fill),
        "missing_value": np.int32(fill),
    }
    stored = ((values * factor).round().astype("i4") for values in (LAT, LON))
    return degrees("lat lon", dims, *stored, **packed)


@product(
    "IASI L2",
    "2",
    "netCDF-4",
    "W_XX-EUMETSAT-Darmstadt,HYPERSPECT+SOUNDING,METOPA+IASI_C_EUMP_20200102030405_53653_eps_o_l2.nc",
)
def iasi(path: Path) -> None:
    swath = "along_track across_track"
    netcdf(
        path,
        packed_degrees(swath, 1e4, -2147483648)
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
    netcdf(
        path,
        {"time": V(swath, np.repeat(seconds(datetime(1990, 1, 1))[:, None].round().astype("i4"), COLUMNS, 1), {
            "units": "seconds since 1990-01-01 00:00:00", "_FillValue": np.int32(-2147483647)})}
        | packed_degrees(swath, 1e5, -2147483647)
        | {"wind_speed": V(swath, COUNTS.astype("i2"), {"scale_factor": 0.01, "_FillValue": np.int16(-32767),
                                                        "coordinates": "lat lon"})},
        {"start_date": "2020-01-02", "start_time": "03:04:05", "stop_date": "2020-01-02",
         "stop_time": "03:09:05", "source": "Metop-A ASCAT", "orbit_number": np.int32(45145)},
        model="NETCDF3_CLASSIC",
    )  # fmt: skip


@product("Sentinel-1 OCN (wave mode, radial velocity)", "2", "netCDF-4",
         "s1a-wv1-ocn-vv-20200102t030405-20200102t030905-030600-038-009.nc", place=(9.82, 40.0, 10.7, 40.97))  # fmt: skip
def sentinel1_velocity(path: Path) -> None:
    dims, fill = "rvlAzSize rvlRaSize rvlSwath", {"_FillValue": np.float32(-999)}
    lat, lon = (np.repeat(a[:10, :8, None], 3, 2) for a in (LAT, LON))
    netcdf(
        path,
        degrees("rvlLat rvlLon", dims, lat, lon, **fill) | {"rvlRadVel": V(dims, lat, fill)},
        {"firstMeasurementTime": ISO[0], "lastMeasurementTime": ISO[1]},
    )


@product(
    "SMOS L2 (netCDF)",
    "2",
    "netCDF-4",
    "SM_OPER_MIR_SMUDP2_20200102T030405_20200102T030905_650_001_1.nc",
)
def smos(path: Path) -> None:
    netcdf(
        path,
        degrees("Latitude Longitude", "n_grid_points", LAT.ravel(), LON.ravel(), "deg deg", _FillValue=np.float32(-999))
        | {"Soil_Moisture": V("n_grid_points", DATA.ravel(), {"_FillValue": np.float32(-999)})},
        {"FH:File_Name": "x", "FH:Validity_Period:Validity_Start": "UTC=2020-01-02T03:04:05",
         "FH:Validity_Period:Validity_Stop": "UTC=2020-01-02T03:09:05", "FH:Mission": "SMOS"},
    )  # fmt: skip


@product(
    "GOME-2 (EUMETSAT AC SAF)",
    "2",
    "HDF5",
    "S-O3M_GOME_O3-NO2_L2_20200102030405_021_METOPA_32342_DLR_04.HDF5",
)
def gome2(path: Path) -> None:
    corners = {f"GEOLOCATION/{name}{corner}": V("", values + shift, {"Unit": "degree"})
               for name, values in (("Latitude", LAT), ("Longitude", LON))
               for corner, shift in (("A", np.float32(0.05)), ("B", np.float32(-0.05)))}  # fmt: skip
    hdf5(
        path,
        {"GEOLOCATION/LatitudeCentre": V("", LAT, {"Unit": "degree"}),
         "GEOLOCATION/LongitudeCentre": V("", LON, {"Unit": "degree"}),
         "TOTAL_COLUMNS/O3": V("", DATA, {"Unit": "DU", "FillValue": np.float32(-1)})} | corners,
        {"META_DATA": {"SensingStartTime": "2020-01-02T03:04:05.000", "SensingEndTime": "2020-01-02T03:09:05.000",
                       "SatelliteID": "Metop-A", "InstrumentID": "GOME"}},
    )  # fmt: skip


@product(
    "EarthCARE (ATL_ALD_2A)",
    "2",
    "HDF5",
    "ECA_EXAA_ATL_ALD_2A_20200102T030405Z_20200102T101010Z_00123A.h5",
    place=TRACK,
)
def earthcare(path: Path) -> None:
    hdf5(
        path,
        {"ScienceData/latitude": V("", NADIR[0].astype("f8"), {"units": "degrees_north"}),
         "ScienceData/longitude": V("", NADIR[1].astype("f8"), {"units": "degrees_east"}),
         "ScienceData/time": V("", seconds(J2000), {"units": "seconds since 2000-01-01"}),
         "ScienceData/aerosol_layer_base": V("", DATA[:, :8].copy(), {"_FillValue": np.float32(9.96921e36), "units": "m"}),
         "HeaderData/VariableProductHeader/MainProductHeader/sensingStartTime": V("", np.bytes_("20200102T030405.000000Z")),
         "HeaderData/VariableProductHeader/MainProductHeader/sensingStopTime": V("", np.bytes_("20200102T030905.000000Z")),
         "HeaderData/VariableProductHeader/MainProductHeader/processingStartTime": V("", np.bytes_("20240102T030905.000000Z")),
         "HeaderData/VariableProductHeader/MainProductHeader/processingStopTime": V("", np.bytes_("20240102T040905.000000Z"))},
    )  # fmt: skip


@product("MTG FCI L1C chunk", "1", "netCDF-4", "W_XX-EUMETSAT-Darmstadt,IMG+SAT,MTI1+FCI-1C-RRAD-FDHSI-FD--CHK-BODY---NC4E_C_EUMT_20200102030905_IDPFI_OPE_20200102030405_20200102030905_N__O_0019_0001.nc",
         place=(-81, -81, 0, 81), apart=3)  # fmt: skip
def fci_chunk(path: Path) -> None:
    count, edge = 64, 0.15561777642350116  # the western half
    step = 2 * edge / count
    axis = {"units": "rad"}
    base = "data/ir_105/measured"
    netcdf(
        path,
        {"data/mtg_geos_projection": V("", np.int32(0), GEOS),
         f"{base}/y": V(".y", np.arange(1, count + 1, dtype="i2"), axis | {
             "standard_name": "projection_y_coordinate", "scale_factor": step, "add_offset": -edge - step / 2}),
         f"{base}/x": V(".x", np.arange(1, count // 2 + 1, dtype="i2"), axis | {
             "standard_name": "projection_x_coordinate", "scale_factor": -step, "add_offset": edge + step / 2}),
         f"{base}/effective_radiance": V(".y .x", np.ones((count, count // 2), "u2"), {
             "_FillValue": np.uint16(65535), "scale_factor": 0.001, "add_offset": -1.0,
             "grid_mapping": "mtg_geos_projection", "coordinates": "y x"}),
         "time": V("index", seconds(J2000, 5), {"units": "seconds since 2000-01-01 00:00:00.0"}),
         "state/platform/subsatellite_latitude": V("index", np.zeros(5, "f4"), {"units": "degrees_north"}),
         "state/platform/subsatellite_longitude": V("index", np.zeros(5, "f4"), {"units": "degrees_east"})},
        {"time_coverage_start": "20200102030405", "time_coverage_end": "20200102030905", "platform": "MTI1"},
    )  # fmt: skip


@product(
    "EPS-SG MWS L1B",
    "1",
    "netCDF-4",
    "W_XX-EUMETSAT-Darmstadt,SAT,SGA1-MWS-1B-RAD_C_EUMT_20200102101010_G_O_20200102030405_20200102030905_C_N____.nc",
)
def mws(path: Path) -> None:
    dims = "n_scans n_fovs"
    packed = {"scale_factor": 1e-4, "add_offset": 0.0, "missing_value": np.int32(-2147483648)}
    netcdf(
        path,
        degrees("data/navigation/mws_lat data/navigation/mws_lon", dims,
                *((a * 1e4).round().astype("i4") for a in (LAT, LON)), **packed)
        | {"data/calibration/mws_toa_radiance": V(f"{dims} n_channels", np.zeros((ROWS, COLUMNS, 3), "i4"), {
            "scale_factor": 1e-6, "missing_value": np.int32(-2147483648)})},
        {"sensing_start_time_utc": "2020-01-02 03:04:05.000", "sensing_end_time_utc": "2020-01-02 03:09:05.000",
         "spacecraft": "SGA1", "instrument": "MWS"},
    )  # fmt: skip
