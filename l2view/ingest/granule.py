"""A granule on its way in: as it was named, as it was parsed, or why it is left out."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from l2view.granules.references import GranuleReferences
from l2view.text import strip_credentials

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("nc", "nc3", "nc4", "cdf", "netcdf", "h5", "hdf5", "he5", "h4", "hdf4", "he4", "hdf"),
        *("tif", "tiff", "gtiff", "zarr", "zip", "fit", "fits", "grb", "grb2", "grib", "grib2"),
        *("dmrpp", "json", "parq"),
    )
)
"""The ends of files' names that aren't part of a granule's id."""


def ids_of_file(url: str) -> list[str]:
    """Return the ids that a file may have: its name, then with ever more of its folders' names.

    Examples
    --------
    >>> ids_of_file("s3://bucket/a/x.nc")
    ['x', 'a_x', 'bucket_a_x']
    """
    split = urlsplit(url)
    path = PurePosixPath(re.sub(r"[\0-\x1f\x7f]", "_", unquote(split.path)))
    name = path.name
    # Not every dot begins a suffix: "gfs.t00z.pgrb2.f003" is a name.
    while (stem := PurePosixPath(name)).suffix.lower() in SUFFIXES and stem.stem:
        name = stem.stem
    folders = [name for name in (split.netloc, *path.parts[1:-1]) if name]
    return ["_".join([*folders[at:], name]) for at in range(len(folders), -1, -1)]


ALIASED = (
    "the collection has another file of its name, so its id has a folder's name, too; if both are "
    "the same granule, delete one of them"
)
"""What is said of a granule that has one of its aliases as its id."""

SEPARATORS = re.compile(r"[._\-\s]+")
STAMP = re.compile(r"\d{3,}|(?=(?:\D*\d){5}).*")
"""A word of a file's name that differs from granule to granule: a time, an orbit, a version."""

type BandPacking = Mapping[str, list[Any]]
"""The attributes by which a file's stored numbers are read: the distinct values of its bands."""


@dataclass(frozen=True)
class Entry:
    """A granule that is to be parsed.

    Attributes
    ----------
    assets
        Its files' URLs by name, ``""`` for that of a granule which is one file.
    fields
        The fields of its record, which win over what its files say.
    omitted
        Why files of it are left out, by name.
    packing
        How its files' stored numbers are read where they don't say it, by name.
    aliases
        The ids that it may have where its own is another file's.
    manifest
        The URL of what says more of a product of several files.
    """

    id: str
    assets: Mapping[str, str]
    fields: Mapping[str, Any] = field(default_factory=dict)
    omitted: Mapping[str, str] = field(default_factory=dict)
    packing: Mapping[str, BandPacking] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    manifest: str = ""

    @classmethod
    def of_file(cls, url: str, shared: Container[str] = ()) -> Entry:
        """Return the entry of a granule that is one file: its id isn't one of those `shared`."""
        ids = ids_of_file(url)
        at = next((at for at, name in enumerate(ids) if name not in shared), 0)
        return cls(ids[at], {"": url}, aliases=(*ids[at + 1 :], *ids[:at]))

    @property
    def url(self) -> str:
        """The first of its files."""
        return next(iter(self.assets.values()), "")

    @property
    def source(self) -> str:
        """Its field ``href``, unless the caller's harvester says otherwise."""
        return strip_credentials(str(self.fields.get("href") or self.url))


def name_assets(urls: Sequence[str], names: Sequence[str] = ()) -> dict[str, str]:
    """Return the files of a granule by names, which are those of its like in other granules.

    They are the `names` that a caller gives, if they tell all files apart; else the words of their
    names, without stamps and those that all begin with.

    Examples
    --------
    >>> list(name_assets(["VNP02MOD.A2020001.0006.002.nc", "VNP03MOD.A2020001.0006.002.nc"]))
    ['VNP02MOD', 'VNP03MOD']
    """
    if len(urls) == 1 and not any(names):
        return {"": urls[0]}
    stems = [Entry.of_file(url).id for url in urls]
    words = [split_words(stem) for stem in stems]
    shared = len(os.path.commonprefix(words))  # noqa: RUF071 (of lists, word by word)
    tails, plain = (["_".join(parts[at:]) for parts in words] for at in (shared, 0))
    for choice in (names, tails, plain, stems):
        if all(choice) and len(set(choice)) == len(urls):
            return dict(zip(choice, urls, strict=True))
    return {f"{stem}_{n}": url for n, (stem, url) in enumerate(zip(stems, urls, strict=True))}


def split_words(name: str) -> list[str]:
    """Return the words of a file's name without stamps."""
    return [word for word in SEPARATORS.split(name) if word and not STAMP.fullmatch(word)]


@dataclass(frozen=True)
class Granule:
    """A granule that is ready to be written: its fields, ``id`` among them, and its arrays.

    The notes say what its owner may want to mend; the aliases are those of its `Entry`.
    """

    row: Mapping[str, Any]
    references: GranuleReferences
    notes: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.row["id"])

    @property
    def source(self) -> str:
        """Its field ``href``, empty where it has none."""
        return str(self.row.get("href") or "")

    def with_alias(self, name: str) -> Granule:
        """Return it with one of its aliases as its id."""
        return replace(self, row={**self.row, "id": name}, notes=(*self.notes, ALIASED))

    def failure(self, reason: str) -> Failure:
        """Return it as a granule that is left out."""
        return Failure(self.id, self.source, reason)


@dataclass(frozen=True)
class Failure:
    """A granule that is left out, with its file and the reason."""

    id: str
    url: str
    reason: str

    def __str__(self) -> str:
        source = f" ({strip_credentials(self.url)})" if self.url else ""
        return f"{self.id}{source}: {self.reason}"


@dataclass
class BatchResult:
    """What became of a batch: ids, failures, and what was written; no snapshot of nothing."""

    added: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    granules: list[Granule] = field(default_factory=list)
    snapshot: str | None = None
