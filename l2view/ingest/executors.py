"""The executors that parse: this process, threads, processes, Dask or Lithops."""

from __future__ import annotations

import importlib
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from os import cpu_count
from typing import Any

from l2view.errors import IngestError, explain_missing
from l2view.shutdown import exit_without_finalization
from l2view.text import first_line

type Parallel = bool | int | str | Executor
"""False for none, True for a process a processor, a number of processes, ``"threads"``,
``"dask"``, ``"lithops"``, or an executor."""

WINDOW = 64
"""The tasks that wait or run at a time, where the executor says nothing of its size."""


@dataclass(frozen=True)
class Workers:
    """An executor that can be made again, and how many tasks wait or run at a time.

    Nothing makes one where tasks run in this thread; where it is of `processes`, another is made
    when one of them ends.
    """

    make: Callable[[], AbstractContextManager[Executor]] | None
    window: int
    processes: bool = False


def workers(parallel: Parallel) -> Workers:
    """Return the workers that `parallel` names; an `IngestError` says that it names none."""
    if isinstance(parallel, Executor):
        context = getattr(parallel, "_mp_context", None)
        if context is not None and context.get_start_method() == "fork":
            # Icechunk and obstore run threads, which a forked process lacks: it would hang.
            raise IngestError(
                "parallel= is a pool of forked processes, which lack Icechunk's threads; make it "
                'with mp_context=multiprocessing.get_context("spawn")'
            )
        executor: Executor = parallel
        return Workers(lambda: nullcontext(executor), WINDOW)
    if parallel is True:
        parallel = cpu_count() or 1
    if parallel is False or parallel == 1:
        return Workers(None, 1)
    if isinstance(parallel, int) and parallel > 1:
        make = partial(
            ProcessPoolExecutor,
            parallel,
            mp_context=get_context("spawn"),
            initializer=exit_without_finalization,
            initargs=(0,),
        )
        return Workers(make, 4 * parallel, processes=True)
    if parallel == "threads":
        return Workers(ThreadPoolExecutor, WINDOW)
    if parallel in ("dask", "lithops"):
        from virtualizarr.parallel import get_executor

        with explain_missing(f"parallel={parallel!r} needs {parallel}", parallel, IngestError):
            importlib.import_module(parallel)
        make_any: Any = get_executor(parallel)  # type: ignore[arg-type]
        return Workers(make_any, WINDOW)
    raise IngestError(
        f"parallel={parallel!r} is not a number of processes, threads, dask, lithops, or an "
        "executor"
    )


def map_tasks[T, R](
    pool: Workers, function: Callable[[T], R], tasks: Iterable[T], worker_died: Callable[[T], R]
) -> Iterator[R]:
    """Yield the results of tasks, in their order, a window of them in work.

    For processes, the function, tasks and results must pickle. `worker_died` gives the result of
    a task that ends the process that runs it.
    """
    if pool.make is None:
        yield from map(function, tasks)
        return
    remaining, tested = iter(tasks), not pool.processes
    while True:
        waiting: deque[T] = deque()
        futures: deque[Future[R]] = deque()
        try:
            with pool.make() as executor:
                if not tested:
                    _test_processes(executor, function)
                    tested = True
                for task in remaining:
                    # It waits before it is submitted, which fails where the executor has broken.
                    waiting.append(task)
                    futures.append(executor.submit(function, task))
                    if len(futures) >= pool.window:
                        yield futures.popleft().result()
                        waiting.popleft()
                while futures:
                    yield futures.popleft().result()
                    waiting.popleft()
                return
        except BrokenProcessPool:
            if not pool.processes:
                raise
        # One of those that wait ended its process: each of them now runs alone.
        while waiting:
            with pool.make() as executor:
                while waiting:
                    task = waiting.popleft()
                    try:
                        result = executor.submit(function, task).result()
                    except BrokenProcessPool:
                        yield worker_died(task)
                        break
                    yield result


def _test_processes(executor: Executor, function: Any) -> None:
    """Raise an `IngestError` where tasks can't be sent to processes at all."""
    try:
        pickle.dumps(function)
    except Exception as error:  # whatever an object's own pickling raises
        raise IngestError(
            "harvest= and parser= must pickle to run in other processes "
            f"({first_line(error)}); name a function of a module"
        ) from error
    try:
        executor.submit(int).result()
    except BrokenProcessPool:
        raise IngestError(
            "no process could be started. Each imports the script that asks for it: what it does "
            'must stand under if __name__ == "__main__":'
        ) from None
