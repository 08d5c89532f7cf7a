"""The repository that granules go into, and the files that it may refer to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import icechunk

from l2view.errors import IngestError
from l2view.stores.open import flag, icechunk_storage, unreadable
from l2view.stores.trust import trust
from l2view.stores.urls import common_folders, is_url, root_of
from l2view.text import strip_credentials

ATTEMPTS = 20
"""How often a configuration is saved again where others save theirs."""

SPLIT = 1000
"""The slots whose references lie in one manifest."""


def config() -> icechunk.RepositoryConfig:
    """Return the configuration of a packed collection.

    References are split by slots, so that a reader of one granule reads few of them and an
    ingest writes only new ones; none is read ahead, and what was read isn't kept for ever.
    """
    made = icechunk.RepositoryConfig.default()
    condition = icechunk.ManifestSplitCondition.path_matches("/granules/.*")
    along = icechunk.ManifestSplitDimCondition.Axis(0)
    made.manifest = icechunk.ManifestConfig(
        splitting=icechunk.ManifestSplittingConfig.from_dict({condition: {along: SPLIT}}),
        preload=icechunk.ManifestPreloadConfig(max_total_refs=0),
    )
    made.caching = icechunk.CachingConfig(
        num_snapshot_nodes=10_000,
        num_chunk_refs=1_000_000,
        num_transaction_changes=0,
        num_bytes_attributes=0,
        num_bytes_chunks=0,
    )
    return made


def writing() -> icechunk.RepositoryConfig:
    """Return the configuration of a writer, who goes back to little of what it wrote.

    The nodes of a snapshot name all manifests of their arrays: a cache of them is as large as
    the collection, as many times as there were commits.
    """
    made = config()
    caching = made.caching or icechunk.CachingConfig()
    caching.num_chunk_refs = 50_000
    caching.num_snapshot_nodes = 100
    made.caching = caching
    return made


def open_repository(store: Any) -> icechunk.Repository:
    """Open the repository to ingest into; a path or URL makes one where there is none.

    Raises
    ------
    IngestError
        Where there is something else.
    """
    found = find_repository(store)
    if found is not None:
        return found
    storage, label = _storage(store)
    try:
        made = icechunk.Repository.create(storage, config())
        made.save_config()
        # Opened anew: a repository keeps the caches that it was made with.
        return icechunk.Repository.open(storage, writing())
    except icechunk.IcechunkError as error:
        raise unreadable(label, error) from error


def find_repository(store: Any) -> icechunk.Repository | None:
    """Open the repository that is there, None where there is none.

    Raises
    ------
    IngestError
        Where there is something else.
    """
    if isinstance(store, icechunk.Repository):
        return store
    storage, label = _storage(store)
    try:
        if icechunk.Repository.exists(storage):
            return icechunk.Repository.open(storage, writing())
    except icechunk.IcechunkError as error:
        raise unreadable(label, error) from error
    return None


def _storage(store: Any) -> tuple[icechunk.Storage, str]:
    """Return the storage at a path or URL, and what a person calls it."""
    if isinstance(store, icechunk.Storage):
        return store, str(store)
    if not isinstance(store, str | os.PathLike):
        raise IngestError(
            f"ingest takes a path, a URL, or an Icechunk repository, not {type(store).__name__}"
        )
    place = os.fspath(store)
    label = strip_credentials(place)
    if place.startswith("file://"):
        place = unquote(urlsplit(place).path)
    if is_url(place):
        storage = icechunk_storage(place)
        if storage is None:
            raise IngestError(f"{label} is of a kind that Icechunk can't write to")
        return storage, label
    path = Path(place).expanduser().absolute()
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not (path / "repo").exists()):
        raise IngestError(f"{path} is there already, and is no Icechunk repository")
    return icechunk.local_filesystem_storage(str(path)), label


def containers_for(urls: set[str], known: Iterable[str] = ()) -> list[str]:
    """Return the prefixes of containers for `urls`, beyond those that are `known`.

    Each is the deepest folder that the files of one store share, of those not covered.
    """
    # Icechunk's containers have names as they are, and its references percent-encoded ones.
    covering = tuple(known)
    uncovered = {url for url in urls if not unquote(url).startswith(covering)}
    prefixes = []
    for root, folder in common_folders(uncovered).items():
        if folder == "file:///":  # the whole disk is wider than any archive
            mine = {url for url in uncovered if root_of(url) == root}
            prefixes.extend(sorted({url.rpartition("/")[0] + "/" for url in mine}))
        else:
            prefixes.append(folder)
    return [unquote(prefix) for prefix in prefixes]


def with_containers(
    repository: icechunk.Repository,
    urls: set[str],
    known: Mapping[str, icechunk.VirtualChunkContainer] | None = None,
) -> tuple[icechunk.Repository, list[str]]:
    """Return the repository with containers for `urls`, and those that are new.

    A new one is one of those `known` elsewhere, or else the deepest folder that its files
    share, of those that no container covers.
    """
    mine = set(repository.config.virtual_chunk_containers or {})
    uncovered = {url for url in urls if not unquote(url).startswith(tuple(mine))}
    if not uncovered:
        return repository, []
    elsewhere = {
        prefix: container
        for prefix, container in (known or {}).items()
        if any(unquote(url).startswith(prefix) for url in uncovered)
    }
    prefixes = containers_for(urls, [*mine, *elsewhere])
    made = {p: icechunk.VirtualChunkContainer(p, _store(p)) for p in prefixes} | elsewhere
    _save(repository, made)
    trust(repository.storage, made)
    wanted = repository.config
    for container in made.values():
        wanted.set_virtual_chunk_container(container)
    return repository.reopen(wanted), list(made)


def keep_containers(repository: icechunk.Repository, prefixes: Iterable[str]) -> None:
    """See to it that containers that were saved are there still.

    Icechunk saves a configuration over whatever is there: of two ingests that add containers
    at once, the second may take those of the first away.
    """
    known = repository.config.virtual_chunk_containers or {}
    _save(repository, {prefix: known[prefix] for prefix in prefixes})


def _save(
    repository: icechunk.Repository, containers: Mapping[str, icechunk.VirtualChunkContainer]
) -> None:
    """Save containers into a repository's configuration, and look whether they stayed."""
    for _ in range(ATTEMPTS):
        saved = icechunk.Repository.fetch_config(repository.storage) or config()
        if containers.keys() <= (saved.virtual_chunk_containers or {}).keys():
            return
        for container in containers.values():
            saved.set_virtual_chunk_container(container)
        repository.reopen(saved).save_config()
    raise IngestError(
        "others change the repository's configuration all the time; run the same command again"
    )


def _store(prefix: str) -> Any:
    """Return how Icechunk reaches the files below `prefix`, as the environment says."""
    parts = urlsplit(prefix)
    match parts.scheme:
        case "file":
            return icechunk.local_filesystem_store(parts.path)
        case "s3" | "s3a":
            endpoint = os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT")
            return icechunk.s3_store(
                region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
                endpoint_url=endpoint,
                allow_http=flag("AWS_ALLOW_HTTP"),
                force_path_style=endpoint is not None,
                anonymous=flag("AWS_SKIP_SIGNATURE"),
            )
        case "gs" | "gcs":
            return icechunk.gcs_store()
        case "http" | "https":
            return icechunk.http_store()
    raise IngestError(f"Icechunk can't refer to files at {prefix}")
