"""netCDF-4 of NASA."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from products.catalogue import (
    COLUMNS,
    COUNTS,
    COVERAGE,
    DATA,
    DAY,
    END,
    ISO,
    J2000,
    LAT,
    LON,
    NADIR,
    ROWS,
    START,
    TAI93,
    TRACK,
    UNIX,
    degrees,
    product,
    seconds,
)
from products.writers import V, hdf5, netcdf


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


@product("CrIS L1B (fields of view)", "1", "netCDF-4", "SNDR.SNPP.CRIS.20200102T0304.m06.g032.L1B.std.v3_0.G.210101101010.nc",
         place=(9.42, 40.0, 11.9, 43.09))  # fmt: skip
def cris(path: Path) -> None:
    dims = "atrack xtrack fov"
    shift = np.linspace(-0.03, 0.03, 9, dtype="f4")
    fill = {"_FillValue": np.float32(9.96921e36)}
    netcdf(
        path,
        degrees("lat lon", dims, LAT[..., None] + shift, LON[..., None] + shift, **fill)
        | degrees("lat_geoid lon_geoid", dims, LAT[..., None] + shift, LON[..., None] + shift, **fill)
        | {"lat_bnds": V(f"{dims} fov_poly", np.repeat((LAT[..., None] + shift)[..., None], 8, 3), {"units": "degrees_north"}),
           "obs_time_tai93": V("atrack xtrack", np.repeat(seconds(TAI93)[:, None], COLUMNS, 1), {
               "units": "seconds since 1993-01-01 00:00", "standard_name": "time"}),
           "rad_lw": V(f"{dims} wnum_lw", np.zeros((ROWS, COLUMNS, 9, 2), "f4"), fill)},
        COVERAGE | {"geospatial_lat_min": 39.97, "geospatial_lat_max": 43.12, "geospatial_lon_min": 9.39,
                    "geospatial_lon_max": 11.93},
    )  # fmt: skip


@product(
    "CERES SSF",
    "2",
    "netCDF-4",
    "CER_SSF_Terra-FM1-MODIS_Edition4A_405406.2020010203.nc",
    time=(START, END),
)
def ceres(path: Path) -> None:
    group = "Time_and_Position"
    netcdf(
        path,
        degrees(f"{group}/instrument_fov_latitude {group}/instrument_fov_longitude", "footprints", LAT.ravel(), LON.ravel())
        | degrees(f"{group}/subsatellite_latitude {group}/subsatellite_longitude", "footprints", LAT.ravel() * 0 + 1, LON.ravel() * 0 + 1)
        | {f"{group}/time": V("footprints", seconds(UNIX, ROWS * COLUMNS), {"units": "seconds since 1970-01-01", "standard_name": "time"}),
           "TOA_and_Surface_Fluxes/toa_longwave_flux": V("footprints", DATA.ravel(), {"_FillValue": np.float32(3.4028235e38)})},
        {"title": "CERES SSF"},
    )  # fmt: skip


@product(
    "ISS LIS lightning", "2", "netCDF-4", "ISS_LIS_SC_V2.1_20200102_030405_FIN.nc", place=TRACK
)
def lis(path: Path) -> None:
    time = {"units": "seconds since 1993-01-01 00:00:00.000"}
    netcdf(
        path,
        degrees("lightning_event_lat lightning_event_lon", "number_of_events", *NADIR)
        | degrees("lightning_flash_lat lightning_flash_lon", "number_of_flashes", NADIR[0][::3], NADIR[1][::3])
        | {"lightning_event_TAI93_time": V("number_of_events", seconds(TAI93) + 10, time),  # leap seconds
           "lightning_event_radiance": V("number_of_events", NADIR[0])},
        {"orbit_id": 1234},
    )  # fmt: skip


@product("GLAS/ICESat GLAH06", "2", "HDF5", "GLAH06_634_2107_002_0071_3_01_0001.H5", place=TRACK)
def glah(path: Path) -> None:
    hdf5(
        path,
        {"Data_40HZ/DS_UTCTime_40": V("", seconds(J2000), {"units": "seconds since 2000-01-01 12:00:00"}),
         "Data_40HZ/Geolocation/d_lat": V("", NADIR[0].astype("f8"), {"units": "degrees_north", "_FillValue": 1.7976931348623157e308}),
         "Data_40HZ/Geolocation/d_lon": V("", NADIR[1].astype("f8"), {"units": "degrees_east", "_FillValue": 1.7976931348623157e308}),
         "Data_40HZ/Elevation_Surfaces/d_elev": V("", NADIR[0].astype("f8"), {"units": "meters"})},
        {"": {"time_coverage_start": "2020-01-02T03:04:05.000000Z", "time_coverage_end": "2020-01-02T03:09:05.000000Z"}},
    )  # fmt: skip
