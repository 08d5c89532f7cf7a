"""Groups, arrays, chunks and cells as tables for SQL."""

from l2view.tables.array import cells

__all__ = ["cells"]
