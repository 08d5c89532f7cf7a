"""One granule's files, parsed: its references and its row of metadata, or why there are none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import numpy as np
import shapely
import zarr
from obspec_utils.protocols import ReadableFile
from virtualizarr.manifests import ManifestStore
from zarr.storage import StorePath

from l2view.errors import IngestError
from l2view.geolocation.footprint import harvest_footprint, on_the_globe
from l2view.granules.references import ArrayReferences, Checksum, GranuleReferences
from l2view.ingest.files import (
    CONTAINED,
    SUFFIXES,
    ZARR_MARKS,
    FileInfo,
    below,
    first_bytes,
    head,
    is_kerchunk,
    is_zarr,
    opened,
    registry,
)
from l2view.ingest.formats import TIFF, ZARR, Format, Parser, format_of
from l2view.ingest.harvest import Harvester
from l2view.ingest.harvest.attributes import harvest_attributes, instant
from l2view.ingest.manifests import manifest_references
from l2view.ingest.writer import Granule
from l2view.meta.columns import plain
from l2view.stores.hierarchy import JSON, join, resolve
from l2view.stores.urls import key_of, root_of, unquote_url
from l2view.text import first_line, strip_credentials

TIMES = ("datetime", "start_datetime", "end_datetime")
"""The fields that every collection has as times."""

SIGNATURES = frozenset({"sig", "signature", "token", "x-amz-signature", "x-goog-signature"})
"""The names by which a URL's query is known for a signature."""

INLINE_THRESHOLD = 2**20
"""The most bytes of an array that are copied where they can't be referred to."""


@dataclass(frozen=True)
class Entry:
    """A granule that is to be parsed.

    Attributes
    ----------
    id
        Its id.
    assets
        Its files by name, ``""`` for that of a granule which is one file.
    fields
        What is known of it already, which wins over what its files say.
    omitted
        Why files of it are left out, by name.
    """

    id: str
    assets: Mapping[str, str]
    fields: Mapping[str, Any] = field(default_factory=dict)
    omitted: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The first of its files."""
        return next(iter(self.assets.values()), "")

    @property
    def source(self) -> str:
        """What its field ``href`` will be, unless the caller's harvester says otherwise."""
        return strip_credentials(str(self.fields.get("href") or self.url))


@dataclass(frozen=True)
class Failure:
    """A granule that is left out.

    Attributes
    ----------
    id
        Its id.
    url
        Its file.
    reason
        Why.
    """

    id: str
    url: str
    reason: str

    def __str__(self) -> str:
        return f"{self.id} ({strip_credentials(self.url)}): {self.reason}"


@dataclass(frozen=True)
class Reading:
    """How granules are read.

    Attributes
    ----------
    parser
        A VirtualiZarr parser for all files, None to tell each by its content.
    harvest
        The caller's own harvester, which wins over the others.
    collection
        The field ``collection``.
    defaults
        Fields of granules that don't say.
    inline_threshold
        The most bytes of an array that are copied where they can't be referred to.
    """

    parser: Parser | None = None
    harvest: Harvester | None = None
    collection: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    inline_threshold: int = INLINE_THRESHOLD


def entry_of_file(url: str) -> Entry:
    """Return the entry of a granule that is one file, whose id is the file's name."""
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    # Not every dot begins a suffix: "gfs.t00z.pgrb2.f003" is a name.
    while (stem := PurePosixPath(name)).suffix.lower() in SUFFIXES and stem.stem:
        name = stem.stem
    return Entry(name, {"": url})


def parse(entry: Entry, reading: Reading) -> Granule | Failure:
    """Return the granule, or why it is left out; no error of one file stops the others."""
    try:
        parts = [_part(asset, url, reading) for asset, url in entry.assets.items()]
        references = GranuleReferences(
            tuple(array for part in parts for array in part.arrays),
            {"": {}} | {path: kept for part in parts for path, kept in part.attributes.items()},
            {url: checksum for part in parts for url, checksum in part.checksums.items()},
            {path: reason for part in parts for path, reason in part.omitted.items()}
            | dict(entry.omitted),
        )
        if not references.arrays and references.omitted:
            path, reason = next(iter(references.omitted.items()))
            raise IngestError(f"no array of it can be taken in; {path}: {reason}")
        _check_paths(references)
        row = _row(entry, reading, parts)
        _require(row, references)
        for name in row:
            if not isinstance(name, str):
                raise IngestError(f"one of its fields is called {name!r}, which is no text")
        row = {name: plain(name, value) for name, value in row.items()}
        return Granule({k: v for k, v in row.items() if v is not None}, references)
    except Exception as error:  # parsers, codecs and harvesters have errors of their own
        return Failure(entry.id, entry.url, first_line(error))


