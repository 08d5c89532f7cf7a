"""Warnings ignored for a while, in several threads."""

from __future__ import annotations

import os
import threading
import warnings


class Quiet:
    """Ignores warnings, for as long as one of several threads is within it.

    `warnings.catch_warnings` of threads that overlap would leave them ignored for good.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._caught = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._threads += 1
            if self._threads == 1:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore")

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._threads -= 1
            if not self._threads:
                self._caught.__exit__(None, None, None)

    def leave(self) -> None:
        """Leave it as a forked process does, into which the threads within it didn't come."""
        if self._threads:
            self._caught.__exit__(None, None, None)
        self.__init__()  # type: ignore[misc]


QUIET = Quiet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=QUIET.leave)
