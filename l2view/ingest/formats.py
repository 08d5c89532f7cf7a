"""Which format a file is of, by its content, and what parses it.

A suffix is never looked at: archives name the same format in many ways, and call a page of
HTML that says "not found" by the name of the granule.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from obspec_utils.protocols import ReadableFile
from obspec_utils.registry import ObjectStoreRegistry
from virtualizarr.manifests import ManifestStore

from l2view.errors import IngestError

type Parser = Callable[..., ManifestStore]
"""VirtualiZarr's protocol: called with a URL and a registry of stores."""

HEAD = 4096
"""Bytes from a file's beginning by which its format is told."""


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes
    ----------
    name
        What people call it.
    parser
        Module and name of the parser's class.
    options
        What the class is called with.
    needs
        The packages that it takes beyond VirtualiZarr.
    extra
        The extra of l2view that installs them.
    checked
        Module and name of a function of ours that calls the parser, and finds what it can't
        refer to or would get wrong.
    """

    name: str
    parser: tuple[str, str]
    options: tuple[tuple[str, Any], ...] = ()
    needs: tuple[str, ...] = ()
    extra: str = ""
    checked: tuple[str, str] | None = None

    def check(self) -> None:
        """Raise where a package that the format takes is missing.

        Raises
        ------
        IngestError
            Naming the extra, where a package is missing.
        """
        for name in self.needs:
            try:
                importlib.import_module(name)
            except ImportError as error:
                raise IngestError(
                    f"{self.name} needs {name}: pip install 'l2view[{self.extra}]'"
                ) from error

    def parse(
        self, url: str, reader: ReadableFile, stores: ObjectStoreRegistry[Any], load_below: int
    ) -> tuple[ManifestStore, dict[str, str]]:
        """Return a file as references, and why arrays are left out, by path.

        Parameters
        ----------
        url
            The file, as VirtualiZarr names it.
        reader
            Its bytes.
        stores
            The registry with its store.
        load_below
            The most bytes of an array that are copied where they can't be referred to.

        Raises
        ------
        IngestError
            Naming the extra, where a package is missing.
        """
        if self.checked is None:
            return self.make()(url, stores), {}
        self.check()
        module, name = self.checked
        found: tuple[ManifestStore, dict[str, str]] = getattr(
            importlib.import_module(module), name
        )(url, reader, stores, load_below)
        return found

    def make(self) -> Parser:
        """Return the parser.

        Raises
        ------
        IngestError
            Naming the extra, where a package is missing.
        """
        self.check()
        module, name = self.parser
        made: Parser = getattr(importlib.import_module(module), name)(**dict(self.options))
        return made


_PARSERS = "virtualizarr.parsers"
NETCDF3 = Format(
    "netCDF-3", (_PARSERS, "NetCDF3Parser"), needs=("kerchunk", "scipy"), extra="netcdf3"
)
HDF5 = Format(
    "HDF5",
    (_PARSERS, "HDFParser"),
    needs=("h5py",),
    extra="hdf",
    checked=("l2view.ingest.hdf5", "parse_hdf5"),
)
HDF4 = Format("HDF4", (_PARSERS, "HDF4Parser"), needs=("kerchunk",), extra="hdf4")
TIFF = Format(
    "TIFF",
    ("virtual_tiff", "VirtualTIFF"),
    (("ifd_layout", "nested"),),
    ("virtual_tiff", "imagecodecs"),
    "tiff",
    ("l2view.ingest.tiff", "parse_tiff"),
)
FITS = Format("FITS", (_PARSERS, "FITSParser"), needs=("astropy",), extra="fits")
GRIB = Format(
    "GRIB", ("gribberish.virtualizarr", "GribberishParser"), needs=("gribberish",), extra="grib"
)
DMRPP = Format("DMR++", (_PARSERS, "DMRPPParser"), checked=("l2view.ingest.dmrpp", "parse_dmrpp"))
KERCHUNK = Format("Kerchunk JSON", (_PARSERS, "KerchunkJSONParser"))
ZARR = Format("Zarr", (_PARSERS, "ZarrParser"), needs=("arro3.core",), extra="zarr")
ZIPPED_ZARR = Format(
    "zipped Zarr", (_PARSERS, "ZippedZarrParser"), needs=("arro3.core",), extra="zarr"
)

MAGIC: tuple[tuple[bytes, Format], ...] = (
    (b"CDF\x01", NETCDF3),
    (b"CDF\x02", NETCDF3),
    (b"CDF\x05", NETCDF3),
    (b"\x89HDF\r\n\x1a\n", HDF5),
    (b"\x0e\x03\x13\x01", HDF4),
    (b"II*\x00", TIFF),
    (b"MM\x00*", TIFF),
    (b"II+\x00", TIFF),
    (b"MM\x00+", TIFF),
    (b"SIMPLE  =", FITS),
    (b"GRIB", GRIB),
    (b"PK\x03\x04", ZIPPED_ZARR),
)
"""The bytes that files of a format begin with, from the formats' specifications."""

USER_BLOCKS = (512, 1024, 2048)
"""Where the signature of an HDF5 file stands behind a user block (HDF5 file format, II.A)."""


def format_of(head: bytes) -> Format:
    """Return the format of a file that begins with `head`.

    Raises
    ------
    IngestError
        Where it is none that can be virtualised, saying what it looks like.
    """
    for magic, known in MAGIC:
        if head.startswith(magic):
            return known
    for offset in USER_BLOCKS:
        if head[offset:].startswith(b"\x89HDF\r\n\x1a\n"):
            return HDF5
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"{") and b'"refs"' in head:
        return KERCHUNK
    if text.startswith(b"<") and (b"dmrpp" in head or b"opendap.org/xml/ns/dap" in head.lower()):
        return DMRPP
    raise IngestError(f"its format isn't known: {_looks_like(head, text)}")


def _looks_like(head: bytes, text: bytes) -> str:
    if not head:
        return "it is empty"
    if text[:64].lower().startswith((b"<!doctype html", b"<html")):
        return "it is a page of HTML, as servers send in the place of a file"
    if not any(head):
        return "it begins with zeros"
    return f"it begins with {head[:8]!r}"
