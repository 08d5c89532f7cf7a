"""Files that are one granule: products in folders, Landsat's scenes, and those a caller groups."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePosixPath
from urllib.parse import unquote

from l2view.errors import IngestError
from l2view.ingest.granule import SUFFIXES, Entry, Failure, name_assets
from l2view.stores.urls import unquote_url
from l2view.text import first_line

type GranuleOf = Callable[[str], str | tuple[str, str] | None]
"""Called with a file's URL, returns its granule's id, or that and its own name; None for none."""

FOLDERS = {".sen3": "xfdumanifest.xml", ".safe": "manifest.safe"}
"""The ends of the names of Sentinels' products, which are folders, and their manifests."""

LANDSAT = re.compile(r"(L[COTEM]\d\d_\w{4}_\d{6}_\d{8}_\d{8}_\d\d_[A-Z]\w)_([^/]+)")
"""The names of a Landsat scene's files (Collection 2; LSDS-1328), and what differs in them."""

LANDSAT_MANIFESTS = ("MTL.json", "MTL.xml", "MTL.txt")

ARRAYS = SUFFIXES - {".json"}
"""How the names of a product's files with arrays end."""


@dataclass(frozen=True)
class Product:
    """A granule of several files.

    Attributes
    ----------
    prefix
        How the URLs of its files begin, and those of no other.
    manifests
        The URLs that its manifest may have.
    is_folder
        Whether it is a folder.
    """

    id: str
    prefix: str
    manifests: tuple[str, ...]
    is_folder: bool


def group_files(
    members: Iterable[str | Entry | Failure], granule_of: GranuleOf | str | None
) -> Iterator[str | Entry | Failure]:
    """Yield the granules of several files that are among some URLs, and all else as it is.

    Without `granule_of` the files of a product follow one another, as they do in listings; with
    it all are gone through to their end before the first granule of several files is yielded.
    """
    if isinstance(granule_of, str):
        granule_of = pattern_grouping(granule_of)
    if granule_of is not None:
        yield from _group_by(members, granule_of)
        return
    for product, files in groupby(members, _product_of):
        if product is None:
            yield from files
            continue
        urls = [str(url) for url in files]
        # Bands of Landsat without metadata are what somebody has chosen of a scene.
        is_product = product.is_folder or not set(urls).isdisjoint(product.manifests)
        yield from [_product_entry(product, urls)] if is_product else urls


def product_folder(path: str) -> str:
    """Return the folder of the product that a path is the manifest of; any other path as it is."""
    folder, _, name = path.rpartition("/")
    is_manifest = name in FOLDERS.values() and _product_of(path) is not None
    return folder if is_manifest else path


def pattern_grouping(pattern: str) -> GranuleOf:
    """Return what groups files by a regular expression that is searched for in their names.

    One with a ``/`` is searched for in their URLs. The id is what its groups match, joined by
    ``_``, or without groups the whole match. A group called ``asset`` is the name of a file in its
    granule, else what the match leaves of the file's. An `IngestError` says that it is no regular
    expression.
    """
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise IngestError(
            f"granule_of= (--group-by): {pattern!r} is no regular expression: {error}"
        ) from error
    number = regex.groupindex.get("asset")

    def granule_of(url: str) -> str | tuple[str, str] | None:
        path = unquote_url(url)
        match = regex.search(path if "/" in pattern else path.rpartition("/")[2])
        if match is None:
            return None
        texts = [text for n, text in enumerate(match.groups(), 1) if n != number and text]
        name = "_".join(texts) or match[0]
        if number is not None:
            return name, match[number] or ""
        return name, Entry.of_file(url).id.replace(Entry.of_file(match[0]).id, "", 1)

    return granule_of


def _group_by(
    members: Iterable[str | Entry | Failure], granule_of: GranuleOf
) -> Iterator[Entry | Failure]:
    groups: dict[str, dict[str, str]] = {}
    for url in members:
        if not isinstance(url, str):
            yield url
            continue
        try:
            if not (answer := granule_of(url)):
                raise IngestError("it names no granule of this file")
            name, asset = (answer, "") if isinstance(answer, str) else map(str, answer)
        except Exception as error:  # whatever a caller's function raises, or returns
            reason = f"granule_of= (--group-by): {first_line(error)}"
            yield Failure(Entry.of_file(url).id, url, reason)
            continue
        groups.setdefault(name, {})[url] = asset
    for name, assets in groups.items():
        yield Entry(name, name_assets(list(assets), list(assets.values())))


def _product_of(url: str | Entry | Failure) -> Product | None:
    """Return the product that a file belongs to, None where it is one of its own."""
    if not isinstance(url, str):
        return None
    folder, _, name = url.rpartition("/")
    parts = folder.split("/")
    for end, part in enumerate(parts, 1):
        stem, dot, suffix = unquote(part).rpartition(".")
        if stem and (manifest := FOLDERS.get(dot + suffix.lower())) is not None:
            path = "/".join(parts[:end])
            return Product(stem, f"{path}/", (f"{path}/{manifest}",), is_folder=True)
    if (scene := LANDSAT.fullmatch(name)) is None:
        return None
    prefix = f"{folder}/{scene[1]}_"
    return Product(scene[1], prefix, tuple(prefix + end for end in LANDSAT_MANIFESTS), False)


def _product_entry(product: Product, urls: Sequence[str]) -> Entry | Failure:
    """Return the granule of a product's files; a failure where none has arrays."""
    names = {url: unquote(url.removeprefix(product.prefix)) for url in urls}
    data = [url for url, name in names.items() if PurePosixPath(name).suffix.lower() in ARRAYS]
    if not data:
        has_images = any(name.lower().endswith(".jp2") for name in names.values())
        kind = "JPEG 2000, of which GDAL makes COGs" if has_images else "of no format with arrays"
        return Failure(product.id, product.prefix, f"its files are {kind}")
    # Those of Sentinel-1 have stamps.
    has_stamps = product.prefix.lower().endswith(".safe/")
    stems = () if has_stamps else [Entry.of_file(names[url]).id for url in data]
    manifest = next((url for url in product.manifests if url in names), product.manifests[0])
    others = [name for url, name in names.items() if url not in data and url != manifest]
    return Entry(
        product.id,
        name_assets(data, stems),
        {"href": product.prefix.rstrip("/_")},
        dict.fromkeys(others, "it is of no format with arrays"),
        manifest=manifest,
    )
