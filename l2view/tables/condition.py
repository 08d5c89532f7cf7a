"""What a filter says of rows of which not all columns are known yet.

What isn't known is NULL: by SQL's logic of three values a filter is then false only where it is
false whatever the unknown is. So one evaluation tells which granules, which chunks and which cells
may pass, before anything is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from l2view.meta.nulls import columns_of, passing, with_sql_nulls

STRICT = frozenset({"is_in", "invert", "cast", "negate", "is_nan", "is_finite", "add", "subtract"})
"""Functions that are NULL for NULL, beside the comparisons and Kleene's AND and OR, which Arrow
shows between their arguments."""


@dataclass(frozen=True)
class Condition:
    """A filter over the columns of a table.

    Parameters
    ----------
    expression
        The filter.
    schema
        The table's schema.
    """

    expression: pc.Expression
    schema: pa.Schema

    @classmethod
    def of(cls, expression: pc.Expression | None, schema: pa.Schema) -> Condition | None:
        """Return the filter that an engine hands on, with SQL's NULL."""
        return None if expression is None else cls(with_sql_nulls(expression), schema)

    @cached_property
    def columns(self) -> frozenset[str]:
        """The columns that it looks at."""
        return frozenset(columns_of(self.expression, self.schema))

    @cached_property
    def is_strict(self) -> bool:
        """Whether NULL may stand for what isn't known: ``IS NULL`` would take it for NULL."""
        return set(re.findall(r"\b([a-z_]\w*)\(", str(self.expression))) <= STRICT

    def tells(self, known: Mapping[str, Any]) -> bool:
        """Return whether it can be false by some columns alone."""
        looked_at = self.columns & known.keys()
        return bool(looked_at) and (looked_at == self.columns or self.is_strict)

    def may_hold(self, known: Mapping[str, pa.Array], rows: int) -> NDArray[np.bool_]:
        """Return for which rows it may hold; for which it holds, where all columns are known.

        Parameters
        ----------
        known
            Columns of `rows` rows each.
        rows
            How many rows.

        Returns
        -------
        numpy.ndarray
            Of shape (rows,).
        """
        whole = self.columns <= known.keys()
        if not self.columns:
            table = pa.table({"_": pa.nulls(rows)})
        else:
            columns = {
                name: known[name] if name in known else pa.nulls(rows, self.schema.field(name).type)
                for name in self.columns
            }
            table = pa.table(columns)
        found = passing(table, self.expression)
        if not pa.types.is_boolean(found.type):  # NULL, whatever the row
            return np.full(rows, not whole)
        return np.asarray(found.fill_null(not whole).to_numpy())
