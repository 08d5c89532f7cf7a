"""Search a collection of Level 2 granules with SQL, get a Zarr group of those that match.

>>> import l2view
>>> view = l2view.open("s3://bucket/collection", where="cloud_cover < 10")  # doctest: +SKIP
>>> view["S2A_T31UDQ_20250614/red"][:512]  # doctest: +SKIP

`open` returns a `View`, which is a `zarr.Group`; `search` returns the rows alone, `sql` runs
any query over them and over the arrays, and a `Collection` does all three on one opened store.
"""

from importlib.metadata import version

# The packages first: the functions take their places below.
import l2view.ingest
import l2view.mosaic
import l2view.sql  # noqa: F401
from l2view.api import ingest, open, search, sql
from l2view.cells.one_array import zarr_cells
from l2view.collection import Collection
from l2view.config import config
from l2view.errors import (
    AuthorizationError,
    ChunkError,
    ExportError,
    FieldError,
    IngestError,
    L2ViewError,
    L2ViewWarning,
    MissingGranuleWarning,
    NotACollectionError,
    QueryError,
    ReadOnlyViewError,
    ShapeError,
    SkippedArrayWarning,
    SkippedFieldWarning,
    StoreError,
)
from l2view.mosaic.api import explain_mosaic, mosaic
from l2view.search.query import Query
from l2view.view import View

__version__ = version("l2view")

__all__ = [
    "AuthorizationError",
    "ChunkError",
    "Collection",
    "ExportError",
    "FieldError",
    "IngestError",
    "L2ViewError",
    "L2ViewWarning",
    "MissingGranuleWarning",
    "NotACollectionError",
    "Query",
    "QueryError",
    "ReadOnlyViewError",
    "ShapeError",
    "SkippedArrayWarning",
    "SkippedFieldWarning",
    "StoreError",
    "View",
    "config",
    "explain_mosaic",
    "ingest",
    "mosaic",
    "open",
    "search",
    "sql",
    "zarr_cells",
]
