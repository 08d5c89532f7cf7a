"""Files that are one granule: products in folders, Landsat's scenes, and those a caller groups."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote

from l2view.errors import IngestError
from l2view.ingest.files import file_info, list_files
from l2view.ingest.granule import SUFFIXES, Entry, Failure, name_assets, split_words
from l2view.stores.urls import unquote_url
from l2view.text import first_line

type GranuleOf = Callable[[str], str | tuple[str, str] | None]
"""Called with a file's URL, returns its granule's id, or that and its own name; None for none."""

FOLDERS = {".sen3": "xfdumanifest.xml", ".safe": "manifest.safe"}
"""The ends of the names of Sentinels' products, which are folders, and their manifests."""

LANDSAT = re.compile(r"(L[COTEM]\d\d_\w{4}_\d{6}_\d{8}_\d{8}_\d\d_[A-Z]\w)_([^/]+)")
"""The names of a Landsat scene's files (Collection 2; LSDS-1328), and what differs in them."""

LANDSAT_MANIFESTS = ("MTL.json", "MTL.xml", "MTL.txt")

OPEN = 10_000
"""The products whose files may come in between those of another."""

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

    Without `granule_of` the files of a product needn't follow one another, but its granule comes
    once `OPEN` others have begun after it; with it all are gone through to their end before the
    first granule of several files is yielded.
    """
    if isinstance(granule_of, str):
        granule_of = pattern_grouping(granule_of)
    if granule_of is not None:
        yield from _group_by(members, granule_of)
        return
    products: dict[Product, list[str]] = {}
    for member in members:
        product = _product_of(member) if isinstance(member, str) else None
        if product is None:
            yield member
            continue
        products.setdefault(product, []).append(str(member))
        if len(products) > OPEN:
            yield from _product_granules(first := next(iter(products)), products.pop(first))
    for product, urls in products.items():
        yield from _product_granules(product, urls)


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
        rest = Entry.of_file(url).id.replace(Entry.of_file(match[0]).id, "", 1)
        return name, "_".join(split_words(rest))

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
            if (answer := granule_of(url)) is None:
                raise IngestError("it names no granule of this file")
            name, asset = answer if isinstance(answer, tuple) else (answer, "")
            if not (name and isinstance(name, str) and isinstance(asset, str)):
                raise IngestError(f"it gives {answer!r}, and neither an id nor an id and a name")
        except Exception as error:  # whatever a caller's function raises, or returns
            reason = f"granule_of= (--group-by): {first_line(error)}"
            yield Failure(Entry.of_file(url).id, url, reason)
            continue
        groups.setdefault(name, {})[url] = asset
    for name, assets in groups.items():
        # The folder is the same in whatever order, and with however many of the files.
        folder = os.path.commonprefix([url.split("/")[:-1] for url in assets])  # noqa: RUF071
        href = "/".join(folder) if len(assets) > 1 else next(iter(assets))
        yield Entry(name, name_assets(list(assets), list(assets.values())), {"href": href})


def _product_of(url: str) -> Product | None:
    """Return the product that a file belongs to, None where it is one of its own."""
    folder, _, name = url.rpartition("/")
    parts = folder.split("/")
    for end in range(len(parts), 0, -1):  # the innermost folder is that with the manifest
        stem, dot, suffix = unquote(parts[end - 1]).rpartition(".")
        if stem and (manifest := FOLDERS.get(dot + suffix.lower())) is not None:
            path = "/".join(parts[:end])
            return Product(stem, f"{path}/", (f"{path}/{manifest}",), True)
    if (scene := LANDSAT.fullmatch(name)) is None:
        return None
    prefix = f"{folder}/{scene[1]}_"
    return Product(scene[1], prefix, tuple(prefix + end for end in LANDSAT_MANIFESTS), False)


def _product_granules(product: Product, urls: list[str]) -> Iterator[str | Entry | Failure]:
    """Yield a product's granule; the files of a scene without metadata, which somebody chose."""
    manifest = next((url for url in product.manifests if url in urls), None)
    if manifest is None and not product.is_folder:
        manifest = next(filter(_is_file, product.manifests), None)
        if manifest is None:
            yield from urls
            return
    if manifest in urls and not any(map(_may_have_arrays, urls)):
        # It stands for all of its product.
        urls = [file.url for file in list_files(product.prefix.rpartition("/")[0])]
        urls = [url for url in urls if url.startswith(product.prefix)]
    names = {url: unquote(url.removeprefix(product.prefix)) for url in dict.fromkeys(urls)}
    data = list(filter(_may_have_arrays, names))
    if not data:
        has_images = any(name.lower().endswith(".jp2") for name in names.values())
        kind = "JPEG 2000, of which GDAL makes COGs" if has_images else "of no format with arrays"
        yield Failure(product.id, product.prefix, f"its files are {kind}")
        return
    manifest = manifest or product.manifests[0]
    others = Counter(
        f"*{PurePosixPath(name).suffix}"
        for url, name in names.items()
        if url not in data and url not in product.manifests
    )
    yield Entry(
        product.id,
        _asset_names(product, {url: names[url] for url in data}),
        {"href": product.prefix.rstrip("/_")},
        {name: f"{count} files of no format with arrays" for name, count in others.items()},
        manifest=manifest,
    )


def _asset_names(product: Product, names: Mapping[str, str]) -> dict[str, str]:
    """Return a product's files by names: those of its like in other products.

    Sentinel-1's have the words of the product in them, and Sentinel-3's single files stamps.
    """
    stems = [Entry.of_file(name).id for name in names.values()]
    if product.prefix.lower().endswith(".safe/"):
        own = {word.lower() for word in split_words(product.id)}
        stems = ["_".join(w for w in split_words(s) if w.lower() not in own) for s in stems]
    elif product.is_folder and len(names) == 1:
        return {"": next(iter(names))}
    return name_assets(list(names), stems)


def _may_have_arrays(url: str) -> bool:
    return PurePosixPath(unquote(url)).suffix.lower() in ARRAYS


def _is_file(url: str) -> bool:
    try:
        return file_info(url) is not None
    except IngestError:  # a server's way to say that there is no such file
        return False
