"""The repository that granules go into, and the files that it may refer to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import icechunk

from l2view.errors import IngestError
from l2view.stores.environment import container_store, icechunk_storage
from l2view.stores.open import unreadable_store
from l2view.stores.trust import trust
from l2view.stores.urls import common_folders, is_url, local_path, root_of
from l2view.text import strip_credentials

ATTEMPTS = 20  # how often a configuration is saved again where others save theirs
SPLIT = 1000  # the slots whose references lie in one manifest


def config(*, is_writer: bool = False) -> icechunk.RepositoryConfig:
    """Return the configuration of a packed collection.

    References are split by slots, so that a reader of one granule reads few of them and an
    ingest writes only new ones. None is read ahead, and few of those that were read are cached;
    fewer by a writer, as the nodes of a snapshot name all manifests of their arrays: a cache of
    them is as large as the collection, as many times as there were commits.
    """
    settings = icechunk.RepositoryConfig.default()
    condition = icechunk.ManifestSplitCondition.path_matches("/granules/.*")
    along = icechunk.ManifestSplitDimCondition.Axis(0)
    settings.manifest = icechunk.ManifestConfig(
        splitting=icechunk.ManifestSplittingConfig.from_dict({condition: {along: SPLIT}}),
        preload=icechunk.ManifestPreloadConfig(max_total_refs=0),
    )
    settings.caching = icechunk.CachingConfig(
        num_snapshot_nodes=100 if is_writer else 10_000,
        num_chunk_refs=50_000 if is_writer else 1_000_000,
        num_transaction_changes=0,
        num_bytes_attributes=0,
        num_bytes_chunks=0,
    )
    return settings


def open_repository(store: Any) -> icechunk.Repository:
    """Open the repository to ingest into; a path or URL makes one where there is none."""
    repository = find_repository(store)
    if repository is not None:
        return repository
    storage, label = _storage(store)
    try:
        icechunk.Repository.create(storage, config()).save_config()
        # Opened anew: a repository keeps the caches that it was made with.
        return icechunk.Repository.open(storage, config(is_writer=True))
    except icechunk.IcechunkError as error:
        raise unreadable_store(label, error) from error


def find_repository(store: Any) -> icechunk.Repository | None:
    """Open the repository that is there, None where there is none.

    An `IngestError` says that there is something else.
    """
    if isinstance(store, icechunk.Repository):
        return store
    storage, label = _storage(store)
    try:
        if icechunk.Repository.exists(storage):
            return icechunk.Repository.open(storage, config(is_writer=True))
    except icechunk.IcechunkError as error:
        raise unreadable_store(label, error) from error
    return None


def remove_empty(repository: icechunk.Repository, store: Any) -> bool:
    """Remove a repository at a path where nothing was ever committed; return whether it was."""
    is_local = isinstance(store, str | os.PathLike) and not is_url(local_path(os.fspath(store)))
    if not is_local or len(list(islice(repository.ancestry(branch="main"), 2))) > 1:
        return False
    shutil.rmtree(Path(local_path(os.fspath(store))).expanduser())
    return True


def _storage(store: Any) -> tuple[icechunk.Storage, str]:
    """Return the storage at a path or URL, and what a person calls it."""
    if isinstance(store, icechunk.Storage):
        return store, str(store)
    if not isinstance(store, str | os.PathLike):
        raise IngestError(
            f"ingest takes a path, a URL, or an Icechunk repository, not {type(store).__name__}"
        )
    label = strip_credentials(os.fspath(store))
    text = local_path(os.fspath(store))
    if is_url(text):
        storage = icechunk_storage(text)
        if storage is None:
            raise IngestError(f"{label} is of a kind that Icechunk can't write to")
        return storage, label
    path = Path(text).expanduser().absolute()
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not (path / "repo").exists()):
        raise IngestError(f"{path} is there already, and is no Icechunk repository")
    return icechunk.local_filesystem_storage(str(path)), label


def _without_container(urls: Iterable[str], prefixes: Iterable[str]) -> set[str]:
    """Return the URLs that no container covers."""
    # Icechunk's containers have names as they are, and its references percent-encoded ones.
    covering = tuple(prefixes)
    return {url for url in urls if not unquote(url).startswith(covering)}


def containers_for(urls: set[str], known: Iterable[str] = ()) -> list[str]:
    """Return the prefixes of containers for `urls`, beyond those that are `known`.

    Each is the deepest folder that the files of one store share, of those not covered.
    """
    uncovered = _without_container(urls, known)
    prefixes = []
    for root, folder in common_folders(uncovered).items():
        if folder == "file:///":  # the whole disk is wider than any archive
            local = {url for url in uncovered if root_of(url) == root}
            prefixes.extend(sorted({url.rpartition("/")[0] + "/" for url in local}))
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
    existing = set(repository.config.virtual_chunk_containers or {})
    uncovered = _without_container(urls, existing)
    if not uncovered:
        return repository, []
    elsewhere = {
        prefix: container
        for prefix, container in (known or {}).items()
        if any(unquote(url).startswith(prefix) for url in uncovered)
    }
    prefixes = containers_for(urls, [*existing, *elsewhere])
    added = {p: icechunk.VirtualChunkContainer(p, container_store(p)) for p in prefixes}
    added |= elsewhere
    _save(repository, added)
    trust(repository.storage, added)
    settings = repository.config
    for container in added.values():
        settings.set_virtual_chunk_container(container)
    return repository.reopen(settings), list(added)


def keep_containers(repository: icechunk.Repository, prefixes: Iterable[str]) -> None:
    """Save containers again that another ingest took away.

    Icechunk saves a configuration over whatever is there: of two ingests that add containers
    at once, the second may take those of the first away.
    """
    containers = repository.config.virtual_chunk_containers or {}
    _save(repository, {prefix: containers[prefix] for prefix in prefixes})


def _save(
    repository: icechunk.Repository, containers: Mapping[str, icechunk.VirtualChunkContainer]
) -> None:
    """Save containers into a repository's configuration, and check that they stayed."""
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
