"""DataFusion's plan of a query, as it can be gone through."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from datafusion import Expr

SUBQUERY = re.compile("<subquery>|Subquery:")
"""How a plan's text shows a subquery within an expression, which is no part of the plan that can
be gone through."""

RANDOM = re.compile(r"\b(random|uuid)\(\)")  # functions that answer otherwise each time


def kind(node: Any) -> str:
    """Return the kind of a plan's node: ``TableScan``, ``Filter``, …."""
    return type(node).__name__


def plan_nodes(plan: Any) -> list[Any]:
    """Return the nodes of a plan from its root, as far as each has one input.

    There are none where one of them has a subquery, or answers otherwise each time.
    """
    text = plan.display_indent()
    return [] if SUBQUERY.search(text) or RANDOM.search(text) else list(_down(plan))


def _down(plan: Any) -> Iterator[Any]:
    yield plan.to_variant()
    inputs = plan.inputs()
    if len(inputs) == 1:
        yield from _down(inputs[0])


def renames_columns(projection: Any) -> bool:
    """Tell if a projection computes or renames a column."""
    return any(term.variant_name() != "Column" for term in projection.projections())


def value(literal: Expr) -> Any:
    """Return the value of a literal, None of any other expression."""
    if literal.variant_name() != "Literal":
        return None
    constant = literal.python_value()
    return constant.as_py() if isinstance(constant, pa.Scalar) else constant
