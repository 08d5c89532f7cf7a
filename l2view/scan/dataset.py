"""A table that is made when it is read, as a `pyarrow.dataset.Dataset`.

DataFusion, DuckDB and Polars scan such a dataset and hand it the columns that they want and their
filter.

Not good for what needs a dataset of Arrow's own C++ (`pyarrow.dataset.write_dataset`,
`Scanner.from_dataset`, `sort_by`, `join`): ``scanner().to_reader()`` or ``to_table()`` give those
something to work on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.fs

from l2view.errors import FieldError, L2ViewError, StoreError
from l2view.scan.filter import Condition, columns_of, project, with_sql_nulls
from l2view.text import first_line, unknown_name

BATCH_ROWS = 131_072  # the most rows in a batch, unless a caller asks for another number

type Partition = Callable[[Sequence[str], Condition | None], Iterator[pa.RecordBatch]]
"""Reads some of a table's rows, one after another: these columns, in this order, of the rows that
fulfil a condition (None for all), of any number at a time. Without columns, batches have lengths.
"""

type Columns = list[str] | dict[str, pc.Expression] | None
"""What an engine asks for: columns, or expressions by the names that they get; None for all."""


class Table(Protocol):
    """What a dataset is of. It may also have ``take(rows, names)``, which reads rows by number."""

    @property
    def schema(self) -> pa.Schema:
        """The columns."""

    def partitions(
        self, condition: Condition | None, *, early: bool = False, several: bool = False
    ) -> Sequence[Partition]:
        """Partitions in which a condition may hold, at least one: DataFusion can't sort none.

        The consumer may stop `early` (LIMIT). With `several` they are read in parallel; otherwise
        there is one.
        """

    def count(self) -> int | None:
        """Count the rows, None where that takes reading."""


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
        self.failure: Exception | None = None
        """What stopped the last scan, for engines that report only its text."""
        self._early: bool | None = None
        self._last_filter: tuple[pc.Expression, Condition] | None = None
        # C++ needs a dataset to point at: one that fails by a name which says why.
        files, ipc = pyarrow.fs.LocalFileSystem(), pads.IpcFileFormat()
        nothing = ipc.make_fragment("(this dataset is read by its own methods)", files)
        super().__init__([nothing], table.schema, ipc, files)

    def __reduce__(self) -> tuple[Callable[..., TableDataset], tuple[Any, ...]]:
        return TableDataset, (self.table, self.condition)

    def __repr__(self) -> str:
        text = self.schema.to_string(show_field_metadata=False, show_schema_metadata=False)
        return f"<TableDataset: {self.table}>\n{text}"

    @property
    def schema(self) -> pa.Schema:
        """The columns."""
        return self.table.schema

    def decide(self, table: Table, *, early: bool) -> None:
        """Read `table`, whose consumer may stop `early`: said once, when a query is planned."""
        if self._early is not None:
            raise RuntimeError("which rows a query looks at is decided once")
        self.table, self._early = table, early

    def scanner(
        self,
        columns: Columns = None,
        filter: pc.Expression | None = None,
        batch_size: int = BATCH_ROWS,
        **options: Any,
    ) -> Scan:
        """Return a scan, as `pyarrow.dataset.Dataset.scanner` does."""
        return self.scan(None, columns, filter, batch_size)

    def get_fragments(self, filter: pc.Expression | None = None) -> Iterator[Fragment]:
        """Yield the table's partitions."""
        try:
            condition = self._full_condition(filter)
            partitions = self.table.partitions(condition, early=bool(self._early), several=True)
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
        names = _columns_read(columns, self.schema)
        take = getattr(self.table, "take", None)
        if take is None or self.condition is not None:
            return self.scanner(names).take(pa.array(rows))
        return take(rows, names)

    def _full_condition(self, filter: pc.Expression | None) -> Condition | None:
        """Combine a filter with the dataset's own."""
        if isinstance(filter, pa.Scalar):  # as DataFusion hands on what is always the same
            filter = pc.scalar(filter)
        if self.condition is not None:
            filter = self.condition if filter is None else self.condition & filter
        if filter is None:
            return None
        # A query scans each fragment with one filter, whose columns take long to find.
        last = self._last_filter
        if last is None or not last[0].equals(filter):
            condition = Condition(with_sql_nulls(filter), self.schema)
            last = self._last_filter = filter, condition
        return last[1]

    def scan(
        self,
        partition: Partition | None,
        columns: Columns,
        filter: pc.Expression | None,
        batch_size: int,
    ) -> Scan:
        """Scan one partition, or all of them where it is None."""
        names = _columns_read(columns, self.schema)
        schema = pa.schema([self.schema.field(name) for name in names])
        batches = self._batches(partition, names, self._full_condition(filter), batch_size)
        if isinstance(columns, dict):
            tables = (project(pa.Table.from_batches([batch]), columns) for batch in batches)
            batches = (batch for table in tables for batch in table.to_batches())
            schema = project(schema.empty_table(), columns).schema
        return Scan(schema, batches)

    def _batches(
        self,
        partition: Partition | None,
        columns: list[str],
        condition: Condition | None,
        batch_size: int,
    ) -> Iterator[pa.RecordBatch]:
        try:
            early = bool(self._early)
            partitions = [partition] if partition else self.table.partitions(condition, early=early)
            for read in partitions:
                for batch in read(columns, condition):
                    for start in range(0, batch.num_rows, batch_size):
                        yield batch.slice(start, batch_size)
        except Exception as error:
            raise self._record_failure(error) from error

    def _record_failure(self, error: Exception) -> Exception:
        """Turn an error of a scan into the one to raise, and remember it."""
        if not isinstance(error, L2ViewError | MemoryError):
            error = StoreError(f"{self.table} can't be read: {first_line(error)}")
        self.failure = self.failure or error
        return error


