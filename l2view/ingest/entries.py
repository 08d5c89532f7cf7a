"""What a caller may pass as granules, one entry after another, however many there are."""

from __future__ import annotations

import inspect
import json
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Set
from itertools import chain, islice
from os import PathLike, fspath
from typing import Any

import obstore
import pyarrow as pa
import pyarrow.parquet as pq

from l2view.errors import IngestError, explain_missing
from l2view.ingest.files import expand_path, open_present
from l2view.ingest.formats import KERCHUNK
from l2view.ingest.granule import Entry, Failure, ids_of_file
from l2view.ingest.grouping import GranuleOf, group_files
from l2view.ingest.harvest import cmr, stac
from l2view.ingest.report import REPORT_HEAD
from l2view.limits import limits
from l2view.text import first_line, replace_surrogates, strip_credentials

LINES = (".ndjson", ".jsonl")
RECORDS = (".json", ".geojson", *LINES)
TABLES = (".parquet", ".geoparquet")
"""How the names of files end that may hold records instead of arrays."""

UNLISTABLE = (IngestError, OSError, ValueError, obstore.exceptions.BaseError)
"""What the name of granules raises that can't be listed."""

LISTED = 100_000
"""The files of a listing that are looked at together for those of one name; others follow."""

BLOCK = 2**20
"""The bytes of a file of lines that are read at a time."""


def entries_of(
    granules: Any, granule_of: GranuleOf | str | None = None
) -> Iterator[Entry | Failure]:
    """Yield an entry for each granule that a caller names (see `l2view.ingest`), or a failure.

    An `IngestError` says that something is none of what may be passed, or names no granule.
    """
    members = group_files(_members(granules), granule_of)
    # Whatever else is passed may take its time to give the next one.
    is_listing = isinstance(granules, str | PathLike | list | tuple)
    listed = list(islice(members, LISTED if is_listing else 0))
    urls = {member for member in listed if isinstance(member, str)}
    shared = _shared_ids({url for url in urls if not url.lower().endswith((*RECORDS, *TABLES))})
    for member in chain(listed, members):
        if not isinstance(member, str):
            yield member
        elif member.lower().endswith(RECORDS):
            yield from _read_records(member, shared)
        elif member.lower().endswith(TABLES):
            yield from _read_table(member)
        else:
            yield Entry.of_file(member, shared)


def _members(granules: Any) -> Iterator[str | Entry | Failure]:
    """Yield the URLs of files, and the entries of records."""
    if isinstance(granules, Entry | Failure):
        yield granules
    elif isinstance(granules, str | PathLike):
        yield from expand_path(fspath(granules))
    elif hasattr(granules, "items_as_dicts"):  # a search of pystac-client, page by page
        yield from _members(granules.items_as_dicts())
    elif isinstance(granules, Mapping):
        yield from _parse_record(granules, "")
    elif hasattr(granules, "to_dict"):  # pystac's Item and ItemCollection
        # Without the catalog that its links lead to.
        plain = "transform_hrefs" in inspect.signature(granules.to_dict).parameters
        options = {"transform_hrefs": False} if plain else {}
        yield from _parse_record(granules.to_dict(**options), "")
    elif isinstance(granules, Iterable) and not isinstance(granules, bytes):
        for granule in granules:
            try:
                yield from _members(granule)
            except UNLISTABLE as error:  # one of several costs itself alone
                text = str(error) if isinstance(error, IngestError) else first_line(error)
                is_path = isinstance(granule, str | PathLike)
                name = fspath(granule) if is_path else f"({type(granule).__name__})"
                name, text = replace_surrogates(name), replace_surrogates(text)
                yield Failure(strip_credentials(name), "", text)
    else:
        raise IngestError(
            "granules are paths, URLs, globs, STAC Items, CMR records, or an iterable of them, "
            f"not {type(granules).__name__}"
        )


def _shared_ids(urls: Set[str]) -> set[str]:
    """Return the ids that several of the files could have."""
    names = Counter(ids_of_file(url)[0] for url in urls)
    alike = [ids for url in urls if names[(ids := ids_of_file(url))[0]] > 1]
    counts = Counter(chain.from_iterable(alike))
    return {name for name, count in counts.items() if count > 1}


def _parse_record(record: Any, base: str) -> Iterator[Entry | Failure]:
    """Yield the granules of a STAC Item, an ItemCollection, or CMR's answer."""
    if not isinstance(record, Mapping):
        yield Failure(_record_name(record, base), base, "it is no STAC Item and no CMR record")
        return
    umm = cmr.umm_of(record)
    for members in ("features", "items"):
        if umm is None and isinstance(record.get(members), list):
            for member in record[members]:
                yield from _parse_record(member, base)
            return
    try:
        if umm is not None:
            yield Entry(*cmr.record_of(umm))
        elif record.get("type") == "Feature" and "assets" in record:
            yield stac.item_of(record, base)
        else:
            raise IngestError("it is no STAC Item and no CMR record")
    except Exception as error:  # whatever may be wrong in somebody's JSON
        text = str(error) if isinstance(error, IngestError) else f"not a valid record: {error!r}"
        yield Failure(_record_name(record, base), base, text)


def _record_name(record: Any, base: str) -> str:
    """Return what to call a record that may not be one."""
    if isinstance(record, Mapping):
        umm = record.get("umm")
        name = record.get("id") or (umm.get("GranuleUR") if isinstance(umm, Mapping) else None)
        if name is not None:
            return str(name)
    return Entry.of_file(base).id if base else "(no id)"


def _read_records(url: str, shared: Container[str]) -> Iterator[Entry | Failure]:
    """Yield the granules of a file of records; Kerchunk's references are a granule themselves."""
    try:
        for line in _read_lines(url):
            if line.startswith(REPORT_HEAD):
                return
            try:
                record = json.loads(line)
            except ValueError as error:
                yield Failure(Entry.of_file(url).id, url, f"it can't be read: {error}")
                continue
            if isinstance(record, dict) and any(map(KERCHUNK.fullmatch, record)):
                yield Entry.of_file(url, shared)
                continue
            for member in record if isinstance(record, list) else [record]:
                yield from _parse_record(member, url)
    except IngestError as error:
        yield Failure(Entry.of_file(url).id, url, str(error))
    except (OSError, ValueError, obstore.exceptions.BaseError) as error:
        yield Failure(Entry.of_file(url).id, url, f"it can't be read: {first_line(error)}")


def _read_lines(url: str) -> Iterator[str]:
    """Yield the texts of a file of records, one of them in memory."""
    file = open_present(url)
    if not url.lower().endswith(LINES):
        yield file.read().decode()
        return
    tail = b""
    while block := file.read(BLOCK):
        *lines, tail = (tail + block).split(b"\n")
        yield from (line.decode() for line in lines if line.strip())
    if tail.strip():
        yield tail.decode()


def _read_table(url: str) -> Iterator[Entry | Failure]:
    """Yield the granules of a file of stac-geoparquet, some of its rows in memory."""
    try:
        with explain_missing("stac-geoparquet needs rustac", "'l2view[stac]'", IngestError):
            import rustac
    except IngestError as error:
        yield Failure(Entry.of_file(url).id, url, str(error))
        return
    try:
        table = pq.ParquetFile(open_present(url))
        for batch in table.iter_batches(batch_size=limits().record_rows):
            rows = pa.Table.from_batches([batch], schema=table.schema_arrow)
            yield from _parse_record(rustac.from_arrow(rows), url)
    except (IngestError, OSError, pa.ArrowException, rustac.RustacError) as error:
        yield Failure(Entry.of_file(url).id, url, f"it can't be read: {first_line(error)}")
