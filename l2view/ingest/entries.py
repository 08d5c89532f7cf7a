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

from l2view.errors import IngestError, said
from l2view.ingest.files import expanded, key_of, opened, root_of, store_of
from l2view.ingest.harvest import cmr, stac
from l2view.ingest.parse import Entry, Failure, entry_of_file

RECORDS = (".json", ".geojson", ".ndjson", ".jsonl")
TABLES = (".parquet", ".geoparquet")
"""How the names of files end that may hold records instead of arrays."""

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


def _of_record(record: Mapping[str, Any], base: str) -> Iterator[Entry | Failure]:
    """Yield the granules of a STAC Item, an ItemCollection, or CMR's answer."""
    if "features" in record:
        for feature in record["features"]:
            yield from _of_record(feature, base)
        return
    umm = cmr.umm_of(record)
    if umm is None and isinstance(record.get("items"), list):
        for item in record["items"]:
            yield from _of_record(item, base)
        return
    name = str(record.get("id") or (umm or {}).get("GranuleUR") or base)
    try:
        if umm is not None:
            found = cmr.record_of(umm)
        elif stac.is_item(record):
            found = stac.item_of(record, base)
        else:
            raise IngestError("it is no STAC Item and no CMR record")
    except (IngestError, KeyError, TypeError, ValueError, AttributeError) as error:
        said = str(error) if isinstance(error, IngestError) else f"not a valid record: {error!r}"
        yield Failure(name, base, said)
        return
    yield Entry(*found)


def _in_file(url: str) -> Iterator[Entry | Failure]:
    """Yield the granules of a file of records; Kerchunk's references are a granule themselves."""
    try:
        text = bytes(obstore.get(store_of(root_of(url)), key_of(url)).bytes()).decode()
        lines = text.splitlines() if url.lower().endswith((".ndjson", ".jsonl")) else [text]
        records = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError, obstore.exceptions.BaseError) as error:
        yield Failure(entry_of_file(url).id, url, f"it can't be read: {str(error).splitlines()[0]}")
        return
    for record in records:
        if isinstance(record, dict) and ("refs" in record or ".zgroup" in record):
            yield entry_of_file(url)
        elif isinstance(record, dict):
            yield from _of_record(record, url)
        elif isinstance(record, list):
            for one in record:
                yield from _of_record(one, url)


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
        yield Failure(entry_of_file(url).id, url, f"it can't be read: {said(error)}")
