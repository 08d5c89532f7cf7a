"""A search result as a collection of its own: metadata, references and attributes, no data."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import batched
from typing import Any
from urllib.parse import unquote

import icechunk
import numpy as np
import obstore
import pyarrow as pa
import shapely
import zarr
from zarr.core.sync import sync

from l2view.errors import ExportError, L2ViewWarning, warn
from l2view.export.manifests import ReferenceTable, shown_references
from l2view.granules import Location
from l2view.granules.layouts import LOCATING_FIELDS, StorageName
from l2view.granules.profile import DEFAULT_KEYS
from l2view.granules.references import ArrayReferences, Checksum, GranuleReferences
from l2view.index.commands import extend
from l2view.ingest.files import FileInfo, object_store
from l2view.ingest.granule import BatchResult, Granule
from l2view.ingest.options import IngestOptions
from l2view.ingest.writer import write_batch, write_to_session
from l2view.meta.schema import GEOMETRIES, ROW
from l2view.progress import ReportProgress
from l2view.stores.hierarchy import JSON, META
from l2view.stores.repository import keep_containers, open_repository, with_containers
from l2view.stores.urls import key_of, root_of
from l2view.text import join_names
from l2view.virtual.attributes import DECODING, is_geometry, json_values
from l2view.virtual.references import verify_granules
from l2view.virtual.tree import Tree

COMMIT_GRANULES = 10_000  # the granules in a commit
CONCURRENT_READS = 256  # how many granules' documents, or files' headers, are read together


def to_icechunk(
    tree: Tree,
    target: Any,
    *,
    storage: StorageName = "packed",
    branch: str = "main",
    copy_native: bool = False,
    check: bool = True,
    progress: ReportProgress = lambda done, total: None,
) -> str | None:
    """Write the granules of a tree as a collection (see `View.to_icechunk`)."""
    if not len(tree.granules):
        raise ExportError("the view has no granules, and there is nothing to write")
    if lost := sorted(LOCATING_FIELDS.intersection(tree.granules.fields) - set(tree.layout.fields)):
        warn(
            f"the fields {join_names(lost)} are where l2view keeps a granule's place", L2ViewWarning
        )
    session = target.session if isinstance(target, icechunk.IcechunkStore) else target
    if isinstance(session, icechunk.Session) and session.read_only:
        raise ExportError("this session can't be written to; pass repository.writable_session()")
    if check:
        _require_unchanged(tree)
    options = IngestOptions(on_conflict="error", branch=branch, storage=storage)
    batches = _batches(tree, copy_native, check, progress)
    if isinstance(session, icechunk.Session):
        for granules, urls in batches:
            _require_containers(session, urls)
            _require_written(write_to_session(session.store, granules, options))
        _describe_fields(session.store, tree)
        return None
    return _write_to_repository(open_repository(target), tree, batches, options)


def _write_to_repository(
    repository: icechunk.Repository, tree: Tree, batches: Iterator[Batch], options: IngestOptions
) -> str:
    """Write granules in commits of their own; return the last snapshot."""
    source_containers: Mapping[str, icechunk.VirtualChunkContainer] = {}
    if isinstance(tree.source, icechunk.IcechunkStore):
        source_containers = tree.source.session.config.virtual_chunk_containers or {}
    new_containers: list[str] = []
    for granules, urls in batches:
        repository, added = with_containers(repository, urls, source_containers)
        new_containers += added
        _require_written(write_batch(repository, granules, options))
    if new_containers:
        keep_containers(repository, new_containers)
    session = repository.writable_session(options.branch)
    if _describe_fields(session.store, tree):
        session.commit("attributes of fields")
    extend(repository, options.branch)
    return repository.lookup_branch(options.branch)


def _require_written(result: BatchResult) -> None:
    if result.failed:
        reasons = [f"{failure.id}: {failure.reason}" for failure in result.failed]
        raise ExportError(
            f"{len(reasons)} granules can't be written: {join_names(reasons, most=3)}"
        )


type Batch = tuple[list[Granule], set[str]]
"""Granules that are written in one commit, and the URLs of their files."""


def _batches(
    tree: Tree, copy_native: bool, check: bool, progress: ReportProgress
) -> Iterator[Batch]:
    """Yield the granules as ingest writes them, and report each batch when it is written."""
    done = 0
    for rows in batched(_granules(tree, copy_native), COMMIT_GRANULES):
        urls = {url for _, references in rows for url in references.urls}
        checksums = sync(_checksums(urls)) if check else {}
        granules = []
        for fields, references in rows:
            used = {url: checksums[url] for url in references.urls if url in checksums}
            granules.append(Granule(fields, replace(references, checksums=used)))
        yield granules, urls
        done += len(granules)
        progress(done, len(tree.granules))


def _require_containers(session: icechunk.Session, urls: set[str]) -> None:
    containers = tuple(session.config.virtual_chunk_containers or {})
    outside = sorted(url for url in urls if not unquote(url).startswith(containers))
    if outside:
        raise ExportError(
            f"no virtual chunk container of the session's repository covers {outside[0]}; pass the "
            "repository itself, which gets them, or add one to its configuration"
        )


def _require_unchanged(tree: Tree) -> None:
    """Raise where a file isn't what it was when it was referred to."""
    stale = {name: reason for name, reason in verify_granules(tree) if reason is not None}
    if stale:
        name, reason = next(iter(stale.items()))
        raise ExportError(
            f"the files of {len(stale)} granules have changed or are gone ({join_names(stale)}), "
            f"as {name}: {reason}; search without them, or pass check=False to refer to what is "
            "there"
        )