@dataclass(frozen=True)
class _Part:
    """One of a granule's files, parsed: paths are below the granule."""

    url: str
    arrays: list[ArrayReferences]
    attributes: dict[str, JSON]
    checksums: dict[str, Checksum]
    omitted: dict[str, str]
    store: ManifestStore

    @property
    def group(self) -> zarr.Group:
        """The file as a Zarr group whose chunks can be read."""
        # Opened, it would be looked for among all formats, and found again.
        metadata = self.store._group.metadata
        return zarr.Group(zarr.AsyncGroup(metadata, StorePath(self.store)))


def _part(asset: str, url: str, reading: Reading) -> _Part:
    query = {name.lower() for name, _ in parse_qsl(urlsplit(url).query)}
    url = strip_credentials(url)  # which don't belong into a collection, as a signature doesn't
    try:
        if query and not query & SIGNATURES:
            raise IngestError("its URL has a query, by which no object store tells files apart")
        return _parsed(asset, url, reading)
    except Exception as error:  # each parser's library has errors of its own
        if not asset:
            raise
        raise IngestError(f"its asset {asset} ({url}): {first_line(error)}") from error


def _parsed(asset: str, url: str, reading: Reading) -> _Part:
    if set("#?") & set(key_of(url)):
        raise IngestError("its name has # or ? in it, which VirtualiZarr's parsers can't take")
    file = opened(url)
    # What changes from here on until the granule is written is found by its checksum.
    files = list(below(url)) if file is None else [file[0]]
    reader = None if file is None else file[1]
    form = _format(url, reader) if reading.parser is None else None
    omitted: dict[str, str] = {}
    if form is not None and reader is not None:
        store, omitted = form.parse(
            unquote_url(url), reader, registry(url), reading.inline_threshold
        )
    else:
        parser = reading.parser or ZARR.make()
        store = parser(unquote_url(url), registry(url))
    found, attributes = manifest_references(store._group)
    if form is TIFF:
        from l2view.ingest.tiff import images

        found, attributes, left_out = images(found, attributes, alone=bool(asset))
        omitted |= left_out
    kept = []
    for array in found:
        reason = _not_found(array, url, files) if file is None else None
        if reason is not None:
            omitted[array.path] = reason
        elif array.inlined_bytes > reading.inline_threshold:
            omitted[array.path] = (
                f"it can't be referred to, and its {array.inlined_bytes:,} bytes are more than "
                f"inline_threshold={reading.inline_threshold:,}"
            )
        else:
            kept.append(_quoted(array, url).at(join(asset, array.path)))
    checksums = {one.url: one.checksum for one in files}
    local = url.startswith("file://")
    for other in sorted({place for array in kept for place in array.files}):
        if urlsplit(other).scheme not in CONTAINED:
            raise IngestError(
                f"Icechunk can't refer to files at {strip_credentials(root_of(other))}"
            )
        if other.startswith("file:") and not local:
            raise IngestError(f"it refers to a file of this machine, {other}")
        if other in checksums:
            continue
        referred = head(other)
        if referred is None:
            raise IngestError(f"it refers to {strip_credentials(other)}, where there is no file")
        checksums[other] = referred.checksum
    return _Part(
        url,
        kept,
        {join(asset, path): value for path, value in attributes.items()},
        checksums,
        {join(asset, path): reason for path, reason in omitted.items()},
        store,
    )


def _not_found(array: ArrayReferences, url: str, files: list[FileInfo]) -> str | None:
    """Return why a Zarr array is left out, None where its parser found all of it."""
    if array.files or array.inlined or 0 in array.shape:
        return None
    inside = f"{url}/{quote(array.path)}/"
    chunks = (one for one in files if one.url.startswith(inside))
    if any(one.url.rpartition("/")[2] not in ZARR_MARKS for one in chunks):
        return "its chunks have names that VirtualiZarr's parser doesn't look for"
    return None


