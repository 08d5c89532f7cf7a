"""The formats of files: how each is detected by its content, and what parses it.

A suffix is never looked at: archives name the same format in many ways, and call a page of
HTML that says "not found" by the name of the granule.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from l2view.errors import IngestError, explain_missing
from l2view.ingest import plugins

if TYPE_CHECKING:
    from obspec_utils.protocols import ReadableFile
    from obspec_utils.registry import ObjectStoreRegistry
    from virtualizarr.manifests import ManifestStore

    from l2view.ingest.manifests import Manifests

type Parser = Callable[..., ManifestStore]
"""VirtualiZarr's protocol: called with a URL and a registry of stores."""

type CheckedParser = Callable[..., Manifests]
"""A parser around VirtualiZarr's that finds what that can't refer to or would get wrong.

Called with a file's URL as VirtualiZarr names it, its bytes, the registry with its store, and the
most bytes of an array that are copied where they can't be referred to.
"""

HEAD = 4096
"""Bytes from a file's beginning by which its format is detected."""


@dataclass(frozen=True)
class FileFormat:
    """A file format.

    Attributes
    ----------
    parser
        A class of VirtualiZarr's parsers, or a function that is a `CheckedParser`, as
        ``"module:name"``.
    magic
        What its files begin with, one of several.
    detect
        Whether a file that begins with these `HEAD` bytes is of this format, where `magic`
        can't tell.
    needs, extra
        The packages that the parser takes beyond VirtualiZarr, and l2view's extra with them.
    is_filled
        Whether netCDF's default fill values may stand for what was never written, and nothing
        says so.
    """

    name: str
    parser: str
    magic: tuple[bytes, ...] = ()
    detect: Callable[[bytes], bool] = lambda head: False
    needs: tuple[str, ...] = ()
    extra: str = ""
    is_filled: bool = False

    def matches(self, head: bytes) -> bool:
        """Return whether a file that begins with `head` is of this format."""
        return head.startswith(self.magic) or self.detect(head)

    def parse(
        self,
        url: str,
        reader: ReadableFile | None,
        stores: ObjectStoreRegistry[Any],
        threshold: int,
    ) -> Manifests | ManifestStore:
        """Call the parser as a `CheckedParser`; an `IngestError` names a package that it lacks."""
        for package in self.needs:
            extra = f"'l2view[{self.extra}]'"
            with explain_missing(f"{self.name} needs {package}", extra, IngestError):
                importlib.import_module(package)
        parser = resolve_name(self.parser)
        if isinstance(parser, type):
            store: ManifestStore = parser()(url, stores)
            return store
        checked: CheckedParser = parser
        return checked(url, reader, stores, threshold)


KERCHUNK = re.compile(r'refs|gen|templates|([^"]*/)?(\.zgroup|\.zarray|\.zattrs|zarr\.json)')
"""The keys of Kerchunk's references, of which each has one; a version 0 has no others."""

KERCHUNK_JSON = re.compile(rf'"({KERCHUNK.pattern})"\s*:'.encode())

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
USER_BLOCKS = (512, 1024, 2048)
"""Where the signature of an HDF5 file stands behind a user block (HDF5 file format, II.A)."""


def _has_user_block(head: bytes) -> bool:
    return any(head[offset:].startswith(HDF5_SIGNATURE) for offset in USER_BLOCKS)


def _text(head: bytes) -> bytes:
    return head.lstrip(b"\xef\xbb\xbf \t\r\n")


def _is_kerchunk(head: bytes) -> bool:
    return _text(head).startswith(b"{") and KERCHUNK_JSON.search(head) is not None


def _is_dmrpp(head: bytes) -> bool:
    names = b"dmrpp" in head or b"opendap.org/xml/ns/dap" in head.lower()
    return names and _text(head).startswith(b"<")


