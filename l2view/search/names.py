"""Names in SQL."""

from __future__ import annotations

from datafusion import Expr, col

TABLE = "meta"
"""The name of the table in SQL."""


def column(name: str) -> Expr:
    """Return the column called exactly `name`."""
    return col('"' + name.replace('"', '""') + '"')
