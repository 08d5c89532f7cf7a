"""Search a collection of Level 2 granules with SQL, get a Zarr group of those that match.

>>> import l2view
>>> view = l2view.open("s3://bucket/collection", where="cloud_cover < 10")  # doctest: +SKIP
>>> view["S2A_T31UDQ_20250614/red"][:512]  # doctest: +SKIP

`open` returns a `View`, which is a `zarr.Group`; `search` returns the rows alone, `sql` runs
any query over them and over the arrays, and a `Collection` does all three on one opened store.
"""

import sys
from importlib import import_module
from threading import RLock
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import l2view.shutdown  # noqa: F401 (first, so that its handler runs last)
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
    UndecodedArrayWarning,
)

if TYPE_CHECKING:
    from l2view.api import ingest, open, search, sql
    from l2view.cells.one_array import zarr_cells
    from l2view.collection import Collection
    from l2view.config import config
    from l2view.ingest.formats import FileFormat
    from l2view.ingest.report import IngestReport
    from l2view.mosaic.api import explain_mosaic, mosaic
    from l2view.mosaic.explain import MosaicExplanation
    from l2view.mosaic.spec import MosaicSpec
    from l2view.scan.dataset import TableDataset
    from l2view.search.query import Query
    from l2view.stores.open import SourceOptions
    from l2view.view import View
    from l2view.virtual.store import ViewStore

    __version__: str

__all__ = [
    "AuthorizationError",
    "ChunkError",
    "Collection",
    "ExportError",
    "FieldError",
    "FileFormat",
    "IngestError",
    "IngestReport",
    "L2ViewError",
    "L2ViewWarning",
    "MissingGranuleWarning",
    "MosaicExplanation",
    "MosaicSpec",
    "NotACollectionError",
    "Query",
    "QueryError",
    "ReadOnlyViewError",
    "ShapeError",
    "SkippedArrayWarning",
    "SkippedFieldWarning",
    "SourceOptions",
    "StoreError",
    "TableDataset",
    "UndecodedArrayWarning",
    "View",
    "ViewStore",
    "config",
    "explain_mosaic",
    "ingest",
    "mosaic",
    "open",
    "search",
    "sql",
    "zarr_cells",
]

_MODULES = {
    "l2view.api": ("ingest", "open", "search", "sql"),
    "l2view.cells.one_array": ("zarr_cells",),
    "l2view.collection": ("Collection",),
    "l2view.config": ("config",),
    "l2view.ingest.formats": ("FileFormat",),
    "l2view.ingest.report": ("IngestReport",),
    "l2view.mosaic.api": ("explain_mosaic", "mosaic"),
    "l2view.mosaic.explain": ("MosaicExplanation",),
    "l2view.mosaic.spec": ("MosaicSpec",),
    "l2view.scan.dataset": ("TableDataset",),
    "l2view.search.query": ("Query",),
    "l2view.stores.open": ("SourceOptions",),
    "l2view.view": ("View",),
    "l2view.virtual.store": ("ViewStore",),
}
_DEFERRED = {name: module for module, names in _MODULES.items() for name in names}
"""The modules of the public names that are imported when they are first used."""

_IMPORTS = RLock()
"""One thread imports at a time: two that wait for one another's modules get them half made."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = import_module("importlib.metadata").version("l2view")
    elif name in _DEFERRED:
        with _IMPORTS:
            value = getattr(import_module(_DEFERRED[name]), name)
        if isinstance(value, FunctionType):
            # ``import l2view.search.query as m`` goes through the function `search`, and then
            # looks for the module below the function's name.
            value.__name__ = f"{__name__}.{name}"
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


class _Package(ModuleType):
    """Keeps its public names where a subpackage has the same, such as ``ingest``.

    The import of a submodule sets it as an attribute of its package.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _DEFERRED and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return import_module, (self.__name__,)


sys.modules[__name__].__class__ = _Package
