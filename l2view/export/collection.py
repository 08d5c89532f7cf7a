"""A search result as a collection of its own: metadata, references and attributes, no data."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from l2view.export.cells import Cells, cells
from l2view.granules import Location
from l2view.granules.inventory import Inventory
from l2view.granules.layouts import LOCATING_FIELDS, StorageName
from l2view.granules.profile import DEFAULT_KEYS
from l2view.granules.references import ArrayReferences, Checksum, GranuleReferences
from l2view.index.commands import extend
from l2view.ingest.files import FileInfo, object_store
from l2view.ingest.granule import Granule
from l2view.ingest.options import IngestOptions
from l2view.ingest.writer import write_batch, write_to_session
from l2view.meta.schema import GEOMETRIES, ROW
from l2view.stores.hierarchy import JSON, META
from l2view.stores.repository import keep_containers, open_repository, with_containers
from l2view.stores.urls import key_of, root_of
from l2view.text import join_names
from l2view.virtual.attributes import DECODING, is_geometry, json_values
from l2view.virtual.store import ViewStore
from l2view.virtual.tree import Tree
from l2view.virtual.verify import verify_granules

BATCH = 10_000
"""The granules in a commit."""

TOGETHER = 256
"""How many granules' documents are read together."""


def to_icechunk(
    tree: Tree,
    target: Any,
    *,
    storage: StorageName = "packed",
    branch: str = "main",
    copy_native: bool = False,
    check: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
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
    session = _session_of(target)
    repository = None if session is not None else open_repository(target)
    granules = _granules(tree, copy_native)
    known = _containers(tree)
    options = IngestOptions(on_conflict="error", branch=branch, storage=storage)
    snapshot, done, made = None, 0, []
    sums: dict[str, Checksum] = {}
    if check:
        _check(tree)
    for some in batched(granules, BATCH):
        urls = {url for _, references in some for url in references.urls}
        if check:
            sums = sync(_checksums(urls))
        ready = [Granule(row, _with_checksums(references, sums)) for row, references in some]
        if session is not None:
            _require_containers(session, urls)
            written = write_to_session(session.store, ready, options)
        else:
            assert repository is not None
            repository, new = with_containers(repository, urls, known)
            made += new
            written = write_batch(repository, ready, options)
            snapshot = written.snapshot
        if written.failed:
            reasons = [f"{granule.id}: {reason}" for granule, reason in written.failed]
            raise ExportError(
                f"{len(reasons)} granules can't be written: {join_names(reasons, most=3)}"
            )
        done += len(some)
        progress(done, len(tree.granules))
    if repository is None:
        assert session is not None
        _describe(session.store, tree)
        return None
    if made:
        keep_containers(repository, made)
    if done:
        described = repository.writable_session(branch)
        if _describe(described.store, tree):
            snapshot = described.commit("attributes of fields")
        extend(repository, branch)
        snapshot = repository.lookup_branch(branch)
    return snapshot


def _session_of(target: Any) -> icechunk.Session | None:
    """Return the session that was passed; None where it is a repository or a place."""
    session = target.session if isinstance(target, icechunk.IcechunkStore) else target
    if not isinstance(session, icechunk.Session):
        return None
    if session.read_only:
        raise ExportError("this session can't be written to; pass repository.writable_session()")
    return session


def _containers(tree: Tree) -> Mapping[str, icechunk.VirtualChunkContainer]:
    """Return the virtual chunk containers of the collection that the granules come from."""
    if not isinstance(tree.source, icechunk.IcechunkStore):
        return {}
    return tree.source.session.config.virtual_chunk_containers or {}


def _require_containers(session: icechunk.Session, urls: set[str]) -> None:
    known = tuple(session.config.virtual_chunk_containers or {})
    outside = sorted(url for url in urls if not unquote(url).startswith(known))
    if outside:
        raise ExportError(
            f"no virtual chunk container of the session's repository covers {outside[0]}; pass the "
            "repository itself, which gets them, or add one to its configuration"
        )


def _check(tree: Tree) -> None:
    """Raise where a file isn't what it was when it was referred to."""
    wrong = {
        name: reason
        for name, reason in verify_granules(ViewStore(tree.uncropped()))
        if reason is not None
    }
    if wrong:
        name, reason = next(iter(wrong.items()))
        raise ExportError(
            f"the files of {len(wrong)} granules have changed or are gone ({join_names(wrong)}), "
            f"as {name}: {reason}; search without them, or pass check=False to refer to what is "
            "there"
        )


async def _checksums(urls: set[str]) -> dict[str, Checksum]:
    """Return what tells whether files change from now on."""

    async def one(url: str) -> tuple[str, Checksum]:
        meta = await obstore.head_async(object_store(root_of(url)), key_of(url))
        return url, FileInfo.from_meta(url, meta).checksum

    found: dict[str, Checksum] = {}
    for some in batched(sorted(urls), TOGETHER):
        found |= dict(await asyncio.gather(*map(one, some)))
    return found


def _with_checksums(
    references: GranuleReferences, sums: Mapping[str, Checksum]
) -> GranuleReferences:
    kept = {url: sums[url] for url in references.urls if url in sums}
    return GranuleReferences(references.arrays, references.attributes, kept)


def _granules(tree: Tree, copy_native: bool) -> Iterator[tuple[dict[str, Any], GranuleReferences]]:
    """Yield the row and references of each granule, in the view's order."""
    found = sync(tree.inventories())
    columns = {
        (number, path): cells(tree, inventory, locations, path, copy_native=copy_native)
        for number, (inventory, locations) in enumerate(found)
        for path in inventory.arrays
        if tree.shows(path)
    }
    whose: dict[int, tuple[int, int]] = {}
    for number, (inventory, _) in enumerate(found):
        whose |= {row: (number, member) for member, row in enumerate(inventory.rows.tolist())}
    for rows in batched(sorted(whose), TOGETHER):
        metadata = _rows(tree, rows)
        wanted = [(*found[whose[row][0]], whose[row][1]) for row in rows]
        documents = sync(_documents(tree, wanted))
        for row, values, (inventory, _, member), nodes in zip(
            rows, metadata, wanted, documents, strict=True
        ):
            number = whose[row][0]
            arrays = tuple(
                _array(path, nodes[path], columns[number, path], member)
                for path in inventory.arrays
                if tree.shows(path)
            )
            groups = {path: nodes[path].get("attributes") or {} for path in inventory.groups}
            yield values, GranuleReferences(arrays, groups)


def _array(path: str, document: JSON, columns: Cells, member: int) -> ArrayReferences:
    """Return the references of one granule's array."""
    own = columns.own(member)
    grid = columns.grids[member]
    inlined = {}
    if columns.inlined:
        for number in range(own.start, own.stop):
            if number in columns.inlined:
                index = np.unravel_index(number - own.start, grid) if len(grid) else ()
                inlined[tuple(int(i) for i in index)] = columns.inlined[number]
    return ArrayReferences(
        path,
        {**document, "chunk_key_encoding": DEFAULT_KEYS},
        columns.locations(member),
        columns.offsets[own],
        columns.lengths[own],
        inlined,
    )


async def _documents(
    tree: Tree, wanted: Sequence[tuple[Inventory, Sequence[Location], int]]
) -> list[dict[str, JSON]]:
    """Return the documents of granules' nodes, by path."""
    paths = [
        [*inventory.groups, *(path for path in inventory.arrays if tree.shows(path))]
        for inventory, _, _ in wanted
    ]
    places = [locations[member] for _, locations, member in wanted]
    each = [(place, path) for place, some in zip(places, paths, strict=True) for path in some]
    await tree.layout.prefetch(each)
    found = []
    for place, some, (inventory, _, member) in zip(places, paths, wanted, strict=True):
        documents = {path: await tree.layout.document(place, path) for path in some}
        found.append({p: _document(said, inventory, p, member) for p, said in documents.items()})
    return found


def _document(document: JSON | None, inventory: Inventory, path: str, member: int) -> JSON:
    """Return a node's document, an array's with the shape that is shown."""
    found = document or {}
    if path not in inventory.arrays:
        return found
    array = inventory.arrays[path]
    return {**found, "shape": (array.ends[member] - array.begins[member]).tolist()}


def _rows(tree: Tree, rows: Sequence[int]) -> list[dict[str, Any]]:
    """Return the fields of some granules as ingest takes them; ``id`` is among them."""
    granules = tree.granules
    table = granules.table.take(pa.array(rows))
    dropped = {ROW, *LOCATING_FIELDS, *tree.layout.fields} - {"id"}
    columns: dict[str, list[Any]] = {}
    for one in table.schema:
        if one.name not in dropped:
            columns[one.name] = _values(table.column(one.name).combine_chunks(), one)
    if "id" not in columns:
        columns["id"] = [granules.name(row) for row in rows]
    return [
        {name: values[number] for name, values in columns.items()} for number in range(len(rows))
    ]


def _values(column: pa.Array, field: pa.Field) -> list[Any]:
    """Return a column as values that ingest takes."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        whole = column.cast(pa.timestamp("us"), safe=False)
        if not whole.cast(kind).equals(column):
            message = f'the field "{field.name}" is kept to the microsecond, and had nanoseconds'
            warn(message, L2ViewWarning)
        return list(whole.to_pylist())
    if pa.types.is_duration(kind):
        warn(f'the field "{field.name}" is kept as text, such as "PT1S"', L2ViewWarning)
        return json_values(column)
    if (field.name in GEOMETRIES or is_geometry(field)) and not pa.types.is_binary(kind):
        return [
            None if text is None else shapely.to_wkb(shapely.from_wkt(text))
            for text in column.to_pylist()
        ]
    return list(column.to_pylist())


def _describe(store: icechunk.IcechunkStore, tree: Tree) -> bool:
    """Give the fields the attributes that describe them; return whether there were any."""
    meta = zarr.open_group(store, path=META, mode="a")
    found = False
    for name, attributes in tree.field_attributes.items():
        kept = {key: value for key, value in attributes.items() if key not in DECODING - {"units"}}
        array = meta.get(name)
        if isinstance(array, zarr.Array):
            new = {key: value for key, value in kept.items() if key not in array.attrs}
            if new:
                array.attrs.update(new)
                found = True
    return found
