"""What a user may pass as ``store``, and how it becomes one Zarr store that is only read.

Which virtual chunks may be read is decided by what the caller authorised, never by what the
repository says of itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import icechunk
import obstore.store
import zarr
from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore, MemoryStore, ObjectStore, StorePath, ZipStore

from l2view.errors import AuthorizationError, StoreError
from l2view.stores.environment import container_credentials, flag, icechunk_storage
from l2view.stores.trust import trusted_prefixes
from l2view.stores.urls import is_url, local_path
from l2view.text import join_names, strip_credentials, unknown_name

type StoreLike = (
    icechunk.Repository
    | icechunk.Storage
    | icechunk.Session
    | Store
    | StorePath
    | zarr.Group
    | obstore.store.ObjectStore
    | os.PathLike[str]
    | str
    | Mapping[str, Any]
)
"""What l2view opens."""

type Authorize = bool | Iterable[str] | Mapping[str, Any]
"""Which virtual chunk containers may be read: URL prefixes, prefixes with credentials,
True for all that the repository lists, False for none."""


@dataclass(frozen=True)
class Source:
    """A store as l2view reads it, and the group in it that is the collection's root.

    Messages call it `label`, which holds no credentials. `snapshot` is that of Icechunk that is
    read, None where it isn't Icechunk or can be written to: only a snapshot stays what it is. The
    caller said nothing about the `unauthorized` virtual chunk containers.
    """

    store: Store
    label: str
    path: str = ""
    snapshot: str | None = None
    unauthorized: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceOptions:
    """How a collection lies in its store, and which state of it is read.

    Attributes
    ----------
    branch, tag, snapshot
        Which state of an Icechunk repository to read, at most one of them; the branch ``main``
        by default.
    group
        The group with the fields.
    location
        The field with the paths of the granules' groups or arrays, where it isn't one of the
        usual names.
    geometry_field, time_field
        The fields with footprints and times, where they have none of the usual names.
    authorize
        Which virtual chunk containers may be read.

    Raises
    ------
    StoreError
        Where several states are named.
    """

    branch: str | None = None
    tag: str | None = None
    snapshot: str | None = None
    group: str = "meta"
    location: str | None = None
    geometry_field: str | None = None
    time_field: str | None = None
    authorize: Authorize | None = None

    def __post_init__(self) -> None:
        if len(self.state) > 1:
            raise StoreError(
                f"pass one of branch, tag and snapshot, not {' and '.join(self.state)}"
            )

    @property
    def state(self) -> dict[str, str]:
        """The branch, tag or snapshot by its kind, as `icechunk.Repository` takes it."""
        state = {"branch": self.branch, "tag": self.tag, "snapshot": self.snapshot}
        return {kind: name for kind, name in state.items() if name is not None}


def open_source(store: Any, options: SourceOptions = SourceOptions()) -> Source:
    """Open whatever a user passed as `store` for reading (see `StoreLike`).

    A `StoreError` is raised where there is no store, or a state is named that it doesn't have. An
    `AuthorizationError` is raised where a container is authorised that the repository doesn't have.
    """
    state, authorize, path = options.state, options.authorize, ""
    if isinstance(store, zarr.Group):
        store = store.store_path
    if isinstance(store, StorePath):
        store, path = store.store, store.path
    if isinstance(store, str | os.PathLike):
        store, label = _locate(os.fspath(store))
    else:
        label = f"{_describe(store)}/{path}".rstrip("/")
    if isinstance(store, icechunk.Storage):
        try:
            store = icechunk.Repository.open(store)
        except icechunk.IcechunkError as error:
            raise unreadable_store(label, error) from error
    if isinstance(store, icechunk.Repository):
        return _from_repository(store, label, state, authorize)
    if unsupported := [*state, *(["authorize"] if authorize else [])]:
        raise StoreError(
            f"{unsupported[0]}= is for an Icechunk repository; {label} is not one. "
            "Pass the repository itself, or its path or URL"
        )
    return replace(_from_zarr(store, label), path=path)


def _from_repository(
    repository: icechunk.Repository, label: str, state: dict[str, str], authorize: Authorize | None
) -> Source:
    if authorize is not None:
        credentials = _credentials(repository, authorize)
        repository = repository.reopen(authorize_virtual_chunk_access=credentials)
    containers = repository.config.virtual_chunk_containers or {}
    authorized = set(repository.authorized_virtual_container_prefixes)
    missing = set(containers) - authorized
    if authorize is None and missing and not authorized:
        # Else it stays as the caller opened it.
        trusted = trusted_prefixes(repository.storage, containers)
        if trusted:
            is_anonymous = flag("AWS_SKIP_SIGNATURE") or flag("GOOGLE_SKIP_SIGNATURE")
            choices = dict.fromkeys(trusted, None if is_anonymous else "env")
            credentials = _credentials(repository, choices)
            repository = repository.reopen(authorize_virtual_chunk_access=credentials)
            missing -= trusted
    source = _from_zarr(_session(repository, label, state), label)
    return source if authorize is not None else replace(source, unauthorized=tuple(sorted(missing)))


def _session(
    repository: icechunk.Repository, label: str, state: dict[str, str]
) -> icechunk.Session:
    (kind, name), *_ = (state or {"branch": "main"}).items()
    selector: dict[str, Any] = {"snapshot_id" if kind == "snapshot" else kind: name}
    try:
        return repository.readonly_session(**selector)
    except (icechunk.NotFoundError, icechunk.InvalidInputError) as error:
        reason = f"no snapshot {name}; repository.ancestry() lists them"
        if kind == "tag":
            reason = unknown_name("tag", name, sorted(repository.list_tags()))
        elif kind == "branch":
            reason = unknown_name("branch", name, sorted(repository.list_branches()), "branches")
        raise StoreError(f"{label}: {reason}") from error


def _from_zarr(store: Any, label: str) -> Source:
    if isinstance(store, icechunk.Session):
        store = store.store
    if isinstance(store, icechunk.IcechunkStore):
        snapshot = store.session.snapshot_id if store.session.read_only else None
        return Source(store, label, snapshot=snapshot)
    if isinstance(store, Store):
        return Source(store, label)
    if type(store).__module__.startswith("obstore"):
        return Source(ObjectStore(store, read_only=True), label)
    if isinstance(store, dict):
        return Source(MemoryStore(store, read_only=True), label)
    if hasattr(store, "fs") and hasattr(store, "root"):  # an fsspec mapper
        return Source(FsspecStore.from_mapper(store, read_only=True), label)
    raise StoreError(
        f"can't open a {type(store).__name__} as a store; pass an Icechunk repository, session "
        "or store, a Zarr store or group, an obstore store, a path or a URL"
    )


def _describe(store: Any) -> str:
    """Name a store that was not passed as text, without its credentials."""
    if isinstance(store, icechunk.Repository | icechunk.Storage):
        text = str(store.storage if isinstance(store, icechunk.Repository) else store)
        fields = dict(re.findall(r"^\s*([\w ]+): (.+)$", text, re.MULTILINE))
        if "path" in fields:
            return str(fields["path"]).strip()
        names = (fields[name].strip() for name in ("bucket", "prefix") if name in fields)
        return f"Icechunk repository {'/'.join(names)}".strip()
    if isinstance(store, icechunk.Session | icechunk.IcechunkStore):
        return "Icechunk session"
    if isinstance(store, LocalStore):
        return str(store.root)
    if isinstance(store, MemoryStore | dict):
        return "memory"
    return strip_credentials(str(store)) if isinstance(store, Store) else type(store).__name__


def _locate(url: str) -> tuple[Any, str]:
    """Open the repository or Zarr store at a path or URL, and name it without credentials."""
    label = strip_credentials(url)
    url = local_path(url)
    if not is_url(url):
        return _locate_file(url), label
    storage = icechunk_storage(url)
    try:
        if storage is not None and icechunk.Repository.exists(storage):
            return icechunk.Repository.open(storage), label
        options: Any = {"allow_http": True} if url.startswith("http://") else None
        store = obstore.store.from_url(url, client_options=options)
    except (ValueError, icechunk.IcechunkError, obstore.exceptions.BaseError) as error:
        raise unreadable_store(label, error) from error
    return ObjectStore(store, read_only=True), label


def unreadable_store(label: str, error: Exception) -> StoreError:
    """Return the error of a store that can't be read, in one line and with a hint."""
    text = str(error).strip() or type(error).__name__
    line = re.sub(r"\s+", " ", re.split(r"\n\s*\n|Debug source:", text)[0]).strip()
    line = strip_credentials(line)
    hint = ""
    if label.startswith(("s3://", "s3a://")):
        hint = (
            ". The environment says how to reach a bucket: AWS_REGION, AWS_ENDPOINT_URL, "
            "AWS_SKIP_SIGNATURE=true for a public one; or pass an obstore store or an "
            "icechunk.Repository"
        )
    elif label.startswith(("http://", "https://")):
        hint = (
            ". A server can't list its files: over HTTP, a Zarr store needs consolidated metadata"
        )
    return StoreError(f"{label} can't be read: {line}{hint}")


