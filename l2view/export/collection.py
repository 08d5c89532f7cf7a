"""A search result as a collection of its own: metadata, references and attributes, no data."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from l2view.export.reference_table import ReferenceTable, read_profiles
from l2view.granules import Location
from l2view.granules.layouts import LOCATING_FIELDS, StorageName
from l2view.granules.profile import DEFAULT_KEYS
from l2view.granules.references import ArrayReferences, Checksum, GranuleReferences
from l2view.granules.table import GranuleTable
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
from l2view.virtual.tree import Tree
from l2view.virtual.verify import verify_granules

COMMIT_GRANULES = 10_000
"""The granules in a commit."""

CONCURRENT_READS = 256
"""How many granules' documents, or files' headers, are read together."""


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
    """Write the granules of a tree as a collection (see `View.to_icechunk`).

    Parameters
    ----------
    tree
        The granules.
    target
        An Icechunk repository, a path or URL; or a session, which is left to commit.
    storage
        Where the arrays go.
    branch
        The branch to commit to.
    copy_native
        Whether chunks that nothing else can refer to are copied.
    check
        Whether files are looked at: one that has changed is an error, and the others are
        referred to with what tells later changes.
    progress
        Called with the granules that are written, and how many there are.

    Returns
    -------
    str or None
        The last snapshot, None where it is for the caller to commit.

    Raises
    ------
    ExportError
        Where a file has changed, a chunk can't be referred to, or a granule can't be written.
    """
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
    batches = _track(_batches(tree, copy_native, check), len(tree.granules), progress)
    if isinstance(session, icechunk.Session):
        _write_to_session(session, tree, batches, options)
        return None
    return _write_to_repository(open_repository(target), tree, batches, options)


def _write_to_session(
    session: icechunk.Session, tree: Tree, batches: Iterator[Batch], options: IngestOptions
) -> None:
    """Write granules into a session, which is left to commit."""
    for batch in batches:
        _require_containers(session, batch.urls)
        _require_written(write_to_session(session.store, batch.granules, options))
    _describe_fields(session.store, tree)


def _write_to_repository(
    repository: icechunk.Repository,
    tree: Tree,
    batches: Iterator[Batch],
    options: IngestOptions,
) -> str | None:
    """Write granules in commits of their own; return the last snapshot, None of no granules."""
    source_containers = _containers(tree)
    new_containers: list[str] = []
    is_empty = True
    for batch in batches:
        repository, added = with_containers(repository, batch.urls, source_containers)
        new_containers += added
        _require_written(write_batch(repository, batch.granules, options))
        is_empty = False
    if new_containers:
        keep_containers(repository, new_containers)
    if is_empty:
        return None
    session = repository.writable_session(options.branch)
    if _describe_fields(session.store, tree):
        session.commit("attributes of fields")
    extend(repository, options.branch)
    return repository.lookup_branch(options.branch)


def _require_written(result: BatchResult) -> None:
    if result.failed:
        reasons = [f"{granule.id}: {reason}" for granule, reason in result.failed]
        raise ExportError(
            f"{len(reasons)} granules can't be written: {join_names(reasons, most=3)}"
        )


@dataclass(frozen=True)
class Batch:
    """Granules that are written in one commit, and the URLs of their files."""

    granules: list[Granule]
    urls: set[str]


def _batches(tree: Tree, copy_native: bool, check: bool) -> Iterator[Batch]:
    """Yield the granules as ingest writes them, with what tells changes of their files."""
    for rows in batched(_granules(tree, copy_native), COMMIT_GRANULES):
        urls = {url for _, references in rows for url in references.urls}
        checksums = sync(_checksums(urls)) if check else {}
        granules = [
            Granule(fields, _with_checksums(references, checksums)) for fields, references in rows
        ]
        yield Batch(granules, urls)


def _track(batches: Iterator[Batch], total: int, progress: ReportProgress) -> Iterator[Batch]:
    """Yield batches, and report each when it is written."""
    done = 0
    for batch in batches:
        yield batch
        done += len(batch.granules)
        progress(done, total)


def _containers(tree: Tree) -> Mapping[str, icechunk.VirtualChunkContainer]:
    """Return the virtual chunk containers of the collection that the granules come from."""
    if not isinstance(tree.source, icechunk.IcechunkStore):
        return {}
    return tree.source.session.config.virtual_chunk_containers or {}


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


def _with_checksums(
    references: GranuleReferences, checksums: Mapping[str, Checksum]
) -> GranuleReferences:
    used = {url: checksums[url] for url in references.urls if url in checksums}
    return GranuleReferences(references.arrays, references.attributes, used)


@dataclass(frozen=True)
class ProfileReferences:
    """The granules of one profile, and the references of each of their arrays by path."""

    granule_table: GranuleTable
    locations: Sequence[Location]
    tables: Mapping[str, ReferenceTable]

    async def documents(self, tree: Tree, member: int) -> dict[str, JSON]:
        """Return the documents of a granule's nodes by path, with the shapes that are shown."""
        documents = {}
        for path in (*self.granule_table.groups, *self.tables):
            document = await tree.layout.document(self.locations[member], path) or {}
            if path in self.tables:
                array = self.granule_table.arrays[path]
                shape = (array.ends[member] - array.begins[member]).tolist()
                document = {**document, "shape": shape}
            documents[path] = document
        return documents

    def references(self, documents: Mapping[str, JSON], member: int) -> GranuleReferences:
        """Return what ingest writes of a granule."""
        arrays = tuple(
            _array_references(path, documents[path], table, member)
            for path, table in self.tables.items()
        )
        groups = {
            path: documents[path].get("attributes") or {} for path in self.granule_table.groups
        }
        return GranuleReferences(arrays, groups)


