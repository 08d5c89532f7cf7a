"""Kerchunk's references, in JSON or Parquet, of Zarr v2 or v3.

The format is that of its documentation, "References specification". What isn't understood is
refused by name: a chunk that isn't referred to would be read as fill values.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import obstore
import pyarrow as pa
import pyarrow.parquet as pq
from obspec_utils.protocols import ReadableFile
from obspec_utils.registry import ObjectStoreRegistry

from l2view.errors import IngestError
from l2view.ingest.files import file_info, object_store
from l2view.ingest.manifests import Chunks, Manifests, ReadChunks, read_nodes
from l2view.stores.hierarchy import JSON, METADATA_KEYS, Node
from l2view.stores.urls import is_url, root_of, unquote_url, url_of
from l2view.text import strip_credentials

TEMPLATE = re.compile(r"\{\{\s*(\w+)\s*\}\}")


def parse_references(
    url: str, reader: ReadableFile, stores: ObjectStoreRegistry[Any], threshold: int
) -> Manifests:
    """Return Kerchunk's JSON as references (see `l2view.ingest.formats.CheckedParser`)."""
    reader.seek(0)
    content = json.loads(reader.read())
    refs = content.get("refs", content)
    if content.get("gen"):
        raise IngestError("its references are made by rules (gen), which aren't understood")
    if (version := content.get("version", 0)) not in (0, 1):
        raise IngestError(f"it is Kerchunk of version {version}; 0 and 1 are understood")
    metadata = {key: value for key, value in refs.items() if _name(key) in METADATA_KEYS}
    folders: defaultdict[str, JSON] = defaultdict(dict)
    paths = {key.rpartition("/")[0] for key in metadata if _name(key) != ".zgroup"}
    for key, value in refs.items():
        if key in metadata:
            continue
        path = key
        while path and path not in paths:
            path = path.rpartition("/")[0]
        path = path or key.rpartition("/")[0]
        folders[path][key[len(path) :].lstrip("/")] = value
    templates = content.get("templates", {})

    def read(path: str, document: JSON) -> Chunks:
        chunks = Chunks.missing(document)
        for key, value in folders.pop(path, {}).items():
            index = _index(key, document)
            if all(at < n for at, n in zip(index, chunks.paths.shape, strict=True)):
                _put(chunks, index, key, value, templates)
        return chunks

    manifests = _parse(metadata, read)
    for path in folders.keys() - manifests.omitted.keys():
        manifests.omitted[path] = "its references are of no array"
    return manifests


def parse_reference_tables(
    url: str, reader: ReadableFile | None, stores: ObjectStoreRegistry[Any], threshold: int
) -> Manifests:
    """Return a folder of Kerchunk's Parquet as references.

    Each array has tables of ``record_size`` chunks, in C order of its chunk grid.
    """
    store, folder = object_store(root_of(url)), url.removeprefix(f"{root_of(url)}/")
    content = json.loads(bytes(obstore.get(store, f"{folder}/.zmetadata").bytes()))
    rows = int(content["record_size"])

    def read(path: str, document: JSON) -> Chunks:
        chunks = Chunks.missing(document)
        for record in range(math.ceil(chunks.paths.size / rows)):
            try:
                data = obstore.get(store, f"{folder}/{path}/refs.{record}.parq").bytes()
            except FileNotFoundError:  # none of its chunks is stored
                continue
            _put_table(chunks, record * rows, pq.read_table(pa.BufferReader(bytes(data))))
        return chunks

    return _parse(content["metadata"], read)


def _name(key: str) -> str:
    return key.rpartition("/")[2]


def _parse(metadata: JSON, read: ReadChunks) -> Manifests:
    texts: defaultdict[str, JSON] = defaultdict(dict)
    for key, value in metadata.items():
        texts[key.rpartition("/")[0]][_name(key)] = value

    def node_at(path: str) -> Node:
        documents = {name: _json(text) for name, text in texts[path].items()}
        if "zarr.json" in documents:
            return Node(path, 3, documents["zarr.json"])
        return Node(path, 2, documents.get(".zarray"), documents.get(".zattrs", {}))

    return read_nodes(texts, node_at, read)


