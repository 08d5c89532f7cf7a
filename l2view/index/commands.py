"""All indexes of a collection, made or dropped, each in a commit of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import icechunk
from zarr.abc.store import Store
from zarr.core.sync import sync

from l2view.errors import FieldError, IngestError, L2ViewWarning, StoreError, warn
from l2view.index.indexes import Indexes
from l2view.index.sorted import build_sorted, can_be_sorted
from l2view.index.storage import (
    FOOTPRINTS,
    SEGMENTS,
    SORTED,
    TREES,
    ZONES,
    add_segment,
    bump_rewrite_marker,
    remove,
)
from l2view.index.trees import build_tree, is_ours
from l2view.index.zone_maps import build_zones, has_zones
from l2view.limits import limits
from l2view.meta.schema import Field, read_fields
from l2view.stores.hierarchy import META, Hierarchy, join
from l2view.stores.open import SourceOptions, open_source
from l2view.stores.repository import find_repository
from l2view.text import unknown_name

ATTEMPTS = 5
"""How often an index is made again where others rewrite rows meanwhile."""

DEFAULT_SORTED = ("id",)
"""The fields that are sorted if nobody says which: few granules are asked for by it."""

GROWTH = 2
"""An index of rows that came later takes in those before it that are not so many times larger:
there are few at any time, and no row is taken in often."""

MAKERS = {"tree": build_tree, "sorted": build_sorted}
"""What makes the index of one field."""

type Kind = Literal["zones", "tree", "sorted"]
"""Zone maps of all fields, the R-tree of one, or the sorted index of one."""


@dataclass(frozen=True)
class Index:
    """An index.

    Attributes
    ----------
    kind
        What it is.
    field
        The field that it is of, empty for zone maps.
    """

    kind: Kind
    field: str = ""

    def __str__(self) -> str:
        names = {"zones": "zone maps", "tree": "R-tree of ", "sorted": "sorted index of "}
        return names[self.kind] + self.field


def build_indexes(
    store: Any,
    fields: Sequence[str] | None = None,
    *,
    drop: bool = False,
    branch: str = "main",
    geometry_field: str | None = None,
    progress: Callable[[Index, int, int], None] = lambda index, rows, total: None,
) -> list[Index]:
    """Make indexes, or drop them.

    Parameters
    ----------
    store
        A path, URL, Icechunk repository, or Zarr store that can be written to.
    fields
        Of which fields: footprints get an R-tree, others a sorted index. By default zone maps
        of all fields, the R-trees of all footprints, and the sorted index of ``id``.
    drop
        Whether they are dropped instead; by default all that there are.
    branch
        The branch of a repository to commit to.
    geometry_field
        A field that is taken for footprints beside those with the usual names.
    progress
        Called with an index, the rows that were gone through for it, and how many there are.

    Returns
    -------
    list of Index
        What was made or dropped.

    Raises
    ------
    FieldError
        Where there is no such field, or it has no order.
    IngestError, StoreError
        Where the store can't be written to, or others rewrite rows time and again.
    """
    source = open_source(store, SourceOptions(authorize=False))
    repository = None
    if isinstance(source.store, icechunk.IcechunkStore):
        if not isinstance(store, icechunk.Repository | icechunk.Storage | str | os.PathLike):
            raise StoreError("indexes are made in commits of their own: pass the repository")
        repository = find_repository(store)
        source = open_source(repository, SourceOptions(branch, authorize=False))
    elif isinstance(store, Store) and store.read_only:
        raise StoreError(f"{source.label} was opened to be read only")
    hierarchy = Hierarchy(source.store, source.path)
    if not sync(source.store.exists(f"{hierarchy.key('')}/zarr.json".lstrip("/"))):
        raise StoreError(f"{source.label} is no Zarr v3 store, beside which indexes could lie")
    fields_now, _ = sync(read_fields(hierarchy, META, geometry_field))
    known = {field.name: field for field in fields_now}
    if not known:
        raise StoreError(f"{source.label} has no fields in its group {META}")
    wanted = (
        _existing_indexes(hierarchy)
        if drop and fields is None
        else _requested_indexes(known, fields)
    )
    for one in wanted:
        work = (
            _drop_work(one, source.path) if drop else _build_work(one, known, source.path, progress)
        )
        if repository is None:
            work(_writable(source.store))
        else:
            _commit(repository, branch, f"{'drop' if drop else 'index'}: {one}", work)
    return wanted


def extend(
    repository: icechunk.Repository,
    branch: str = "main",
    progress: Callable[[Index, int, int], None] = lambda index, rows, total: None,
) -> list[Index]:
    """Let indexes know of rows that came since they were made, at a cost in proportion to these.

    They get an index of their own, which takes in the last ones before it that aren't larger by
    far (as log-structured merge trees do).

    Parameters
    ----------
    repository
        The collection's repository.
    branch
        The branch to commit to.
    progress
        Called with an index, the rows that were gone through for it, and how many there are.

    Returns
    -------
    list of Index
        Those that know of more rows.
    """
    found = []
    for one in _existing_indexes(Hierarchy(repository.readonly_session(branch).store)):
        try:
            if one.kind != "zones" and _commit(
                repository, branch, f"index: {one}", _extend_work(one, progress)
            ):
                found.append(one)
        except IngestError as error:
            warn(f"{one} doesn't know of the last rows, which are scanned: {error}", L2ViewWarning)
    return found


def _extend_work(
    one: Index, progress: Callable[[Index, int, int], None]
) -> Callable[[Store], bool]:
    """Return what lets an index know of rows that came since, where they are many."""

    def work(store: Store) -> bool:
        hierarchy = Hierarchy(store)
        field = _current_field(hierarchy, one)
        begin = None if field is None else _segment_start(hierarchy, one, field)
        if field is None or begin is None:
            return False
        total, done = field.length - begin, 0

        def tell(rows: int) -> None:
            nonlocal done
            done += rows
            progress(one, done, total)

        always = MAKERS[one.kind](hierarchy, field, tell, begin)
        if begin:
            path = join(TREES if one.kind == "tree" else SORTED, one.field)
            add_segment(hierarchy, path, range(begin, field.length), always)
        return True

    return work


def _current_field(hierarchy: Hierarchy, one: Index) -> Field | None:
    """Return the field that an index is of, None where it is gone."""
    fields, _ = sync(read_fields(hierarchy, META, one.field if one.kind == "tree" else None))
    return next((field for field in fields if field.name == one.field), None)


def _segment_start(hierarchy: Hierarchy, one: Index, field: Field) -> int | None:
    """Return the first row of an index of those that came later, None where they are few."""
    indexes, parts = Indexes(hierarchy), list[range]()
    if one.kind == "tree" and (trees := indexes.tree(field)) is not None:
        parts = [part.rows for part in trees.parts]
    elif one.kind == "sorted" and (ordered := indexes.sorted(field)) is not None:
        parts = [part.covered for part in ordered.parts]
    begin = parts[-1].stop if parts else 0
    if field.length - begin < limits().segment_rows:
        return None
    while parts and len(parts[-1]) < GROWTH * (field.length - begin):
        begin = parts.pop().start
    return begin


def _requested_indexes(known: dict[str, Field], fields: Sequence[str] | None) -> list[Index]:
    """Return the indexes that are asked for."""
    if fields is None:
        found = [Index("zones")]
        found += [Index("tree", name) for name, one in known.items() if one.geometry is not None]
        return found + [Index("sorted", name) for name in DEFAULT_SORTED if name in known]
    found = []
    for name in dict.fromkeys(fields):
        if name not in known:
            raise FieldError(unknown_name("field", name, known))
        if known[name].geometry is not None:
            found.append(Index("tree", name))
        elif can_be_sorted(known[name]):
            found.append(Index("sorted", name))
        else:
            raise FieldError(
                f'the field "{name}" is {known[name].type}, which has no order to index'
            )
    return found


def _existing_indexes(hierarchy: Hierarchy) -> list[Index]:
    """Return the indexes that there are, but for those of other makers."""
    found = [Index("zones")] if sync(hierarchy.children(ZONES)) else []
    for name in sync(hierarchy.children(TREES)):
        document = sync(hierarchy.read(join(TREES, name))) or {}
        if is_ours(document):
            found.append(Index("tree", name))
    return found + [Index("sorted", name) for name in sync(hierarchy.children(SORTED))]


def _build_work(
    one: Index,
    known: dict[str, Field],
    root: str,
    progress: Callable[[Index, int, int], None],
) -> Callable[[Store], bool]:
    """Return what makes an index in a store."""
    rows = next(iter(known.values())).length
    times = sum(map(has_zones, known.values())) if one.kind == "zones" else 1
    total = rows * times

    def work(store: Store) -> bool:
        hierarchy, done = Hierarchy(store, root), 0

        def tell(rows: int) -> None:
            nonlocal done
            done += rows
            progress(one, done, total)

        if one.kind == "zones":
            build_zones(hierarchy, progress=tell)
        elif (
            field := _current_field(hierarchy, one)
        ) is not None:  # which may have more rows by now
            MAKERS[one.kind](hierarchy, field, tell)
        return True

    return work


def _drop_work(one: Index, root: str) -> Callable[[Store], bool]:
    """Return what drops an index of a store."""

    def work(store: Store) -> bool:
        hierarchy = Hierarchy(store, root)
        match one.kind:
            case "zones":
                remove(hierarchy, ZONES)
            case "tree":
                remove(hierarchy, join(TREES, one.field))
                remove(hierarchy, join(FOOTPRINTS, one.field))
                remove(hierarchy, join(SEGMENTS, one.field))
            case "sorted":
                remove(hierarchy, join(SORTED, one.field))
                remove(hierarchy, join(SEGMENTS, one.field))
        return True

    return work


def _commit(
    repository: icechunk.Repository, branch: str, message: str, work: Callable[[Store], bool]
) -> bool:
    """Do work in a commit; what others append meanwhile stays, and is scanned until indexed.

    Returns
    -------
    bool
        Whether there was anything to do.

    Raises
    ------
    IngestError
        Where others rewrite rows time and again.
    """
    for _ in range(ATTEMPTS):
        session = repository.writable_session(branch)
        if not work(session.store):
            return False
        bump_rewrite_marker(Hierarchy(session.store))
        try:
            session.commit(message, rebase_with=icechunk.ConflictDetector())
            return True
        except (icechunk.ConflictError, icechunk.RebaseFailedError):
            continue
    raise IngestError(
        f"others changed the same {ATTEMPTS} times while it was made ({message}); "
        "run it again when no ingest runs"
    )


def _writable(store: Store) -> Store:
    """Return a store to write to.

    Raises
    ------
    StoreError
        Where it is of a kind that can't be written to.
    """
    try:
        return store.with_read_only(False)
    except NotImplementedError as error:
        raise StoreError(
            f"{type(store).__name__} can't be written to; indexes are made in an Icechunk "
            "repository, a folder or an object store"
        ) from error
