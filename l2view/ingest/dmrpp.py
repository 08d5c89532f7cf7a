"""DMR++ files: OPeNDAP's description of the chunks of an HDF5 file beside it.

VirtualiZarr's parser reads one group of it and passes over some variables; here it reads all
groups, and those variables are named. The format is that of the DAP4 specification, volume 1,
and of OPeNDAP's notes on DMR++.
"""

from __future__ import annotations

import io
import warnings
from typing import Any
from xml.etree import ElementTree as ET

from obspec_utils.protocols import ReadableFile
from obspec_utils.registry import ObjectStoreRegistry
from virtualizarr.manifests import ManifestGroup
from virtualizarr.parsers import DMRPPParser

from l2view.errors import IngestError
from l2view.ingest.manifests import Manifests
from l2view.stores.hierarchy import join

DAP = "{http://xml.opendap.org/ns/DAP/4.0#}"
NOT_VARIABLES = frozenset(f"{DAP}{name}" for name in ("Attribute", "Dimension", "Enumeration"))


def parse_dmrpp(
    url: str, reader: ReadableFile, stores: ObjectStoreRegistry[Any], threshold: int
) -> Manifests:
    """Return a DMR++ file as references (see `l2view.ingest.formats.CheckedParser`)."""
    try:
        reader.seek(0)
        root = ET.parse(io.BytesIO(reader.read())).getroot()  # noqa: S314 (expat has limits)
    except ET.ParseError as error:
        raise IngestError(f"it is no DMR++: {error}") from error
    manifests = Manifests()

    def add(element: ET.Element, path: str) -> None:
        members = [child for child in element if child.tag != f"{DAP}Group"]
        # The parser doesn't know a group without members.
        manifests.add(_parse(url, path, stores) if members else ManifestGroup(), path)
        for member in members:
            name = member.get("name")
            is_variable = member.tag.startswith(DAP) and member.tag not in NOT_VARIABLES
            if is_variable and name is not None and join(path, name) not in manifests.arrays:
                kind = member.tag.removeprefix(DAP)
                reason = f"its description, as {kind}, can't be parsed"
                manifests.omitted[join(path, name)] = reason
        for child in element.iterfind(f"{DAP}Group"):
            add(child, join(path, str(child.get("name"))))

    add(root, "")
    return manifests


def _parse(url: str, path: str, stores: ObjectStoreRegistry[Any]) -> ManifestGroup:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is passed over, which is looked for by name
        return DMRPPParser(group=f"/{path}")(url, stores)._group
