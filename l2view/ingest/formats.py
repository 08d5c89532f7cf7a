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

type OwnParser = Callable[
    [str, ReadableFile, ObjectStoreRegistry[Any], int], tuple[ManifestStore, dict[str, str]]
]
"""A parser of ours, around VirtualiZarr's: it finds what that can't refer to or would get wrong.

Called with a file's URL as VirtualiZarr names it, its bytes, the registry with its store, and the
most bytes of an array that are copied where they can't be referred to. It returns the references,
and why arrays are left out, by path.
"""

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
        Module and name of VirtualiZarr's parser's class, or of a parser of ours.
    needs
        The packages that it takes beyond VirtualiZarr.
    extra
        The extra of l2view that installs them.
    is_own
        Whether the parser is ours, an `OwnParser`.
    """

    name: str
    parser: tuple[str, str]
    needs: tuple[str, ...] = ()
    extra: str = ""
    is_own: bool = False

    def parse(
        self,
        url: str,
        reader: ReadableFile,
        stores: ObjectStoreRegistry[Any],
        inline_threshold: int,
    ) -> tuple[ManifestStore, dict[str, str]]:
        """Return a file as references, and why arrays are left out, by path (see `OwnParser`).

        Raises
        ------
        IngestError
            Naming the extra, where a package is missing.
        """
        if not self.is_own:
            return self.make()(url, stores), {}
        parser: OwnParser = self._named()
        return parser(url, reader, stores, inline_threshold)

    def make(self) -> Parser:
        """Return VirtualiZarr's parser.

        Raises
        ------
        IngestError
            Naming the extra, where a package is missing.
        """
        made: Parser = self._named()()
        return made

    def _named(self) -> Any:
        for name in self.needs:
            try:
                importlib.import_module(name)
            except ImportError as error:
                raise IngestError(
                    f"{self.name} needs {name}: pip install 'l2view[{self.extra}]'"
                ) from error
        module, name = self.parser
        return getattr(importlib.import_module(module), name)


_PARSERS = "virtualizarr.parsers"
NETCDF3 = Format(
    "netCDF-3", (_PARSERS, "NetCDF3Parser"), needs=("kerchunk", "scipy"), extra="netcdf3"
)
HDF5 = Format("HDF5", ("l2view.ingest.hdf5", "parse_hdf5"), ("h5py",), "hdf", is_own=True)
HDF4 = Format("HDF4", (_PARSERS, "HDF4Parser"), needs=("kerchunk",), extra="hdf4")
TIFF = Format(
    "TIFF",
    ("l2view.ingest.tiff", "parse_tiff"),
    ("virtual_tiff", "imagecodecs"),
    "tiff",
    is_own=True,
)
FITS = Format("FITS", (_PARSERS, "FITSParser"), needs=("astropy",), extra="fits")
GRIB = Format(
    "GRIB", ("gribberish.virtualizarr", "GribberishParser"), needs=("gribberish",), extra="grib"
)
DMRPP = Format("DMR++", ("l2view.ingest.dmrpp", "parse_dmrpp"), is_own=True)
_V2 = "l2view.ingest.zarr_v2"
KERCHUNK = Format("Kerchunk JSON", (_V2, "ReferencesParser"))
ZARR = Format("Zarr", (_V2, "HierarchyParser"), needs=("arro3.core",), extra="zarr")
ZIPPED_ZARR = Format(
    "zipped Zarr", (_V2, "ZippedHierarchyParser"), needs=("arro3.core",), extra="zarr"
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
