"""FITS files: images and tables of text as references; what else there is left out by name.

VirtualiZarr refuses a whole file for one table in binary, and takes the bytes of a compressed
image for its pixels.
"""

from __future__ import annotations

from typing import Any

from astropy.io import fits
from obspec_utils.protocols import ReadableFile
from obspec_utils.registry import ObjectStoreRegistry
from virtualizarr.parsers.fits import _attributes, _build_manifest_array, _hdu_names

from l2view.ingest.manifests import Manifests
from l2view.text import first_line


def parse_fits(
    url: str, reader: ReadableFile, stores: ObjectStoreRegistry[Any], threshold: int
) -> Manifests:
    """Return a FITS file as references (see `l2view.ingest.formats.CheckedParser`)."""
    manifests = Manifests()
    reader.seek(0)
    with fits.open(reader, do_not_scale_image_data=True) as hdus:
        for index, (name, hdu) in enumerate(zip(_hdu_names(hdus), hdus, strict=True)):
            header = hdu.header
            str(header)  # which mends cards that don't conform
            if index == 0:
                manifests.groups[""] = _attributes(header)
            if header.get("NAXIS", 0) == 0:
                continue
            try:
                if (reason := _unreadable(hdu)) is None:
                    manifests.arrays[name] = _build_manifest_array(hdu, name, url)
                    continue
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                reason = first_line(error)
            manifests.omitted[name] = reason
    return manifests


def _unreadable(hdu: Any) -> str | None:
    """Return what VirtualiZarr refuses, or would get wrong."""
    if isinstance(hdu, fits.CompImageHDU):
        return "its image is compressed in tiles, which no codec of Zarr's unpacks"
    if isinstance(hdu, fits.BinTableHDU):
        return "it is a table in binary, whose columns no array of Zarr's refers to"
    return None
