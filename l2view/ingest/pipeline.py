"""Entries in, commits out: parsing side by side, writing batch by batch.

Nothing is held of an ingest but one batch, the entries that are being parsed, and its report.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import batched
from os import PathLike
from typing import Any

import icechunk
from rich.console import Console

from l2view.errors import FieldError, IngestError, L2ViewError
from l2view.granules.layouts import LAYOUTS, StorageName
from l2view.index.commands import Index, extend
from l2view.ingest.entries import entries_of
from l2view.ingest.executors import Parallel, mapped, workers
from l2view.ingest.formats import Parser
from l2view.ingest.harvest import Harvester
from l2view.ingest.parse import INLINE_THRESHOLD, Entry, Failure, Reading, parse
from l2view.ingest.progress import shown
from l2view.ingest.report import IngestReport
from l2view.ingest.writer import (
    Granule,
    OnConflict,
    State,
    is_another,
    planned,
    read_state,
    sources_of,
    storage_of,
    taken,
    write_batch,
)
from l2view.meta.columns import Kinds
from l2view.stores.repository import (
    containers_for,
    find_repository,
    keep_containers,
    open_repository,
    with_containers,
)
from l2view.stores.urls import common_folders
from l2view.text import unknown_name

BATCH = 1_000
"""The most granules in a commit."""

SECONDS = 60.0
"""The longest that granules wait for their commit."""

FOLDERS = 1_000
"""The folders that a dry run remembers before it takes those that they share."""

LOOKED_UP = 1_000
"""The entries whose ids are looked up together."""


def ingest(
    granules: Any,
    store: Any,
    *,
    on_conflict: OnConflict = "skip",
    harvest: Harvester | None = None,
    parser: Parser | None = None,
    collection: str | None = None,
    defaults: Mapping[str, Any] | None = None,
    parallel: Parallel = False,
    batch: int = BATCH,
    strict: bool = False,
    branch: str = "main",
    storage: StorageName | None = None,
    inline_threshold: int = INLINE_THRESHOLD,
    dry_run: bool = False,
    progress: bool | Callable[[IngestReport], None] = False,
) -> IngestReport:
    """Add granules to a collection (see `l2view.ingest`)."""
    if on_conflict not in ("skip", "replace", "error"):
        raise IngestError(f"on_conflict={on_conflict!r} is not skip, replace or error")
    if batch < 1:
        raise IngestError(f"batch={batch} is no number of granules")
    who = workers(parallel)
    repository = find_repository(store) if dry_run else open_repository(store)
    state = _state(repository, branch)
    chosen = storage_of(state, storage)
    report = IngestReport(dry_run=dry_run)
    reading = Reading(parser, harvest, collection, dict(defaults or {}), inline_threshold)
    with _told(progress, granules) as told:
        entries: Iterable[Entry] = _sound(entries_of(granules), report, told)
        if on_conflict == "skip" and repository is not None:
            entries = _unknown(repository, entries, report, branch, harvested=harvest is not None)
        parsed = mapped(who, partial(parse, reading=reading), entries, _lost)
        found = _granules(parsed, report, told, strict=strict)
        if repository is None or dry_run:
            _look(found, state, chosen, report)
        else:
            _write_all(repository, found, report, branch, on_conflict, chosen, batch)
            _index(repository, report, branch, told)
        told(report)
    if strict and report.failures:
        raise IngestError(f"{report.failed[0]}. {report.added.count} granules were added before")
    return report


@contextmanager
def _told(
    progress: bool | Callable[[IngestReport], None], granules: Any
) -> Iterator[Callable[[IngestReport], None]]:
    """Give what is told of the report as granules come in."""
    if callable(progress):
        yield progress
    elif progress:
        with shown(lambda: _count(granules), Console(stderr=True)) as show:
            yield show
    else:
        yield lambda report: None


def _count(granules: Any) -> int | None:
    """Return how many granules there are, None where they may be gone through but once."""
    several = granules if isinstance(granules, list | tuple) else [granules]
    if not all(isinstance(one, str | PathLike | Mapping) for one in several):
        return None
    try:
        return sum(1 for _ in entries_of(granules))
    except L2ViewError:  # which the ingest itself says
        return None


def _state(repository: icechunk.Repository | None, branch: str) -> State:
    if repository is None:
        return State()
    if branch not in repository.list_branches():
        raise IngestError(
            unknown_name("branch", branch, sorted(repository.list_branches()), "branches")
        )
    return read_state(repository.readonly_session(branch).store)


def _sound(
    entries: Iterable[Entry | Failure],
    report: IngestReport,
    told: Callable[[IngestReport], None],
) -> Iterator[Entry]:
    """Yield the entries that are some, and report the others."""
    for entry in entries:
        if isinstance(entry, Failure):
            report.fail(entry)
            told(report)
        else:
            yield entry


def _unknown(
    repository: icechunk.Repository,
    entries: Iterable[Entry],
    report: IngestReport,
    branch: str,
    *,
    harvested: bool,
) -> Iterator[Entry]:
    """Yield the entries whose ids aren't in the collection, so that they aren't parsed again.

    With `harvested`, the caller's function may have said where a granule comes from.
    """
    for some in batched(entries, LOOKED_UP):
        state = read_state(repository.readonly_session(branch).store)
        known = sources_of(state, [one.id for one in some])
        for entry in some:
            if entry.id not in known:
                yield entry
            elif not harvested and is_another(entry.source, known[entry.id][1]):
                report.fail(Failure(entry.id, entry.url, taken(known[entry.id][1])))
            else:
                report.skipped.add([entry.id])


def _lost(entry: Entry) -> Failure:
    return Failure(entry.id, entry.url, "the process that parsed it ended")


def _granules(
    parsed: Iterable[Granule | Failure],
    report: IngestReport,
    told: Callable[[IngestReport], None],
    *,
    strict: bool,
) -> Iterator[Granule]:
    """Yield the granules that are some, and report the others; none after them with `strict`."""
    for found in parsed:
        if isinstance(found, Failure):
            report.fail(found)
        else:
            report.parsed += 1
            yield found
        if strict and report.failures:
            return
        told(report)


def _look(
    granules: Iterable[Granule], state: State, storage: StorageName, report: IngestReport
) -> None:
    """Report what would be written."""
    kinds = Kinds({**state.kinds, **LAYOUTS[storage].kinds}, state.is_exact)
    folders: set[str] = set()
    for granule in granules:
        try:
            planned(granule, kinds, storage)
        except (FieldError, ValueError) as error:
            report.fail(Failure(granule.id, granule.source, str(error)))
            continue
        report.added.add([granule.id])
        report.see(granule)
        folders |= {f"{url.rpartition('/')[0]}/" for url in granule.references.urls}
        if len(folders) > FOLDERS:
            folders = set(common_folders(folders).values())
    report.containers.extend(containers_for(folders))
    report.fields = dict(kinds.known)


def _write_all(
    repository: icechunk.Repository,
    granules: Iterable[Granule],
    report: IngestReport,
    branch: str,
    on_conflict: OnConflict,
    storage: StorageName,
    batch: int,
) -> None:
    """Write granules, so many in a commit, and none that has waited for long."""
    pending: list[Granule] = []
    began = time.monotonic()

    def flush() -> None:
        nonlocal repository, began
        if pending:
            urls = {url for granule in pending for url in granule.references.urls}
            repository, containers = with_containers(repository, urls)
            report.containers.extend(containers)
            written = write_batch(
                repository, pending, branch=branch, on_conflict=on_conflict, storage=storage
            )
            report.take(written)
            pending.clear()
        began = time.monotonic()

    for granule in granules:
        pending.append(granule)
        if len(pending) >= batch or time.monotonic() - began > SECONDS:
            flush()
    flush()
    if report.containers:
        keep_containers(repository, report.containers)


def _index(
    repository: icechunk.Repository,
    report: IngestReport,
    branch: str,
    told: Callable[[IngestReport], None],
) -> None:
    """Let indexes know of what was written."""

    def tell(index: Index, rows: int, total: int) -> None:
        report.indexing = f"{index}: {rows:,} of {total:,} rows"
        told(report)

    if report.snapshots:
        report.indexes.extend(map(str, extend(repository, branch, tell)))
        report.indexing = ""
