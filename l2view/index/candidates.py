"""The rows that a query can find, as far as indexes tell before it is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from l2view.index.rtree import Box
from l2view.limits import limits


def most_of(rows: int) -> int:
    """Return the most candidates among `rows` for which an index is of use."""
    return rows // limits().scan_fraction


def rows_of(
    parts: Sequence[range], found: Sequence[NDArray[np.int64] | None], most: int
) -> list[NDArray[np.int64]] | None:
    """Return the candidates among the rows of each part of an index.

    Parameters
    ----------
    parts
        The rows that each part covers.
    found
        What each part tells; None where it leaves too many, and all of a few rows may.
    most
        The most candidates that are of use.

    Returns
    -------
    list of ndarray
        None where they are more.
    """
    rows = []
    for part, some in zip(parts, found, strict=True):
        if some is None and len(part) > most:
            return None
        rows.append(np.arange(part.start, part.stop) if some is None else some)
    return None if sum(map(len, rows)) > most else rows


def _none() -> NDArray[np.int64]:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Candidates:
    """The rows that may fulfil a condition; no other does.

    Attributes
    ----------
    rows
        Of those below `tail`, the ones that may: ascending, int64, of shape (n,).
    tail
        The first row that no index covers. It and all after it may.
    columns
        Values of fields at `rows`, by name, which an index holds and needn't be read again.
    bbox_tests
        Of each of these rectangles, a row's footprint must meet one; by field.
    pruned_by
        By what each was found, for people.
    certain
        Those of `rows` that do fulfil it, as far as is known, ascending, int64.
    """

    rows: NDArray[np.int64] = field(default_factory=_none)
    tail: int = 0
    columns: Mapping[str, pa.Array] = field(default_factory=dict)
    bbox_tests: Mapping[str, tuple[tuple[Box, ...], ...]] = field(default_factory=dict)
    pruned_by: tuple[str, ...] = ()
    certain: NDArray[np.int64] = field(default_factory=_none)

    @property
    def everything(self) -> bool:
        """Whether they are all rows."""
        return not self.tail and not self.bbox_tests

    def uncertain(self) -> Candidates:
        """Return those of which it isn't known that they fulfil the condition."""
        left = np.isin(self.rows, self.certain, assume_unique=True, invert=True)
        columns = {name: values.filter(pa.array(left)) for name, values in self.columns.items()}
        return replace(self, rows=self.rows[left], columns=columns, certain=_none())

    def before(self, stop: int) -> Candidates:
        """Return those below the row `stop`."""
        if stop > self.tail:
            return self
        below = self.rows < stop
        columns = {name: values.filter(pa.array(below)) for name, values in self.columns.items()}
        return replace(self, rows=self.rows[below], columns=columns, tail=2**63 - 1)

    def within(self, rows: range) -> NDArray[np.int64] | None:
        """Return the candidates among `rows`, None where all of them are."""
        if rows.start >= self.tail:
            return None
        first, last = np.searchsorted(self.rows, (rows.start, min(rows.stop, self.tail)))
        rest = np.arange(self.tail, rows.stop, dtype=np.int64)
        return np.concatenate([self.rows[first:last], rest])

    def values(self, name: str, rows: NDArray[np.int64]) -> pa.Array | None:
        """Return a field's values at some candidates, None where they must be read."""
        column = self.columns.get(name)
        if column is None or not len(rows) or not len(self.rows) or rows[-1] >= self.tail:
            return None
        if np.array_equal(rows, self.rows):
            return column
        places = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        if not np.array_equal(self.rows[places], rows):
            return None
        return column.take(pa.array(places))

    def both(self, other: Candidates) -> Candidates:
        """Return the rows that are among these and the other ones."""
        bbox_tests = {
            name: (*self.bbox_tests.get(name, ()), *other.bbox_tests.get(name, ()))
            for name in {**self.bbox_tests, **other.bbox_tests}
        }
        pruned_by = (*self.pruned_by, *other.pruned_by)
        if not self.tail or not other.tail:
            some = self if self.tail else other
            return replace(some, bbox_tests=bbox_tests, pruned_by=pruned_by)
        tail = min(self.tail, other.tail)
        mine, theirs = (one.rows[one.rows < tail] for one in (self, other))
        rows, at, their_at = np.intersect1d(mine, theirs, assume_unique=True, return_indices=True)
        columns = {name: values.take(pa.array(at)) for name, values in self.columns.items()}
        columns |= {name: v.take(pa.array(their_at)) for name, v in other.columns.items()}
        certain = np.intersect1d(self.certain, other.certain, assume_unique=True)
        return Candidates(rows, tail, columns, bbox_tests, pruned_by, certain[certain < tail])


EVERY = Candidates()
"""All rows."""