def _json(value: Any) -> JSON:
    return dict(value) if isinstance(value, Mapping) else dict(json.loads(value))


def _index(key: str, document: JSON) -> tuple[int, ...]:
    """Return the index of a chunk by its key; an `IngestError` says that it is none."""
    encoding = document.get("chunk_key_encoding", {})
    is_default = encoding.get("name", "default") == "default"
    separator = encoding.get("configuration", {}).get("separator", "/" if is_default else ".")
    rank = len(document["shape"])
    names = key.split(separator)
    if is_default and names[0] == "c":
        names = names[1:]
    if not rank and names in ([], ["0"], [""]):  # the last as VirtualiZarr writes it
        return ()
    if len(names) != rank or not all(name.isdecimal() for name in names):
        raise IngestError(f'its reference "{key}" is of no chunk')
    return tuple(map(int, names))


def _put(
    chunks: Chunks, index: tuple[int, ...], key: str, value: Any, templates: Mapping[str, str]
) -> None:
    """Set the chunk that a reference is of; an `IngestError` says that it isn't understood."""
    match value:
        case str() if value.startswith("base64:"):
            chunks.copy(index, base64.b64decode(value.removeprefix("base64:")))
        case str():
            chunks.copy(index, value.encode())
        case [str(text)]:
            url = _url(text, templates)
            chunks.refer(index, url, 0, _size(url))
        case [str(text), int(offset), int(length)] if length > 0:
            chunks.refer(index, _url(text, templates), offset, length)
        case _:
            text = str(value)[:100]
            raise IngestError(f'its reference "{key}" isn\'t understood: {text}')


def _put_table(chunks: Chunks, start: int, table: Any) -> None:
    """Set the chunks from `start` on by the rows of a table."""
    count = min(table.num_rows, chunks.paths.size - start)
    nothing = [None] * count
    columns = {name: table[name].to_pylist()[:count] for name in table.column_names}
    texts, raws = columns.get("path", nothing), columns.get("raw", nothing)
    urls = {text: _url(text, {}) for text in set(texts) if text and isinstance(text, str)}
    lengths = [length or 0 for length in columns.get("size", nothing)]
    for row, text in enumerate(texts):
        if text in urls and not lengths[row]:
            lengths[row] = _size(urls[text])
    span = slice(start, start + count)
    is_stored = np.array([text in urls for text in texts])
    chunks.paths.reshape(-1)[span] = [urls.get(text, "") for text in texts]
    offsets = np.array([at or 0 for at in columns.get("offset", nothing)], np.uint64)
    chunks.offsets.reshape(-1)[span] = np.where(is_stored, offsets, 0)
    chunks.lengths.reshape(-1)[span] = np.where(is_stored, np.array(lengths, np.uint64), 0)
    for row, raw in enumerate(raws):
        if isinstance(raw, bytes | str):
            index = tuple(int(at) for at in np.unravel_index(start + row, chunks.paths.shape))
            chunks.copy(index, raw.encode() if isinstance(raw, str) else raw)


def _url(text: str, templates: Mapping[str, str]) -> str:
    """Return the URL of a file, its templates filled in, as VirtualiZarr's parsers name it."""
    url = TEMPLATE.sub(lambda match: str(templates.get(match[1], match[0])), text)
    if "{{" in url:
        raise IngestError(f"the template in its URL {text} isn't understood")
    if not is_url(url) and not url.startswith("/"):
        raise IngestError(f"it refers to {url}, which is no URL and no absolute path")
    return url if is_url(url) else unquote_url(url_of(url))


def _size(url: str) -> int:
    """Return the size of a file in bytes, all of which is a chunk."""
    if (info := file_info(url)) is None:
        raise IngestError(f"it refers to {strip_credentials(url)}, where there is no file")
    return info.size