async def _checksums(urls: set[str]) -> dict[str, Checksum]:
    """Return what tells whether files change from now on."""

    async def head(url: str) -> Checksum:
        meta = await obstore.head_async(object_store(root_of(url)), key_of(url))
        return FileInfo.from_meta(url, meta).checksum

    checksums: dict[str, Checksum] = {}
    for batch in batched(sorted(urls), CONCURRENT_READS):
        checksums |= zip(batch, await asyncio.gather(*map(head, batch)), strict=True)
    return checksums


def _granules(tree: Tree, copy_native: bool) -> Iterator[tuple[dict[str, Any], GranuleReferences]]:
    """Yield the fields and references of each granule, in the view's order."""
    members = {
        row: (table, references, member)
        for table, references in shown_references(tree, copy_native)
        for member, row in enumerate(table.rows.tolist())
    }
    for rows in batched(sorted(members), CONCURRENT_READS):
        nodes = [
            (table.locations[member], path)
            for table, references, member in map(members.__getitem__, rows)
            for path in (*table.groups, *references)
        ]
        documents = sync(_read_documents(tree, nodes))
        for row, fields in zip(rows, _ingest_fields(tree, rows), strict=True):
            table, references, member = members[row]
            location = table.locations[member]
            groups = {p: documents[location, p].get("attributes") or {} for p in table.groups}
            arrays = (
                _array_references(path, shown, member, documents[location, path])
                for path, shown in references.items()
            )
            yield fields, GranuleReferences(tuple(arrays), groups)


async def _read_documents(
    tree: Tree, nodes: Sequence[tuple[Location, str]]
) -> dict[tuple[Location, str], JSON]:
    """Return the documents of granules' nodes, which are read together."""
    await tree.layout.prefetch(nodes)
    return {node: await tree.layout.document(*node) or {} for node in nodes}


def _array_references(
    path: str, table: ReferenceTable, member: int, document: JSON
) -> ArrayReferences:
    """Return the references of one granule's array, with the shape that is shown."""
    shape, grid, chunks = table.shapes[member], table.grids[member], table.slice_of(member)
    inlined = {}
    for position in range(chunks.start, chunks.stop) if table.inlined else ():
        if position in table.inlined:
            index = np.unravel_index(position - chunks.start, grid) if len(grid) else ()
            inlined[tuple(map(int, index))] = table.inlined[position]
    return ArrayReferences(
        path,
        {**document, "shape": shape.tolist(), "chunk_key_encoding": DEFAULT_KEYS},
        table.urls_of(member),
        table.offsets[chunks],
        table.lengths[chunks],
        inlined,
    )


def _ingest_fields(tree: Tree, rows: Sequence[int]) -> list[dict[str, Any]]:
    """Return the fields of granules as ingest takes them; ``id`` is among them."""
    table = tree.granules.table.take(pa.array(rows))
    dropped = {ROW, *LOCATING_FIELDS, *tree.layout.fields} - {"id"}
    columns = {
        field.name: _to_python(table.column(field.name).combine_chunks(), field)
        for field in table.schema
        if field.name not in dropped
    }
    if "id" not in columns:
        columns["id"] = [tree.granules.name(row) for row in rows]
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def _to_python(column: pa.Array, field: pa.Field) -> list[Any]:
    """Return a column as values that ingest takes."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        microseconds = column.cast(pa.timestamp("us"), safe=False)
        if not microseconds.cast(kind).equals(column):
            message = f'the field "{field.name}" is kept to the microsecond, and had nanoseconds'
            warn(message, L2ViewWarning)
        return list(microseconds.to_pylist())
    if pa.types.is_duration(kind):
        warn(f'the field "{field.name}" is kept as text, such as "PT1S"', L2ViewWarning)
        return json_values(column)
    if (field.name in GEOMETRIES or is_geometry(field)) and not pa.types.is_binary(kind):
        return list(shapely.to_wkb(shapely.from_wkt(column.to_pylist())))
    return list(column.to_pylist())


def _describe_fields(store: icechunk.IcechunkStore, tree: Tree) -> bool:
    """Give the fields the attributes that describe them; return whether any was new."""
    meta = zarr.open_group(store, path=META, mode="a")
    changed = False
    for name, attributes in tree.field_attributes.items():
        array = meta.get(name)
        if isinstance(array, zarr.Array):
            present = (DECODING - {"units"}) | array.attrs.keys()
            new = {key: value for key, value in attributes.items() if key not in present}
            if new:
                array.attrs.update(new)
                changed = True
    return changed