def _granules(tree: Tree, copy_native: bool) -> Iterator[tuple[dict[str, Any], GranuleReferences]]:
    """Yield the fields and references of each granule, in the view's order."""
    profiles = [
        ProfileReferences(granule_table, locations, tables)
        for granule_table, locations, tables in read_profiles(tree, copy_native=copy_native)
    ]
    members = {
        row: (profile, member)
        for profile in profiles
        for member, row in enumerate(profile.granule_table.rows.tolist())
    }
    for rows in batched(sorted(members), CONCURRENT_READS):
        granules = [members[row] for row in rows]
        documents = sync(_read_documents(tree, granules))
        for fields, nodes, (profile, member) in zip(
            _ingest_fields(tree, rows), documents, granules, strict=True
        ):
            yield fields, profile.references(nodes, member)


async def _read_documents(
    tree: Tree, granules: Sequence[tuple[ProfileReferences, int]]
) -> list[dict[str, JSON]]:
    """Return the documents of granules' nodes, which are read together."""
    await tree.layout.prefetch(
        [
            (profile.locations[member], path)
            for profile, member in granules
            for path in (*profile.granule_table.groups, *profile.tables)
        ]
    )
    return [await profile.documents(tree, member) for profile, member in granules]


def _array_references(
    path: str, document: JSON, table: ReferenceTable, member: int
) -> ArrayReferences:
    """Return the references of one granule's array."""
    chunks, grid = table.slice_of(member), table.grids[member]
    inlined = {}
    if table.inlined:
        for position in range(chunks.start, chunks.stop):
            if position in table.inlined:
                index = np.unravel_index(position - chunks.start, grid) if len(grid) else ()
                inlined[tuple(int(i) for i in index)] = table.inlined[position]
    return ArrayReferences(
        path,
        {**document, "chunk_key_encoding": DEFAULT_KEYS},
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
        return [
            None if text is None else shapely.to_wkb(shapely.from_wkt(text))
            for text in column.to_pylist()
        ]
    return list(column.to_pylist())


def _describe_fields(store: icechunk.IcechunkStore, tree: Tree) -> bool:
    """Give the fields the attributes that describe them; return whether any was new."""
    meta = zarr.open_group(store, path=META, mode="a")
    changed = False
    for name, attributes in tree.field_attributes.items():
        array = meta.get(name)
        if isinstance(array, zarr.Array):
            new = {
                key: value
                for key, value in attributes.items()
                if key not in DECODING - {"units"} and key not in array.attrs
            }
            if new:
                array.attrs.update(new)
                changed = True
    return changed
