"""Datasets that read themselves, as DataFusion, DuckDB and Polars take them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.fs
from pyarrow.acero import Declaration, ProjectNodeOptions, TableSourceNodeOptions

from l2view.errors import FieldError
from l2view.text import unknown_name

BATCH_ROWS = 131_072
"""The most rows in a batch, unless a caller asks for another number."""


def hollow(schema: pa.Schema) -> tuple[Any, ...]:
    """Arguments of a `pyarrow.dataset.FileSystemDataset` that holds nothing.

    C++ needs a dataset to point at: one that fails by a name which says why.
    """
    files, ipc = pyarrow.fs.LocalFileSystem(), pads.IpcFileFormat()
    nothing = ipc.make_fragment("(this dataset is read by its own methods)", files)
    return [nothing], schema, ipc, files


def columns_of(expression: pc.Expression | None, schema: pa.Schema) -> list[str]:
    """Columns of a schema that `expression` names.

    An expression doesn't tell, so it is bound to the schema without each in turn.
    """
    if expression is None:
        return []
    names = []
    for index, name in enumerate(schema.names):
        try:
            pads.Scanner.from_batches(
                iter(()), schema=schema.remove(index), columns={"_": expression}
            )
        except pa.ArrowInvalid:
            names.append(name)
    return names


def columns_read(
    columns: list[str] | dict[str, pc.Expression] | None, schema: pa.Schema
) -> list[str]:
    """Columns of a schema to read for those that an engine asks for.

    Parameters
    ----------
    columns
        Names, or expressions by the names that they get; None for all.
    schema
        The schema.

    Raises
    ------
    FieldError
        Where there is no such column.
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


class Scan:
    """Batches as a scanner gives them, made when they are asked for, in the thread that asks.

    `pyarrow.dataset.Scanner.from_batches` would read ahead in threads of its own, also when nobody
    reads any more, which at the end of a process they can't.

    Parameters
    ----------
    schema
        The columns that are shown.
    batches
        The batches.
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


def scan_of(
    schema: pa.Schema,
    columns: list[str] | dict[str, pc.Expression] | None,
    batches: Iterator[pa.RecordBatch],
) -> Scan:
    """Scan batches, with expressions over their columns where an engine asks for them.

    Parameters
    ----------
    schema
        The columns of the batches.
    columns
        Their names, or expressions by name.
    batches
        The batches.
    """
    if not isinstance(columns, dict):
        return Scan(schema, batches)
    options = ProjectNodeOptions(list(columns.values()), list(columns))

    def project(rows: pa.Table) -> pa.Table:
        source = Declaration("table_source", TableSourceNodeOptions(rows))
        projection = Declaration("project", options)
        return Declaration.from_sequence([source, projection]).to_table(use_threads=False)

    projected_schema = project(schema.empty_table()).schema
    tables = (project(pa.Table.from_batches([batch])) for batch in batches)
    return Scan(projected_schema, (batch for table in tables for batch in table.to_batches()))


class Fragment:
    """A partition of a dataset that reads itself.

    Parameters
    ----------
    dataset
        The dataset, whose method `scan` reads a partition.
    partition
        The partition.
    """

    def __init__(self, dataset: Any, partition: Any) -> None:
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
        scan: Scan = self.dataset.scan(self.partition, columns, filter, batch_size)
        return scan
