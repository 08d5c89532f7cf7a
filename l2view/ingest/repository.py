"""The repository that granules go into, and the files that it may refer to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import icechunk

from l2view.errors import IngestError
from l2view.ingest.files import folder_of, root_of
from l2view.stores import URL, flag, icechunk_storage, unreadable, without_credentials
from l2view.trust import trust

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


def open_repository(store: Any) -> icechunk.Repository:
    """Open the repository to ingest into; a path or URL makes one where there is none.

    Raises
    ------
    IngestError
        Where there is something else.
    """
    if isinstance(store, icechunk.Repository):
        return store
    if isinstance(store, icechunk.Storage):
        return _at(store, str(store))
    if not isinstance(store, str | os.PathLike):
        raise IngestError(
            f"ingest takes a path, a URL, or an Icechunk repository, not {type(store).__name__}"
        )
    place = os.fspath(store)
    label = without_credentials(place)
    if place.startswith("file://"):
        place = urlsplit(place).path
    if URL.match(place):
        storage = icechunk_storage(place)
        if storage is None:
            raise IngestError(f"{label} is of a kind that Icechunk can't write to")
        return _at(storage, label)
    path = Path(place).expanduser().absolute()
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not (path / "repo").exists()):
        raise IngestError(f"{path} is there already, and is no Icechunk repository")
    return _at(icechunk.local_filesystem_storage(str(path)), label)


def _at(storage: icechunk.Storage, label: str) -> icechunk.Repository:
    try:
        if icechunk.Repository.exists(storage):
            return icechunk.Repository.open(storage, config())
        made = icechunk.Repository.create(storage, config())
        made.save_config()
        return made
    except icechunk.IcechunkError as error:
        raise unreadable(label, error) from error


def with_containers(
    repository: icechunk.Repository, urls: set[str]
) -> tuple[icechunk.Repository, list[str]]:
    """Return the repository with containers for `urls`, and those that are new.

    A new one is the deepest folder that its files share, of those that no container covers.
    """
    known = set(repository.config.virtual_chunk_containers or {})
    # Icechunk's containers have names as they are, and its references percent-encoded ones.
    uncovered = {
        url for url in urls if not any(unquote(url).startswith(prefix) for prefix in known)
    }
    if not uncovered:
        return repository, []
    prefixes = []
    for root, folder in folder_of(uncovered).items():
        if folder == "file:///":  # the whole disk is wider than any archive
            mine = {url for url in uncovered if root_of(url) == root}
            prefixes.extend(sorted({url.rpartition("/")[0] + "/" for url in mine}))
        else:
            prefixes.append(folder)
    prefixes = [unquote(prefix) for prefix in prefixes]
    wanted = repository.config
    for prefix in prefixes:
        container = icechunk.VirtualChunkContainer(prefix, _store(prefix))
        wanted.set_virtual_chunk_container(container)
    repository = repository.reopen(wanted)
    repository.save_config()
    trust(repository.storage, set(prefixes))
    return repository, prefixes


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