NETCDF3 = FileFormat(
    "netCDF-3",
    "l2view.ingest.netcdf3:parse_netcdf3",
    (b"CDF\x01", b"CDF\x02", b"CDF\x05"),
    is_filled=True,
)
TIFF = FileFormat(
    "TIFF",
    "l2view.ingest.tiff:parse_tiff",
    (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"),
    needs=("virtual_tiff", "imagecodecs"),
    extra="tiff",
)
HDF4 = FileFormat(
    "HDF4", "l2view.ingest.hdf4:parse_hdf4", (b"\x0e\x03\x13\x01",), needs=("pyhdf",), extra="hdf4"
)
ZARR = FileFormat(
    "Zarr", "l2view.ingest.zarr_v2:parse_hierarchy", needs=("arro3.core",), extra="zarr"
)
ZARR_ARRAY = FileFormat(
    "Zarr", "l2view.ingest.zarr_v2:parse_array", needs=("arro3.core",), extra="zarr"
)
KERCHUNK_PARQUET = FileFormat(
    "Kerchunk Parquet", "l2view.ingest.kerchunk:parse_reference_tables", is_filled=True
)
ICECHUNK = FileFormat("Icechunk", "l2view.ingest.repositories:parse_repository")
FORMATS = (
    NETCDF3,
    FileFormat(
        "HDF5",
        "l2view.ingest.hdf5:parse_hdf5",
        (HDF5_SIGNATURE,),
        _has_user_block,
        needs=("h5py",),
        extra="hdf",
    ),
    HDF4,
    TIFF,
    FileFormat(
        "FITS", "l2view.ingest.fits:parse_fits", (b"SIMPLE  =",), needs=("astropy",), extra="fits"
    ),
    FileFormat(
        "GRIB",
        "gribberish.virtualizarr:GribberishParser",
        (b"GRIB",),
        needs=("gribberish",),
        extra="grib",
    ),
    FileFormat(
        "zipped Zarr",
        "l2view.ingest.zarr_v2:parse_archive",
        (b"PK\x03\x04",),
        needs=("arro3.core",),
        extra="zarr",
    ),
    FileFormat(
        "Kerchunk JSON",
        "l2view.ingest.kerchunk:parse_references",
        detect=_is_kerchunk,
        is_filled=True,
    ),
    FileFormat("DMR++", "l2view.ingest.dmrpp:parse_dmrpp", detect=_is_dmrpp, is_filled=True),
)
"""The formats of single files, each with the bytes of its specification."""


def detect_format(head: bytes) -> FileFormat:
    """Return the format of a file that begins with `head`: l2view's own, then other packages'.

    An `IngestError` says what a file of another format looks like.
    """
    if head.startswith(b"GRIB") and head[7:8] == b"\x01":  # WMO's Manual on Codes, FM 92
        raise IngestError(
            "it is GRIB of edition 1, which no parser reads; convert it to edition 2 (grib_set -s "
            "edition=2) or to netCDF"
        )
    for own in FORMATS:
        if own.matches(head):
            return own
    others: Iterable[FileFormat] = plugins.load_plugins(plugins.FORMATS, FileFormat).values()
    for other in others:
        if other.matches(head):
            return other
    raise IngestError(f"its format isn't known: {_describe_head(head)}")


OTHER_FORMATS = {
    b"\x1f\x8b": "compressed by gzip; decompress it",
    b"BZh": "compressed by bzip2; decompress it",
    b"\xfd7zXZ": "compressed by xz; decompress it",
    b"BUFR": "BUFR, whose messages aren't arrays",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000; GDAL translates it to a COG",
    b"\xff\x4f\xff\x51": "JPEG 2000; GDAL translates it to a COG",
    b"\x89PNG": "PNG, which says no place; GDAL translates it to a COG",
    b"\xff\xd8\xff": "JPEG, which says no place; GDAL translates it to a COG",
    b"NITF": "NITF; GDAL translates it to a COG",
    b"\x00\x00\x27\x0a": "a shapefile, a table of geometries",
    b"SQLite format 3": "a database of SQLite, such as a GeoPackage",
    b"PAR1": "Parquet, a table",
    b'{"l2view_report"': "a report of an ingest (--report)",
    b"<?xml": "XML; name the file of data that it is about",
    b"\xcd\xf3\x00\x01": "NASA's CDF",
    b"\x93NUMPY": "an array of NumPy",
}
"""How files of formats that aren't taken begin, and what they are."""


def _describe_head(head: bytes) -> str:
    if not head:
        return "it is empty"
    if _text(head)[:64].lower().startswith((b"<!doctype html", b"<html")):
        return "it is a page of HTML, as servers send in the place of a file"
    name = next((name for magic, name in OTHER_FORMATS.items() if head.startswith(magic)), None)
    if name is not None:
        return f"it is {name}"
    return f"it begins with {head[:8]!r}" if any(head) else "it begins with zeros"
