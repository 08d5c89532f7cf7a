"""Entries in, commits out: parsing side by side, writing batch by batch.

Nothing is held of an ingest but one batch, the entries that are being parsed, and its report.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import batched
from multiprocessing import get_context
from typing import Any

import icechunk
import zarr

from l2view.errors import IngestError
from l2view.ingest.entries import entries_of
from l2view.ingest.formats import Parser
from l2view.ingest.harvest import Harvester
from l2view.ingest.parse import Entry, Failure, Reading, parse
from l2view.ingest.report import IngestReport
from l2view.ingest.repository import open_repository, with_containers
from l2view.ingest.writer import IDS, Granule, OnConflict, rows_of, write_batch

BATCH = 1_000
"""The most granules in a commit."""

SECONDS = 60.0
"""The longest that granules wait for their commit."""

LOOKED_UP = 200
"""The entries whose ids are looked up together."""

type Parallel = bool | int | str | Executor
"""False for none, a number of processes, ``"threads"``, ``"dask"``, ``"lithops"``, or an
executor."""


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
    progress: Callable[[IngestReport], None] | None = None,
) -> IngestReport:
    """Add granules to a collection (see `l2view.ingest`)."""
    if on_conflict not in ("skip", "replace", "error"):
        raise IngestError(f"on_conflict={on_conflict!r} is not skip, replace or error")
    if batch < 1:
        raise IngestError(f"batch={batch} is no number of granules")
    repository = open_repository(store)
    report = IngestReport()
    reading = Reading(parser, harvest, collection, dict(defaults or {}))
    entries: Iterable[Entry] = _sound(entries_of(granules), report)
    if on_conflict == "skip":
        entries = _unknown(repository, entries, report, branch)
    told = progress or (lambda _: None)
    with executor_of(parallel) as (executor, window):
        pending: list[Granule] = []
        began = time.monotonic()

        def flush() -> None:
            nonlocal pending, repository
            if pending:
                repository = _write(repository, pending, report, branch, on_conflict)
                pending = []
                told(report)

        for found in _parsed(executor, window, entries, reading):
            if isinstance(found, Failure):
                report.fail(found)
            else:
                pending.append(found)
            if strict and report.failed:
                flush()
                _stop(report)
            if len(pending) >= batch or time.monotonic() - began > SECONDS:
                flush()
                began = time.monotonic()
            told(report)
        flush()
    if strict and report.failed:
        _stop(report)
    return report


def _stop(report: IngestReport) -> None:
    first = report.failed[0]
    raise IngestError(
        f"{first.id} ({first.url}): {first.reason}. {report.added.count} granules were added before"
    )


def _sound(entries: Iterable[Entry | Failure], report: IngestReport) -> Iterator[Entry]:
    """Yield the entries that are some, and report the others."""
    for entry in entries:
        if isinstance(entry, Failure):
            report.fail(entry)
        else:
            yield entry


def _unknown(
    repository: icechunk.Repository, entries: Iterable[Entry], report: IngestReport, branch: str
) -> Iterator[Entry]:
    """Yield the entries whose ids aren't in the collection, so that they aren't parsed again."""
    for some in batched(entries, LOOKED_UP):
        root = (
            zarr.open_group(repository.readonly_session(branch).store, mode="r")
            if (_written(repository, branch))
            else None
        )
        known = {} if root is None or IDS not in root else rows_of(root, [one.id for one in some])
        report.skipped.add([one.id for one in some if one.id in known])
        yield from (one for one in some if one.id not in known)


def _written(repository: icechunk.Repository, branch: str) -> bool:
    """Return whether anything was ever committed."""
    return len(list(zip(repository.ancestry(branch=branch), range(2), strict=False))) > 1


def _write(
    repository: icechunk.Repository,
    granules: list[Granule],
    report: IngestReport,
    branch: str,
    on_conflict: OnConflict,
) -> icechunk.Repository:
    urls = {url for granule in granules for url in granule.references.urls}
    repository, containers = with_containers(repository, urls)
    report.containers.extend(containers)
    written = write_batch(repository, granules, branch=branch, on_conflict=on_conflict)
    report.take(written, {granule.id: str(granule.row.get("href", "")) for granule in granules})
    kept = {*written.added, *written.replaced}
    for granule in granules:
        if granule.id in kept:
            for array in granule.references.arrays:
                report.references += len(array.locations) - array.locations.count("")
                report.bytes += int(array.lengths.sum())
    return repository


def _parsed(
    executor: Executor | None, window: int, entries: Iterable[Entry], reading: Reading
) -> Iterator[Granule | Failure]:
    """Yield what `parse` makes of entries, in their order, so many at a time."""
    if executor is None:
        yield from (parse(entry, reading) for entry in entries)
        return
    waiting: deque[Future[Granule | Failure]] = deque()
    for entry in entries:
        waiting.append(executor.submit(parse, entry, reading))
        if len(waiting) >= window:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@contextmanager
def executor_of(parallel: Parallel) -> Iterator[tuple[Executor | None, int]]:
    """Give an executor, and how many tasks it shall have at a time.

    Raises
    ------
    IngestError
        Where `parallel` is none of `Parallel`.
    """
    if parallel is False or parallel == 1:
        yield None, 1
    elif isinstance(parallel, Executor):
        yield parallel, 64
    elif parallel == "threads":
        with ThreadPoolExecutor() as threads:
            yield threads, 64
    elif parallel is True or isinstance(parallel, int):
        workers = None if parallel is True else int(parallel)
        # Icechunk and obstore run threads, which a forked process would lack.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as processes:
            yield processes, 4 * (workers or 8)
    elif parallel in ("dask", "lithops"):
        from virtualizarr.parallel import get_executor

        made: Any = get_executor(parallel)  # type: ignore[arg-type]
        with made() as executor:
            yield executor, 64
    else:
        raise IngestError(
            f"parallel={parallel!r} is not a number of processes, threads, dask, lithops, or an "
            "executor"
        )
