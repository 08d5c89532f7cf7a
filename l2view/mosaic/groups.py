"""The order in which granules are composed, and the groups that become images of their own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from l2view.errors import L2ViewWarning, QueryError, warn
from l2view.mosaic.periods import period_of
from l2view.mosaic.spec import MosaicSpec
from l2view.search import expressions
from l2view.search.time import time_field
from l2view.virtual.granules import Granules

TIME, GROUP = "time", "group"
"""The dimension of groups of granules: of times, and of other values."""


@dataclass(frozen=True, eq=False)
class Layering:
    """How n granules are composed."""

    ranks: NDArray[np.int64]  # the position of each in the order, of shape (n,)
    groups: NDArray[np.int64]  # the group of each, -1 for none, of shape (n,)
    labels: NDArray[Any] | None = None  # of the groups, None where all granules are one image
    dimension: str = TIME  # of the groups

    @property
    def count(self) -> int:
        """How many granules are in a group."""
        return int((self.groups >= 0).sum())

    def of_granules(self, rows: NDArray[np.int64]) -> Layering:
        """Return the layering of these granules alone, without groups that have none of them."""
        present = np.zeros(len(self.groups), dtype=bool)
        present[rows] = True
        groups = np.where(present, self.groups, -1)
        if self.labels is None:
            return replace(self, groups=groups)
        used, numbers = np.unique(groups[groups >= 0], return_inverse=True)
        groups[groups >= 0] = numbers
        return replace(self, groups=groups, labels=self.labels[used])


def layering(granules: Granules, spec: MosaicSpec) -> Layering:
    """Return how granules are composed.

    Raises
    ------
    QueryError, FieldError
        Where `order_by` or `group_by` isn't valid.
    """
    ranks = _ranks(granules, spec.order_by)
    if spec.group_by is None:
        return Layering(ranks, np.zeros(len(granules), dtype=np.int64))
    values, missing = _group_values(granules, spec.group_by)
    if missing.all():
        raise QueryError(
            f"no granule is in a group of group_by={spec.group_by!r}: all are NULL; group by "
            "another field"
        )
    if missing.any():
        rows = np.flatnonzero(missing)
        warn(
            f"{len(rows):,} of {len(granules):,} granules are in no group of "
            f"group_by={spec.group_by!r}, and no part of the mosaic: "
            f"{granules.sample_names(rows.tolist())}",
            L2ViewWarning,
        )
    labels, numbers = np.unique(values, return_inverse=True)
    groups = np.full(len(granules), -1, dtype=np.int64)
    groups[~missing] = numbers
    return Layering(ranks, groups, labels, TIME if labels.dtype.kind == "M" else GROUP)


def _ranks(granules: Granules, order_by: str | Sequence[str] | None) -> NDArray[np.int64]:
    if order_by is None:
        return np.arange(len(granules))
    sequence = isinstance(order_by, Sequence)
    if not sequence or not all(isinstance(key, str) for key in order_by):
        raise QueryError(
            f'order_by={order_by!r} is no SQL sort expression, such as "datetime DESC"'
        )
    names = granules.all_fields.names
    return expressions.ranks(order_by, len(granules), names, granules.available)


def _group_values(granules: Granules, group_by: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the values by which granules are grouped, and which granules have none."""
    if not isinstance(group_by, str) or not group_by.strip():
        raise QueryError(
            f'group_by={group_by!r} is neither a period, such as "P1M", nor an SQL expression'
        )
    text = group_by.strip()
    if re.fullmatch(r"[Tt]?\d+[DWMYHdwmyh]", text):
        raise QueryError(f'group_by={group_by!r}: did you mean "P{text}"?')
    period = period_of(text)
    if period is not None:
        column = granules.available([time_field(granules.all_fields)]).column(0)
        times = column.cast(pa.timestamp("us")).to_numpy().astype("M8[us]")
        missing = np.isnat(times)
        return period.starts(times[~missing]), missing
    names = granules.all_fields.names
    values = expressions.values(group_by, len(granules), names, granules.available)
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    missing = values.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_date(values.type) or pa.types.is_timestamp(values.type):
        values = values.cast(pa.timestamp("us"))
    return _to_numpy(values.drop_null()), missing


def _to_numpy(values: pa.ChunkedArray) -> NDArray[Any]:
    kind = values.type
    if pa.types.is_timestamp(kind):
        return np.asarray(values.to_numpy().astype("M8[us]"))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view():
        return np.array(values.to_pylist(), dtype=str)
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_floating(kind):
        return np.asarray(values.to_numpy())
    raise QueryError(f"group_by= gives {kind}: group by times, texts or numbers")
