"""The errors and warnings of l2view.

Every message says what was asked, what was found and what to do next.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

PACKAGE = os.path.dirname(__file__)  # noqa: PTH120 (what `warnings` compares is text)


class L2ViewError(Exception):
    """Base of every error that l2view raises on purpose."""


class StoreError(L2ViewError):
    """A store can't be opened, or isn't a collection."""


class NotACollectionError(StoreError):
    """A store has no group of fields."""


class AuthorizationError(L2ViewError):
    """Virtual chunks lie in a container that the caller hasn't authorised."""


class FieldError(L2ViewError):
    """A field of ``/meta`` is missing, or its data can't be used as asked."""


class UnreadableGeometryError(FieldError):
    """A footprint is not what its field says it is."""


class QueryError(L2ViewError, ValueError):
    """A search or an SQL statement can't be run as it was written."""


class IngestError(L2ViewError):
    """Granules can't be written to a collection."""


class ShapeError(L2ViewError, ValueError):
    """The granules found can't be shown in the shape that was asked for."""


class ExportError(L2ViewError, ValueError):
    """A view can't be written in the form that was asked for."""


class ReadOnlyViewError(L2ViewError, ValueError):
    """Something tried to write to a view."""


class ChunkError(L2ViewError, OSError):
    """The bytes of a chunk can't be read from where they lie."""


@contextmanager
def explain_missing(
    needs: str, package: str, error_class: type[L2ViewError] = L2ViewError
) -> Iterator[None]:
    """Raise an error of what an import within lacks: what needs it, and the package to install."""
    try:
        yield
    except ImportError as error:
        raise error_class(f"{needs}: pip install {package}") from error


class UnsupportedArrayError(L2ViewError):
    """An array of the source store has no Zarr v3 form."""


class L2ViewWarning(UserWarning):
    """Base of every warning of l2view."""


class SkippedFieldWarning(L2ViewWarning):
    """An array of ``/meta`` is not a column of the table."""


class MissingGranuleWarning(L2ViewWarning):
    """A granule of ``/meta`` has no arrays in the store."""


class SkippedArrayWarning(L2ViewWarning):
    """An array of a granule is not shown by the view."""


class UndecodedArrayWarning(L2ViewWarning):
    """The values of a granule's array are shown as they are stored."""


def warn(message: str, category: type[L2ViewWarning]) -> None:
    """Warn at the line of whoever called l2view."""
    warnings.warn(message, category, skip_file_prefixes=(PACKAGE,), stacklevel=2)
