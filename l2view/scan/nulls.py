"""SQL's NULL in the filters that DataFusion hands to a dataset.

DataFusion hands ``x NOT IN (…)`` to a dataset as the inversion of pyarrow's ``is_in`` and
doesn't look at the answer again; pyarrow's is false for NULL, so its inversion would let NULL
pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.fs
import pyarrow.ipc
from pyarrow.acero import Declaration, ProjectNodeOptions, TableSourceNodeOptions

from l2view.scan.fragments import hollow

INCONCLUSIVE = 3
"""Arrow's ``SetLookupOptions::INCONCLUSIVE``: NULL IN (…) is NULL, as SQL has it."""


def with_sql_nulls(condition: pc.Expression) -> pc.Expression:
    """Make every ``is_in`` of `condition` NULL for NULL.

    The options of an expression's functions are columns of the Arrow batch that it pickles
    to, and the option in question is one of them.
    """
    if isinstance(condition, pa.Scalar):  # as DataFusion hands on what is always the same
        return pc.scalar(condition)
    rebuild, (buffer, *arguments) = condition.__reduce__()
    reader = pyarrow.ipc.open_file(buffer)
    batch = reader.get_batch(0)
    columns = [_inconclusive(column) for column in batch.columns]
    if all(new is old for new, old in zip(columns, batch.columns, strict=True)):
        return condition
    sink = pa.BufferOutputStream()
    with pyarrow.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=batch.schema))
    return rebuild(sink.getvalue(), *arguments)


def passing(table: pa.Table, condition: pc.Expression) -> pa.ChunkedArray:
    """Mask of rows that fulfil a condition, NULL where that is unknown.

    `pyarrow.Table.filter` with an expression has threads of its own, which takes longer for as
    many rows as a scan has at a time.
    """
    source = Declaration("table_source", TableSourceNodeOptions(table))
    project = Declaration("project", ProjectNodeOptions([condition], ["passes"]))
    result = Declaration.from_sequence([source, project]).to_table(use_threads=False)
    return result.column(0)


def _inconclusive(column: pa.Array) -> pa.Array:
    option = "null_matching_behavior"
    if not pa.types.is_struct(column.type) or column.type.get_field_index(option) < 0:
        return column
    names = [column.type.field(i).name for i in range(column.type.num_fields)]
    changed = pa.array([INCONCLUSIVE] * len(column), column.type.field(option).type)
    children = [changed if name == option else column.field(name) for name in names]
    return pa.StructArray.from_arrays(children, fields=list(column.type))


def _nothing(schema: pa.Schema) -> pads.Fragment:
    """Fragment without rows."""
    sink = pa.BufferOutputStream()
    with pyarrow.ipc.new_file(sink, schema):
        pass
    return pads.IpcFileFormat().make_fragment(sink.getvalue())


class NullSafe(pads.FileSystemDataset):  # type: ignore[misc]
    """A dataset of the caller's, whose filters follow SQL's NULL.

    Parameters
    ----------
    source
        The dataset, or one of its fragments.
    """

    def __init__(self, source: pads.Dataset | pads.Fragment) -> None:
        self.source = source
        super().__init__(*hollow(self.schema))

    @property
    def schema(self) -> pa.Schema:
        """The dataset's schema."""
        is_dataset = isinstance(self.source, pads.Dataset)
        return self.source.schema if is_dataset else self.source.physical_schema

    def get_fragments(self, filter: pc.Expression | None = None) -> Iterator[NullSafe]:
        """Yield the dataset's partitions."""
        condition = None if filter is None else with_sql_nulls(filter)
        fragments = list(self.source.get_fragments(condition))
        # There is always one: DataFusion can't sort what has no partitions.
        return map(NullSafe, fragments or [_nothing(self.schema)])

    def scanner(
        self, *schema: pa.Schema, filter: pc.Expression | None = None, **options: Any
    ) -> pads.Scanner:
        """Return a scanner, as `pyarrow.dataset.Dataset.scanner` or its fragments' does."""
        condition = None if filter is None else with_sql_nulls(filter)
        return self.source.scanner(*schema, filter=condition, **options)