def _format(url: str, reader: ReadableFile | None) -> Format:
    """Return the format of what is at `url`, a file or a Zarr hierarchy.

    Raises
    ------
    IngestError
        Where there is nothing, or it is of no known format.
    """
    try:
        if reader is not None:
            return format_of(first_bytes(reader))
    except IngestError:
        if not is_zarr(url):  # a server may answer for a folder with a page
            raise
        return ZARR
    if not is_zarr(url):
        raise IngestError("there is no such file")
    if is_kerchunk(url):
        raise IngestError(
            "it is Kerchunk's references in Parquet; pass "
            "parser=virtualizarr.parsers.KerchunkParquetParser()"
        )
    return ZARR


def _quoted(array: ArrayReferences, url: str) -> ArrayReferences:
    """Return an array whose references name its file as Icechunk wants it, percent-encoded."""
    raw, root = unquote_url(url), root_of(url)
    if raw == url:
        return array
    # The file, what lies below it, and the file that a DMR++ is of.
    own = {raw, raw.removesuffix(".dmrpp")}
    places = [
        f"{root}/{quote(place[len(root) + 1 :])}"
        if place in own or place.startswith(f"{raw}/")
        else place
        for place in array.locations
    ]
    return replace(array, locations=places)


def _row(entry: Entry, reading: Reading, parts: list[_Part]) -> dict[str, Any]:
    """Return a granule's fields: what each source says wins over those before it."""
    harvested: dict[str, Any] = {}
    for part in parts:
        if {"datetime", "bbox"} <= harvested.keys() | entry.fields.keys():
            break
        group = part.group
        harvested = {
            **harvest_footprint(group, part.url),
            **harvest_attributes(group, part.url),
            **harvested,
        }
    row: dict[str, Any] = {**harvested, **entry.fields, "href": entry.source, "id": entry.id}
    # A signed URL would give whoever reads the collection what its signature gives.
    for name, value in row.items():
        if name.startswith("asset_") and isinstance(value, str):
            row[name] = strip_credentials(value)
    if reading.collection is not None:
        row["collection"] = reading.collection
    if reading.harvest is not None:
        for part in parts:
            row.update(reading.harvest(part.group, part.url))
    row.update({name: v for name, v in reading.defaults.items() if row.get(name) is None})
    for name in TIMES:
        row[name] = _time(name, row.get(name))
    if row["datetime"] is None:
        row["datetime"] = row["start_datetime"]
    if not isinstance(row["id"], str) or not row["id"]:
        raise IngestError(f"its id is {row['id']!r}, and not a text")
    # What is found in a file is as it is to be already.
    if row.get("bbox") is not None and row["bbox"] is not harvested.get("bbox"):
        row["bbox"] = shapely.to_wkb(on_the_globe(row["bbox"]))
    return row


def _check_paths(references: GranuleReferences) -> None:
    """Raise where arrays have names that no Zarr store can hold, or that are those of others.

    Raises
    ------
    IngestError
        Naming one.
    """
    paths = [array.path for array in references.arrays]
    for path in [*paths, *references.groups]:
        if not path or resolve(path) != path:
            raise IngestError(f"it has an array or group called {path!r}, which Zarr can't hold")
    every = set(paths)
    parents = {
        "/".join(path.split("/")[:end]) for path in every for end in range(1, path.count("/") + 1)
    }
    twice = (every & parents) | (every & set(references.groups))
    if len(every) != len(paths) or twice:
        names = ", ".join(sorted(twice)) or "some"
        raise IngestError(f"it has arrays called like other arrays or groups: {names}")


def _time(name: str, value: Any) -> Any:
    """Return a field of times as a time.

    Raises
    ------
    IngestError
        Where it is none.
    """
    if isinstance(value, str) and value.strip():
        value = instant(value) or value
    if value is None or isinstance(value, date | np.datetime64):
        return value
    raise IngestError(f'the field "{name}" is {value!r}, which is no time')


def _require(row: Mapping[str, Any], references: GranuleReferences) -> None:
    """Raise where a granule doesn't say when or where it was taken.

    Raises
    ------
    IngestError
        Saying what is missing. A granule with nothing in it needs no place.
    """
    if row["datetime"] is None:
        raise IngestError("it doesn't say when it was taken; name the field datetime in harvest=")
    empty = all(0 in array.shape for array in references.arrays)
    if row.get("bbox") is None and not empty:
        raise IngestError("it doesn't say where it was taken; name the field bbox in harvest=")
