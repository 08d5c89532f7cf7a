"""What a filter says of rows of which not all columns are known yet.

What isn't known is NULL: by SQL's logic of three values a filter is then false only where it is
false whatever the unknown is. So one evaluation tells which granules, which chunks and which cells
may pass, before anything is fetched. A filter that asks for NULL itself (``IS NOT NULL``) can't be
asked so; Arrow then tells what may pass by the range of what is known, block by block.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.ipc
from numpy.typing import NDArray
from pyarrow.acero import Declaration, ProjectNodeOptions, TableSourceNodeOptions

from l2view.errors import QueryError
from l2view.meta.zones import prune, runs_of
from l2view.text import join_names

STRICT = frozenset({"is_in", "invert", "cast", "negate_checked", "add_checked", "subtract_checked"})
"""Functions that are NULL for NULL, beside the comparisons and Kleene's AND and OR, which Arrow
shows between their arguments."""

NULL_OPTION, INCONCLUSIVE = "null_matching_behavior", 3
"""Arrow's ``SetLookupOptions::INCONCLUSIVE``: NULL IN (…) is NULL, as SQL has it."""


@dataclass(frozen=True)
class Condition:
    """A filter over the columns of a table with this schema; NULL in it is SQL's."""

    expression: pc.Expression
    schema: pa.Schema

    @cached_property
    def columns(self) -> frozenset[str]:
        """The columns that it looks at.

        A `QueryError` is raised where Arrow has no function for it.
        """
        try:
            return frozenset(columns_of(self.expression, self.schema))
        except pa.ArrowNotImplementedError as error:
            lists = [field.name for field in self.schema if pa.types.is_list(field.type)]
            if not lists:
                raise QueryError(f"{self.expression} can't be asked of this table") from error
            raise QueryError(
                f"{join_names(lists)} can't be compared as a whole; compare elements "
                f"({lists[0]}[1] = 0) or texts (array_to_string({lists[0]}, ',') = '0,0')"
            ) from error

    @cached_property
    def is_strict(self) -> bool:
        """Whether NULL may stand for what isn't known: ``IS NULL`` would take it for NULL."""
        return set(re.findall(r"\b([a-z_]\w*)\(", str(self.expression))) <= STRICT

    def is_decided_by(self, known: Iterable[str]) -> bool:
        """Whether it depends on these columns alone."""
        return self.columns <= frozenset(known)

    def looks_at(self, columns: Iterable[str]) -> bool:
        """Whether it depends on one of these columns."""
        return not self.columns.isdisjoint(columns)

    def may_hold(self, known: Mapping[str, pa.Array], rows: int) -> NDArray[np.bool_]:
        """Mask of `rows` rows for which it may hold; exact where all columns are known.

        A `QueryError` is raised where it is no condition.
        """
        columns = {name: column for name, column in known.items() if name in self.columns}
        if self.is_decided_by(known) or self.is_strict:
            return self._by_rows(columns, rows)
        return self._by_blocks(columns, rows)

    def _by_rows(self, known: Mapping[str, pa.Array], rows: int) -> NDArray[np.bool_]:
        """Evaluate it, with NULL for what isn't known."""
        is_decided = self.is_decided_by(known)
        columns = {
            name: known[name] if name in known else pa.nulls(rows, self.schema.field(name).type)
            for name in self.columns
        }
        result = passing(pa.table(columns or {"_": pa.nulls(rows)}), self.expression)
        if pa.types.is_null(result.type):  # NULL, whatever the row
            return np.full(rows, not is_decided)
        if not pa.types.is_boolean(result.type):
            raise QueryError(f"a filter is true or false, and {self.expression} is {result.type}")
        mask = np.asarray(result.fill_null(not is_decided).to_numpy())
        for name, column in known.items():
            if is_decided or not column.null_count:
                continue
            if not self._possible({0: pc.field(name).is_null()}):
                mask = mask & np.asarray(column.is_valid().to_numpy(zero_copy_only=False))
        return mask

    def _by_blocks(self, known: Mapping[str, pa.Array], rows: int) -> NDArray[np.bool_]:
        """Ask Arrow where it may hold by the ranges of what is known: of blocks, then of rows."""
        has_range = (pa.types.is_primitive, pa.types.is_string, pa.types.is_boolean)
        columns = {n: c for n, c in known.items() if any(test(c.type) for test in has_range)}
        if not columns or rows == 0:
            return np.ones(rows, dtype=bool)
        mask = np.zeros(rows, dtype=bool)
        step = max(int(rows**0.5), 1)
        blocks = [range(at, min(at + step, rows)) for at in range(0, rows, step)]
        ranges = {number: _range(columns, block) for number, block in enumerate(blocks)}
        for number in self._possible(ranges):
            of_rows = {row: _range(columns, range(row, row + 1)) for row in blocks[number]}
            mask[sorted(self._possible(of_rows))] = True
        return mask

    def _possible(self, guarantees: Mapping[int, pc.Expression]) -> set[int]:
        """Numbers of the guarantees under which it may hold."""
        return prune(self.expression, runs_of(self.schema, guarantees))


