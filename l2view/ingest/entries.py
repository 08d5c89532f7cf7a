"""What a caller may pass as granules, one entry after another, however many there are."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike, fspath
from typing import Any

import obstore
import pyarrow as pa
import pyarrow.parquet as pq

from l2view.errors import IngestError
from l2view.ingest.files import expanded, opened
from l2view.ingest.harvest import cmr, stac
from l2view.ingest.parse import Entry, Failure, entry_of_file
from l2view.text import first_line

RECORDS = (".json", ".geojson", ".ndjson", ".jsonl")
TABLES = (".parquet", ".geoparquet")
"""How the names of files end that may hold records instead of arrays."""

BLOCK = 2**20
"""The bytes of a file of lines that are read at a time."""

ROWS = 1_000
"""The rows of a table that are read at a time."""


def entries_of(granules: Any) -> Iterator[Entry | Failure]:
    """Yield an entry for each granule that a caller named, or why there is none.

    Parameters
    ----------
    granules
        A path, URL, folder, prefix or glob; a STAC Item, ItemCollection or search; a CMR
        record; or an iterable of these.

    Raises
    ------
    IngestError
        Where something is none of these, or names no granule.
    """
    if isinstance(granules, Entry):
        yield granules
    elif isinstance(granules, str | PathLike):
        for url in expanded(fspath(granules)):
            if url.lower().endswith(RECORDS):
                yield from _in_file(url)
            elif url.lower().endswith(TABLES):
                yield from _in_table(url)
            else:
                yield entry_of_file(url)
    elif hasattr(granules, "items_as_dicts"):  # a search of pystac-client, page by page
        yield from entries_of(granules.items_as_dicts())
    elif isinstance(granules, Mapping):
        yield from _of_record(granules, "")
    elif hasattr(granules, "to_dict"):  # pystac's Item and ItemCollection
        yield from _of_record(_dictionary(granules), "")
    elif isinstance(granules, Iterable) and not isinstance(granules, bytes):
        for one in granules:
            yield from entries_of(one)
    else:
        raise IngestError(
            "granules are paths, URLs, globs, STAC Items, CMR records, or an iterable of them, "
            f"not {type(granules).__name__}"
        )


def _dictionary(record: Any) -> Mapping[str, Any]:
    """Return pystac's object as a dictionary, without the catalog that its links lead to."""
    plain = "transform_hrefs" in inspect.signature(record.to_dict).parameters
    found: Mapping[str, Any] = record.to_dict(**({"transform_hrefs": False} if plain else {}))
    return found


def _of_record(record: Any, base: str) -> Iterator[Entry | Failure]:
    """Yield the granules of a STAC Item, an ItemCollection, or CMR's answer."""
    if not isinstance(record, Mapping):
        yield Failure(_name(record, base), base, "it is no STAC Item and no CMR record")
        return
    umm = cmr.umm_of(record)
    for several in ("features", "items"):
        if umm is None and isinstance(record.get(several), list):
            for one in record[several]:
                yield from _of_record(one, base)
            return
    found: tuple[Any, ...]
    try:
        if umm is not None:
            found = cmr.record_of(umm)
        elif stac.is_item(record):
            found = stac.item_of(record, base)
        else:
            raise IngestError("it is no STAC Item and no CMR record")
    except Exception as error:  # whatever may be wrong in somebody's JSON
        text = str(error) if isinstance(error, IngestError) else f"not a valid record: {error!r}"
        yield Failure(_name(record, base), base, text)
        return
    yield Entry(*found)


def _name(record: Any, base: str) -> str:
    """Return what to call a record that may not be one."""
    if isinstance(record, Mapping):
        umm = record.get("umm")
        named = record.get("id") or (umm.get("GranuleUR") if isinstance(umm, Mapping) else None)
        if named is not None:
            return str(named)
    return entry_of_file(base).id if base else "(no id)"


def _in_file(url: str) -> Iterator[Entry | Failure]:
    """Yield the granules of a file of records; Kerchunk's references are a granule themselves."""
    try:
        for line in _lines(url):
            try:
                record = json.loads(line)
            except ValueError as error:
                yield Failure(entry_of_file(url).id, url, f"it can't be read: {error}")
                continue
            if isinstance(record, dict) and ("refs" in record or ".zgroup" in record):
                yield entry_of_file(url)
                continue
            for one in record if isinstance(record, list) else [record]:
                yield from _of_record(one, url)
    except IngestError as error:
        yield Failure(entry_of_file(url).id, url, str(error))


def _lines(url: str) -> Iterator[str]:
    """Yield the texts of a file of records, one of them in memory.

    Raises
    ------
    IngestError
        Where it can't be read.
    """
    file = opened(url)
    if file is None:
        raise IngestError("there is no such file")
    try:
        if not url.lower().endswith((".ndjson", ".jsonl")):
            yield file[1].read().decode()
            return
        rest = b""
        while part := file[1].read(BLOCK):
            *lines, rest = (rest + part).split(b"\n")
            yield from (line.decode() for line in lines if line.strip())
        if rest.strip():
            yield rest.decode()
    except (OSError, ValueError, obstore.exceptions.BaseError) as error:
        raise IngestError(f"it can't be read: {first_line(error)}") from error


def _in_table(url: str) -> Iterator[Entry | Failure]:
    """Yield the granules of a file of stac-geoparquet, some of its rows in memory."""
    try:
        import rustac
    except ImportError as error:
        raise IngestError("stac-geoparquet needs rustac: pip install 'l2view[stac]'") from error
    try:
        file = opened(url)
        if file is None:
            raise IngestError("there is no such file")
        table = pq.ParquetFile(file[1])
        for batch in table.iter_batches(batch_size=ROWS):
            rows = pa.Table.from_batches([batch], schema=table.schema_arrow)
            yield from _of_record(rustac.from_arrow(rows), url)
    except (IngestError, OSError, pa.ArrowException, rustac.RustacError) as error:
        yield Failure(entry_of_file(url).id, url, f"it can't be read: {first_line(error)}")