def _locate_file(text: str) -> Any:
    if not text:
        raise StoreError("the path of the store is empty")
    path = Path(text).expanduser()
    if not path.exists():
        # What was meant for a URL may have credentials in it.
        label = re.sub(r"^(\w+:/*)[^/]*@", r"\1", str(path))
        raise StoreError(f"there is nothing at {label}")
    if path.suffix == ".zip" and path.is_file():
        return ZipStore(path, mode="r", read_only=True)
    if not path.is_dir():
        raise StoreError(f"{path} is a file; a store is a folder, a .zip or a URL")
    # A glance first: Icechunk would warn of what writing to a folder lacks.
    if (path / "repo").exists() or (path / "refs").exists():
        storage = icechunk.local_filesystem_storage(str(path.absolute()))
        if icechunk.Repository.exists(storage):
            return icechunk.Repository.open(storage)
    return LocalStore(path, read_only=True)


def _credentials(repository: icechunk.Repository, authorize: Authorize) -> dict[str, Any]:
    """Return Icechunk's map from container to credentials for what `authorize` says.

    A prefix without credentials is read anonymously: a repository says which endpoint a container
    has, so the environment's are only sent where the caller asks for them (``"env"``).
    """
    containers = sorted(repository.config.virtual_chunk_containers or {})
    if isinstance(authorize, bool):
        authorize = containers if authorize else ()
    elif isinstance(authorize, str):
        authorize = [authorize]
    prefixes = list(authorize) if isinstance(authorize, Iterable) else [authorize]
    if unsupported := [prefix for prefix in prefixes if not isinstance(prefix, str)]:
        raise AuthorizationError(
            "authorize= takes URL prefixes, a mapping from prefixes to credentials, True or False, "
            f"not {unsupported[0]!r}; this repository's containers are {join_names(containers)}"
        )
    choices = dict(authorize) if isinstance(authorize, Mapping) else dict.fromkeys(prefixes)
    credentials: dict[str, Any] = {}
    for name, choice in choices.items():
        prefix = name if name in containers else f"{name.rstrip('/')}/"
        if prefix not in containers:
            raise AuthorizationError(
                f"authorize= names {prefix}, which is no virtual chunk container of this "
                f"repository; it has {join_names(containers)}"
            )
        credentials[prefix] = container_credentials(prefix, choice)
    return icechunk.containers_credentials(credentials)


def require_authorization(source: Source) -> None:
    """Raise an `AuthorizationError` where the chunks of `source` need one that wasn't given."""
    if source.unauthorized:
        prefix = source.unauthorized[0]
        raise AuthorizationError(
            f"the chunks of {source.label} lie in {join_names(source.unauthorized)}, which you "
            f"have not authorised l2view to read. If you trust this repository, pass "
            f"authorize=[{prefix!r}] (or a mapping from prefix to credentials, or True for every "
            "container that it lists); authorize=False opens the view without its chunks. "
            "The option of commands is --authorize"
        )
