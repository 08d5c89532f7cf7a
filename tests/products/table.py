"""The rows of ``docs/products.md``: what comes of each product, by a report and its fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from products import asia, eos, europe, nasa_hdf5, nasa_netcdf, others
from products.catalogue import PRODUCTS

FAMILIES = (asia, eos, europe, nasa_hdf5, nasa_netcdf, others)
"""The modules whose products are `PRODUCTS`."""

REAL: Mapping[str, tuple[str, str, str, str]] = {
    "1C.NOAA18.MHS.XCAL2016-V.20050525-S165459-E183706.000073.V07A.HDF5": ("GPM 1C, MHS", "1", "HDF5", ""),
    "2A.GPM.GMI.GPROF2021v1.20140304-S175932-E193159.000079.V07A.HDF5": ("GPM 2A, GPROF of GMI", "2", "HDF5", ""),
    "ATL03_indexbegin_start_end_FVs.h5": ("ICESat-2 ATL03, a test's cut", "2", "HDF5", ""),
    "ATS_TOA_1CNPDK20030504_111259_000000572016_00080_06146_0157.nc": ("AATSR by SNAP", "1", "netCDF-4", ""),
    "GEDI04_A_2019117051430_O02102_01_T04603_02_002_02_V002.h5": ("GEDI L4A", "4", "HDF5", ""),
    "H108_1436.nc": ("H-SAF soil moisture series", "3", "netCDF-4", ""),
    "LC08_L2SP_005009_20150710_20200908_02_T2_SR_B2.TIF": ("Landsat 8 C2 L2SP", "2", "COG", ""),
    "LC08_L2SR_099120_20191129_20201016_02_T2_SR_B1.TIF": ("Landsat 8 C2 L2SR, Antarctica", "2", "COG", ""),
    "M2T1NXSLV_geo_temporal.nc4": ("MERRA-2, a subset", "4", "netCDF-4", ""),
    "MLS-Aura_L2GP-IWC_v02-21-c02_2007d210.he5": ("MLS L2GP-IWC", "2", "HDF-EOS5", ""),
    "MOD05_L2.A2019336.2315.061.2019337071952.hdf": ("MODIS MOD05 water vapour", "2", "HDF4-EOS", ""),
    "MOD10A2.A2022033.h09v05.061.2022042050729_Eight_Day_Snow_Cover.tif": ("MODIS MOD10A2 as GeoTIFF", "3", "COG", ""),
    "MOD11B2.A2017001.h14v04.006.2017013155631.hdf": ("MODIS MOD11B2 tile", "3", "HDF4-EOS", ""),
    "MOD14.hdf4": ("MODIS MOD14 fire", "2", "HDF4", ""),
    "NSS.MHSX.NN.D07001.S0000.E0155.B0832728.WI.h5": ("MHS, 1B", "1", "HDF5", ""),
    "OPERA_L3_DSWx-HLS_T48SUE_20190302T034350Z_20230131T222341Z_L8_30_v0.0_BROWSE.tiff": ("OPERA DSWx browse", "3", "GeoTIFF", ""),
    "OR_ABI-L2-CMIPM1-M6C01_G17_s20200111504255_e20200111504313_c20200111504367_CMI.tif": ("GOES ABI CMIP as GeoTIFF", "2", "COG", ""),
    "OR_ABI-L2-LSTM2-M6_G16_s20211381700538_e20211381700595_c20211381701211.nc": ("GOES ABI LST", "2", "netCDF-4", ""),
    "OR_GLM-L2-LCFA_G18_s20230261900000_e20230261900200_c20230261900213.nc": ("GOES GLM lightning", "2", "netCDF-4", ""),
    "PLANET_SCOPE_3D.nc": ("PlanetScope as netCDF", "3", "netCDF-4", ""),
    "S5P_OFFL_L2__NO2____20200303T013547_20200303T031717_12367_01_010302_20200306T053815.nc": ("Sentinel-5P L2 NO₂", "2", "netCDF-4", ""),
    "SAFNWC_MSG3_CT___201304290415_BEL_________.h5": ("SAFNWC cloud type", "2", "HDF5", ""),
    "SDS_fle_shuf_2def.h5": ("a test of filters", "–", "HDF5", ""),
    "SWOT_GPR_2PTP003_005_20111115_030538_20111115_035643.nc": ("SWOT GPR", "2", "netCDF", ""),
    "TEMPO_NO2_L2_V03_20240601T210934Z_S012G01_subsetted.nc4": ("TEMPO L2 NO₂", "2", "netCDF-4", ""),
    "W_XX-EUMETSAT-Darmstadt,SURFACE+SATELLITE,METOPA+ASCAT_C_EUMP_20170220055700_53653_eps_o_250_ssm_l2.nc": ("ASCAT soil moisture", "2", "netCDF-4", ""),
    "atl08_clip.h5": ("ICESat-2 ATL08, a clip", "2", "HDF5", ""),
    "cmprss_big_2.h5": ("a test of filters, of big endian", "–", "HDF5", ""),
    "f97182070958.hdf": ("AVHRR", "2", "HDF4", ""),
    "gfswave.t18z.atlocn.0p16.f001.grib2": ("GFS waves", "–", "GRIB 2", ""),
    "hang_min.npy": ("a file of NumPy", "–", "NPY", ""),
    "l8_B4.tif": ("Landsat 8 band 4", "1", "GeoTIFF", ""),
    "tiepoints_olci.nc": ("Sentinel-3 OLCI tie points", "1", "netCDF-4", ""),
    "tiepoints_slstr_n.nc": ("Sentinel-3 SLSTR tie points", "1", "netCDF-4", ""),
    "toa_brightness_temperature.nc": ("brightness temperatures, polar stereographic", "2", "netCDF-4", ""),
}  # fmt: skip
"""The real files: product, level, format, and a note."""

NAMED = "its time is that in its file's name"


def page_row(
    product: str,
    level: str,
    form: str,
    entry: Mapping[str, Any],
    fields: Mapping[str, Any] | None,
    note: str,
) -> str:
    """Return a product's row by its entry in the report and its fields, None for none."""
    notes = [note] if note else []
    if fields is None:
        return f"| {product} | {level} | {form} | no | | | {entry['reason']} |"
    if omitted := entry.get("omitted"):
        notes.append(f"without {len(omitted)} array{'s' if len(omitted) > 1 else ''}")
    time = "file name" if NAMED in entry.get("notes", ()) else "yes"
    time = time if fields["datetime"] is not None else "–"
    place = "yes" if fields["bbox"] is not None else "–"
    return f"| {product} | {level} | {form} | yes | {place} | {time} | {'; '.join(notes)} |"


def write_page() -> None:
    """Print the rows of all products; those of real files where they are at ``L2VIEW_DATA``."""
    import json
    import os
    import tempfile
    from pathlib import Path

    import l2view

    folder = Path(tempfile.mkdtemp())
    for product in PRODUCTS:
        product.write(folder / product.file)
    real = Path(os.environ["L2VIEW_DATA"]) / "real"
    named = {p.file: (p.name, p.level, p.form, p.note) for p in PRODUCTS} | dict(REAL)
    for number, files in enumerate(
        ([str(real / name) for name in REAL], [str(folder / p.file) for p in PRODUCTS])
    ):
        l2view.ingest(files, folder / f"c{number}", report=folder / "report.json")
        entries = json.loads((folder / "report.json").read_text())["granules"]
        found = l2view.Collection(folder / f"c{number}", authorize=True).search().to_pylist()
        rows = {row["id"]: row for row in found}
        lines = []
        for entry in entries:
            *names, note = named[unquote(entry["href"]).rpartition("/")[2]]
            lines.append(page_row(*names, entry, rows.get(entry["id"]), note))
        print("\n".join(sorted(lines, key=str.lower)) + "\n")


if __name__ == "__main__":
    write_page()