def columns_of(expression: pc.Expression, schema: pa.Schema) -> list[str]:
    """Columns of a schema that `expression` names.

    An expression doesn't tell, so it is bound to the schema without each in turn.
    """
    names = []
    for index, name in enumerate(schema.names):
        try:
            pads.Scanner.from_batches(
                iter(()), schema=schema.remove(index), columns={"_": expression}
            )
        except pa.ArrowInvalid:
            names.append(name)
    return names


def passing(table: pa.Table, condition: pc.Expression) -> pa.ChunkedArray:
    """Mask of rows that fulfil a condition, NULL where that is unknown."""
    return project(table, {"passes": condition}).column(0)


def project(table: pa.Table, columns: Mapping[str, pc.Expression]) -> pa.Table:
    """Return expressions over the columns of a table, by name.

    `pyarrow.Table.filter` and datasets have threads of their own, which takes longer for as many
    rows as a scan has at a time.
    """
    source = Declaration("table_source", TableSourceNodeOptions(table))
    projection = Declaration("project", ProjectNodeOptions([*columns.values()], [*columns]))
    return Declaration.from_sequence([source, projection]).to_table(use_threads=False)


def with_sql_nulls(condition: pc.Expression) -> pc.Expression:
    """Make every ``is_in`` of `condition` NULL for NULL.

    DataFusion hands ``x NOT IN (…)`` to a dataset as the inversion of pyarrow's ``is_in`` and
    doesn't look at the answer again; pyarrow's is false for NULL, so its inversion would let NULL
    pass. The options of an expression's functions are columns of the Arrow batch that it pickles
    to, and the option in question is one of them.
    """
    rebuild, (buffer, *arguments) = condition.__reduce__()
    batch = pyarrow.ipc.open_file(buffer).get_batch(0)
    columns = [_inconclusive(column) for column in batch.columns]
    if all(new is old for new, old in zip(columns, batch.columns, strict=True)):
        return condition
    sink = pa.BufferOutputStream()
    with pyarrow.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=batch.schema))
    return rebuild(sink.getvalue(), *arguments)


def _inconclusive(column: pa.Array) -> pa.Array:
    if not pa.types.is_struct(column.type) or column.type.get_field_index(NULL_OPTION) < 0:
        return column
    option = pa.array([INCONCLUSIVE] * len(column), column.type.field(NULL_OPTION).type)
    children = [
        option if field.name == NULL_OPTION else column.field(field.name) for field in column.type
    ]
    return pa.StructArray.from_arrays(children, fields=list(column.type))


def _range(columns: Mapping[str, pa.Array], rows: range) -> pc.Expression:
    """Expression that holds for all of these rows."""
    guarantees = []
    for name, column in columns.items():
        values, field = column[rows.start : rows.stop], pc.field(name)
        extremes = pc.min_max(values)
        if not extremes["min"].is_valid:
            guarantees.append(field.is_null())
            continue
        bounds = (field >= extremes["min"]) & (field <= extremes["max"])
        guarantees.append(bounds | field.is_null() if values.null_count else bounds)
    return reduce(operator.and_, guarantees)
