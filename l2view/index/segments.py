"""The segments of an index: one covers the first rows of a field, others those that came later."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from l2view.index.candidates import Candidates
from l2view.index.indexes import Indexes
from l2view.index.storage import segment_path, segment_ranges
from l2view.limits import limits
from l2view.meta.schema import Field
from l2view.stores.hierarchy import JSON, join


@dataclass(frozen=True)
class Segment:
    """The index of some consecutive rows."""

    field: Field
    rows: range  # the rows that it covers


@dataclass(frozen=True)
class Matches:
    """Rows that a segment found."""

    rows: NDArray[np.int64]  # ascending
    values: pa.Array | None = None  # those of the field at them, None where they must be read
    is_certain: NDArray[np.bool_] | slice = slice(0)  # which of them match for sure


@dataclass(frozen=True)
class Segments[S: Segment]:
    """The indexes of a field."""

    segments: tuple[S, ...]  # the indexes, each of the rows after those of its predecessor
    unindexed: NDArray[np.int64]  # rows that they leave out, ascending, int64

    @property
    def field(self) -> Field:
        """The field."""
        return self.segments[0].field

    @property
    def tail(self) -> int:
        """The first row that no index covers."""
        return self.segments[-1].rows.stop

    @property
    def max_candidates(self) -> int:
        """The most candidates for which an index is of use."""
        return self.tail // limits().scan_fraction

    def combine(self, kind: str, matches: Sequence[Matches | None]) -> Candidates | None:
        """Make candidates of what each segment found; None where they are too many to be of use.

        None for a segment means too many, then all rows of a small one are.
        """
        most, every = self.max_candidates, []
        for segment, match in zip(self.segments, matches, strict=True):
            if match is None and len(segment.rows) > most:
                return None
            every.append(match or Matches(np.arange(segment.rows.start, segment.rows.stop)))
        rows = np.concatenate([match.rows for match in every])
        if len(rows) > most:
            return None
        values = [match.values for match in every if match.values is not None]
        columns = {}
        if len(values) == len(every) and not len(self.unindexed):
            columns[self.field.name] = pa.concat_arrays(values)
        certain = np.concatenate([match.rows[match.is_certain] for match in every])
        return Candidates(
            np.union1d(rows, self.unindexed),
            self.tail,
            columns,
            pruned_by=(f"{kind} of {self.field.name}",),
            certain=np.setdiff1d(certain, self.unindexed, assume_unique=True),
        )


def read_segments[S: Segment, Index](
    kind: str,
    make: Callable[[tuple[S, ...], NDArray[np.int64]], Index],
    read: Callable[[Indexes, Field, int], tuple[S, JSON] | None],
    names: Sequence[str],
    indexes: Indexes,
    field: Field,
) -> Index | None:
    """Make an index of its segments and the rows that they leave out, None where none is stored.

    `read` reads the segment that begins at a row, and the metadata beside it; `names` are the files
    of a segment to fetch together.
    """

    def load() -> Index | None:
        base = read(indexes, field, 0)
        if base is None:
            return None
        segments, metadata = [base[0]], base[1]
        ranges = segment_ranges(metadata)
        indexes.fetch([join(segment_path(field, r.start), name) for r in ranges for name in names])
        for rows in ranges:
            segment = read(indexes, field, rows.start)
            is_complete = segment is not None and segment[0].rows.stop >= rows.stop
            if segment is None or not is_complete or rows.start != segments[-1].rows.stop:
                break  # what isn't covered is scanned
            segments.append(replace(segment[0], rows=rows))
        return make(tuple(segments), np.array(metadata.get("always", ()), dtype=np.int64))

    return indexes.load(kind, field, load)
