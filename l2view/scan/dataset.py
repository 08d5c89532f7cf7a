"""A table that is made when it is read, as a `pyarrow.dataset.Dataset`.

DataFusion, DuckDB and Polars scan such a dataset and hand it the columns that they want and their
filter.

Not good for what needs a dataset of Arrow's own C++ (`pyarrow.dataset.write_dataset`,
`Scanner.from_dataset`, `sort_by`, `join`): ``scanner().to_reader()`` or ``to_table()`` give those
something to work on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from numpy.typing import NDArray

from l2view.errors import L2ViewError, StoreError
from l2view.scan.filter import Condition
from l2view.scan.fragments import BATCH_ROWS, Fragment, Scan, columns_read, hollow, scan_of
from l2view.text import first_line


class Partition(Protocol):
    """Some of a table's rows, which are read one after another."""

    def batches(
        self, columns: Sequence[str], condition: Condition | None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows that fulfil a condition, of any number at a time.

        Parameters
        ----------
        columns
            The columns, in this order; where there are none, batches only have lengths.
        condition
            What to look for, None for all rows.
        """
        ...


class Table(Protocol):
    """What a dataset is of."""

    @property
    def schema(self) -> pa.Schema:
        """The columns."""
        ...

    def partitions(
        self, condition: Condition | None, *, early: bool = False, several: bool = False
    ) -> Sequence[Partition]:
        """Partitions in which a condition may hold, at least one.

        Parameters
        ----------
        condition
            What is looked for, None for all rows.
        early
            The consumer may stop early (LIMIT).
        several
            Partitions are read in parallel; otherwise there is one.
        """
        ...

    def count(self) -> int | None:
        """Count the rows, None where that takes reading."""
        ...


@runtime_checkable
class Takeable(Protocol):
    """A table whose rows can be read by their numbers."""

    def take(self, rows: NDArray[np.int64], names: Sequence[str]) -> pa.Table:
        """Read rows, in the order given."""
        ...


class TableDataset(pads.FileSystemDataset):  # type: ignore[misc]
    """The rows of a table that fulfil a condition.

    Parameters
    ----------
    table
        The table.
    condition
        What every row fulfils that is shown, None to show all.
    """

    def __init__(self, table: Table, condition: pc.Expression | None = None) -> None:
        self.table = table
        self.condition = condition
        self.early = False
        """The consumer may stop early (LIMIT)."""
        self.failure: Exception | None = None
        """What stopped the last scan, for engines that report only its text."""
        super().__init__(*hollow(table.schema))

    def __reduce__(self) -> tuple[Callable[..., TableDataset], tuple[Any, ...]]:
        return TableDataset, (self.table, self.condition)

    def __repr__(self) -> str:
        text = self.schema.to_string(show_field_metadata=False, show_schema_metadata=False)
        return f"<TableDataset: {self.table}>\n{text}"

    @property
    def schema(self) -> pa.Schema:
        """The columns."""
        return self.table.schema

    def scanner(
        self,
        columns: list[str] | dict[str, pc.Expression] | None = None,
        filter: pc.Expression | None = None,
        batch_size: int = BATCH_ROWS,
        **options: Any,
    ) -> Scan:
        """Return a scan, as `pyarrow.dataset.Dataset.scanner` does."""
        return self.scan(None, columns, filter, batch_size)

    def get_fragments(self, filter: pc.Expression | None = None) -> Iterator[Fragment]:
        """Yield the table's partitions."""
        try:
            partitions = self.table.partitions(
                self._full_condition(filter), early=self.early, several=True
            )
        except Exception as error:
            raise self._record_failure(error) from error
        for partition in partitions:
            yield Fragment(self, partition)

    def filter(self, expression: pc.Expression) -> TableDataset:
        """Return the rows that fulfil a condition; nothing is read until they are asked for."""
        condition = expression if self.condition is None else self.condition & expression
        return TableDataset(self.table, condition)

    def count_rows(self, filter: pc.Expression | None = None, **options: Any) -> int:
        """Return the number of rows."""
        rows = self.table.count() if filter is None and self.condition is None else None
        return int(self.scanner([], filter).count_rows()) if rows is None else rows

    def take(self, indices: Any, columns: list[str] | None = None, **options: Any) -> pa.Table:
        """Read rows by their numbers among those that are shown, in the order given."""
        rows = np.asarray(indices, dtype=np.int64)
        names = columns_read(columns, self.schema)
        if self.condition is None and isinstance(self.table, Takeable):
            return self.table.take(rows, names)
        return self.scanner(names).take(pa.array(rows))

    def _full_condition(self, filter: pc.Expression | None) -> Condition | None:
        """Combine a filter with the dataset's own."""
        if isinstance(filter, pa.Scalar):  # as DataFusion hands on what is always the same
            filter = pc.scalar(filter)
        if self.condition is not None:
            filter = self.condition if filter is None else self.condition & filter
        return Condition.of(filter, self.schema)

    def scan(
        self,
        partition: Partition | None,
        columns: list[str] | dict[str, pc.Expression] | None,
        filter: pc.Expression | None,
        batch_size: int,
    ) -> Scan:
        """Scan one partition, or all of them where it is None."""
        read = columns_read(columns, self.schema)
        schema = pa.schema([self.schema.field(name) for name in read])
        batches = self._batches(partition, read, self._full_condition(filter), batch_size)
        chosen = read if columns is None else columns
        return scan_of(schema, chosen, batches)

    def _batches(
        self,
        partition: Partition | None,
        columns: list[str],
        condition: Condition | None,
        batch_size: int,
    ) -> Iterator[pa.RecordBatch]:
        self.failure = None
        try:
            partitions = (
                [partition] if partition else self.table.partitions(condition, early=self.early)
            )
            for partition in partitions:
                for batch in partition.batches(columns, condition):
                    for start in range(0, batch.num_rows, batch_size):
                        yield batch.slice(start, batch_size)
        except Exception as error:
            raise self._record_failure(error) from error

    def _record_failure(self, error: Exception) -> Exception:
        """Turn an error of a scan into the one to raise, and remember it."""
        if not isinstance(error, L2ViewError | MemoryError):
            error = StoreError(f"{self.table} can't be read: {first_line(error)}")
        self.failure = error
        return error
