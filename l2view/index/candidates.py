"""The rows that may match a query, by its indexes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from l2view.index.rtree import Box


def _no_rows() -> NDArray[np.int64]:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Candidates:
    """The rows that may fulfil a condition; no other does."""

    # Of those below `tail`, the ones that may: ascending, int64, of shape (n,).
    rows: NDArray[np.int64] = field(default_factory=_no_rows)
    # The first row that no index covers. It and all after it may.
    tail: int = 0
    # Values of fields at `rows`, by name, which an index holds and needn't be read again.
    columns: Mapping[str, pa.Array] = field(default_factory=dict)
    # Of each of these rectangles, a row's footprint must meet one; by field.
    bbox_tests: Mapping[str, tuple[tuple[Box, ...], ...]] = field(default_factory=dict)
    pruned_by: tuple[str, ...] = ()  # the indexes that were used, in words
    # Those of `rows` that surely fulfil it, ascending, int64.
    certain: NDArray[np.int64] = field(default_factory=_no_rows)

    @property
    def everything(self) -> bool:
        """Whether they are all rows."""
        return not self.tail and not self.bbox_tests

    def _filter(self, mask: NDArray[np.bool_]) -> Candidates:
        columns = {name: values.filter(pa.array(mask)) for name, values in self.columns.items()}
        return replace(self, rows=self.rows[mask], columns=columns)

    def uncertain(self) -> Candidates:
        """Leave out the rows that surely fulfil the condition."""
        is_uncertain = np.isin(self.rows, self.certain, assume_unique=True, invert=True)
        return replace(self._filter(is_uncertain), certain=_no_rows())

    def before(self, stop: int) -> Candidates:
        """Keep those below the row `stop`."""
        if stop > self.tail:
            return self
        return replace(self._filter(self.rows < stop), tail=2**63 - 1)

    def within(self, rows: range) -> NDArray[np.int64] | None:
        """Select the candidates among `rows`, None where all of them are."""
        if rows.start >= self.tail:
            return None
        start, stop = np.searchsorted(self.rows, (rows.start, min(rows.stop, self.tail)))
        tail_rows = np.arange(self.tail, rows.stop, dtype=np.int64)
        return np.concatenate([self.rows[start:stop], tail_rows])

    def values(self, name: str, rows: NDArray[np.int64]) -> pa.Array | None:
        """Look up a field's values at candidates, None where they must be read."""
        column = self.columns.get(name)
        if column is None or not len(rows) or not len(self.rows) or rows[-1] >= self.tail:
            return None
        if np.array_equal(rows, self.rows):
            return column
        positions = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        if not np.array_equal(self.rows[positions], rows):
            return None
        return column.take(pa.array(positions))

    def intersect(self, other: Candidates) -> Candidates:
        """Keep the rows that are also candidates of `other`."""
        bbox_tests = {
            name: (*self.bbox_tests.get(name, ()), *other.bbox_tests.get(name, ()))
            for name in {**self.bbox_tests, **other.bbox_tests}
        }
        pruned_by = (*self.pruned_by, *other.pruned_by)
        if not self.tail or not other.tail:
            bounded = self if self.tail else other
            return replace(bounded, bbox_tests=bbox_tests, pruned_by=pruned_by)
        tail = min(self.tail, other.tail)
        mine = self._filter((self.rows < tail) & np.isin(self.rows, other.rows))
        theirs = other._filter((other.rows < tail) & np.isin(other.rows, self.rows))
        certain = np.intersect1d(self.certain, other.certain, assume_unique=True)
        columns = {**mine.columns, **theirs.columns}
        return Candidates(mine.rows, tail, columns, bbox_tests, pruned_by, certain[certain < tail])


EVERY = Candidates()  # all rows