class Fragment:
    """A partition of a `TableDataset`, as engines take it."""

    def __init__(self, dataset: TableDataset, partition: Partition) -> None:
        self.dataset = dataset
        self.partition = partition

    def __repr__(self) -> str:
        return f"<Fragment of {self.dataset!r}>"

    @property
    def physical_schema(self) -> pa.Schema:
        """The dataset's schema."""
        return self.dataset.schema

    def scanner(
        self,
        schema: pa.Schema | None = None,
        columns: list[str] | None = None,
        filter: pc.Expression | None = None,
        batch_size: int = BATCH_ROWS,
        **options: Any,
    ) -> Scan:
        """Return a scan of these rows."""
        return self.dataset.scan(self.partition, columns, filter, batch_size)


class Scan:
    """Batches as a scanner gives them, made when they are asked for, in the thread that asks.

    `pyarrow.dataset.Scanner.from_batches` would read ahead in threads of its own, also when nobody
    reads any more, which at the end of a process they can't.
    """

    def __init__(self, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
        self.projected_schema = schema
        self.dataset_schema = schema
        self._batches = batches

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        """Return the batches."""
        return self._batches

    def to_reader(self) -> pa.RecordBatchReader:
        """Return the batches as a stream."""
        return pa.RecordBatchReader.from_batches(self.projected_schema, self._batches)

    def to_table(self) -> pa.Table:
        """Return all rows."""
        return pa.Table.from_batches(list(self._batches), self.projected_schema)

    def head(self, num_rows: int) -> pa.Table:
        """Return the first rows."""
        batches, remaining = [], num_rows
        while remaining > 0 and (batch := next(self._batches, None)) is not None:
            batches.append(batch.slice(0, remaining))
            remaining -= batch.num_rows
        return pa.Table.from_batches(batches, self.projected_schema)

    def take(self, indices: Any) -> pa.Table:
        """Return rows by their numbers."""
        return self.to_table().take(indices)

    def count_rows(self) -> int:
        """Return the number of rows."""
        return sum(batch.num_rows for batch in self._batches)


@dataclass(frozen=True)
class ArrowTable:
    """A dataset of Arrow's own as a table, so that filters of it follow SQL's NULL, too."""

    dataset: pads.Dataset

    def __str__(self) -> str:
        return f"the dataset of {', '.join(self.schema.names)}"

    @property
    def schema(self) -> pa.Schema:
        """The columns."""
        return self.dataset.schema

    def count(self) -> int:
        """Return the number of rows."""
        return int(self.dataset.count_rows())

    def partitions(
        self, condition: Condition | None, *, early: bool = False, several: bool = False
    ) -> list[Partition]:
        """Return its fragments (see `Table`)."""
        expression = None if condition is None else condition.expression
        fragments = list(self.dataset.get_fragments(expression)) if several else []
        return [partial(self._read, source) for source in fragments or [self.dataset]]

    def _read(
        self, source: Any, columns: Sequence[str], condition: Condition | None
    ) -> Iterator[pa.RecordBatch]:
        """Yield rows of the dataset or one of its fragments (see `Partition`)."""
        options = {} if source is self.dataset else {"schema": self.schema}
        expression = None if condition is None else condition.expression
        yield from source.scanner(columns=list(columns), filter=expression, **options).to_batches()


def _columns_read(columns: Columns, schema: pa.Schema) -> list[str]:
    """Columns of a schema to read for those that an engine asks for.

    A `FieldError` is raised where there is no such column.
    """
    names: list[str] = schema.names
    if columns is None:
        return names
    if isinstance(columns, dict):
        required = {name for column in columns.values() for name in columns_of(column, schema)}
        return [name for name in names if name in required]
    for name in columns:
        if name not in names:
            raise FieldError(unknown_name("field", name, names))
    return list(columns)
