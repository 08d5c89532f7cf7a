"""The errors and warnings of l2view, and the words they share.

Every message says what was asked, what was found and what to do next.
"""

from __future__ import annotations

import difflib
import os
import re
import warnings
from collections.abc import Iterable
from urllib.parse import urlsplit, urlunsplit

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


def listed(names: Iterable[str], *, most: int = 12) -> str:
    """Join `names` for a message, the first `most` of them."""
    names = list(names)
    if not names:
        return "(none)"
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown}, … ({len(names):,} in all)"


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the one of `names` that `name` was most likely meant to be."""
    folded = {other.casefold(): other for other in names}
    found = difflib.get_close_matches(name.casefold(), list(folded), n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def warn(message: str, category: type[L2ViewWarning]) -> None:
    """Warn at the line of whoever called l2view."""
    warnings.warn(message, category, skip_file_prefixes=(PACKAGE,), stacklevel=2)


def unknown(kind: str, name: str, names: Iterable[str], plural: str | None = None) -> str:
    """Say that there is no `name` among `names`, and which one may have been meant.

    Examples
    --------
    >>> unknown("field", "cloudcover", ["id", "cloud_cover"])
    'no field "cloudcover"; did you mean "cloud_cover"? fields: id, cloud_cover'
    """
    names = list(names)
    close = nearest(name, names)
    hint = f'; did you mean "{close}"?' if close else ";"
    return f'no {kind} "{name}"{hint} {plural or kind + "s"}: {listed(names)}'


_URLS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://[^\s\"'<>()]+")


def without_credentials(text: str) -> str:
    """Return `text` with every URL in it without user, password, query and fragment.

    Examples
    --------
    >>> without_credentials("can't read https://me:secret@host/a?sig=secret")
    "can't read https://host/a"
    """

    def bare(match: re.Match[str]) -> str:
        parts = urlsplit(match.group())
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    return _URLS.sub(bare, text)


def said(error: Exception) -> str:
    """Return what an error says, in one line and without credentials."""
    if isinstance(error, L2ViewError):
        return str(error)
    lines = str(error).strip().splitlines()
    text = without_credentials(lines[0]) if lines else "no reason given"
    return f"{type(error).__name__}: {text}"
