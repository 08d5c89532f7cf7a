"""What a user may pass as ``store``, and how it becomes one Zarr store to read from.

Two things are decided here and nowhere else: whether a path or URL is an Icechunk
repository or a plain Zarr store (by looking), and which virtual chunks may be read
(by what the caller authorised, never by what the repository says of itself).

Not good for writing: everything that comes out of here is only read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import icechunk
import obstore.store
import zarr
from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore, MemoryStore, ObjectStore, StorePath, ZipStore

from l2view.errors import AuthorizationError, StoreError
from l2view.stores.hierarchy import join
from l2view.stores.trust import trusted
from l2view.stores.urls import is_url
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
    """A store as l2view reads it.

    Attributes
    ----------
    store
        The Zarr store.
    path
        The group in it that is the collection's root.
    label
        What a person calls it. It holds no credentials.
    snapshot
        The Icechunk snapshot that is read, None where it isn't Icechunk or can be written
        to: only a snapshot stays what it is.
    unauthorized
        The virtual chunk containers that the caller said nothing about.
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
    """Open whatever a user passed as `store` for reading.

    Parameters
    ----------
    store
        An Icechunk repository, session or store; a Zarr store, group or `StorePath`; an
        obstore store; a path; a URL.
    options
        Which state to read, and what is authorised.

    Raises
    ------
    StoreError
        Where there is no store, or a state is named that it doesn't have.
    AuthorizationError
        Where a container is authorised that the repository doesn't have.
    """
    state, authorize = options.state, options.authorize
    if isinstance(store, os.PathLike):
        store = os.fspath(store)
    if isinstance(store, str):
        store, label = _locate(store)
    else:
        label = _describe(store)
    if isinstance(store, icechunk.Storage):
        try:
            store = icechunk.Repository.open(store)
        except icechunk.IcechunkError as error:
            raise unreadable(label, error) from error
    if isinstance(store, icechunk.Repository):
        return _from_repository(store, label, state, authorize)
    if given := [*state, *(["authorize"] if authorize else [])]:
        raise StoreError(
            f"{given[0]}= is for an Icechunk repository; {label} is not one. "
            "Pass the repository itself, or its path or URL"
        )
    if isinstance(store, icechunk.Session):
        return _from_session(store, label)
    if isinstance(store, icechunk.IcechunkStore):
        return _from_session(store.session, label, store)
    return _from_zarr(store, label)


def _from_repository(
    repository: icechunk.Repository,
    label: str,
    version: dict[str, str],
    authorize: Authorize | None,
) -> Source:
    if authorize is not None:
        credentials = _credentials(repository, authorize)
        repository = repository.reopen(authorize_virtual_chunk_access=credentials)
    containers = repository.config.virtual_chunk_containers or {}
    missing = sorted(set(containers) - set(repository.authorized_virtual_container_prefixes))
    mine = trusted(repository.storage, containers) if authorize is None and missing else frozenset()
    if mine & set(missing):
        how = None if flag("AWS_SKIP_SIGNATURE") or flag("GOOGLE_SKIP_SIGNATURE") else "env"
        wanted = {prefix: how for prefix in containers if prefix in mine}
        given = dict.fromkeys(repository.authorized_virtual_container_prefixes)
        if not given:  # what the caller opened it with stays as it is
            credentials = _credentials(repository, wanted)
            repository = repository.reopen(authorize_virtual_chunk_access=credentials)
            missing = sorted(set(missing) - mine)
    source = _from_session(_session(repository, label, version), label)
    return Source(
        store=source.store,
        label=label,
        snapshot=source.snapshot,
        unauthorized=tuple(missing) if authorize is None else (),
    )


def _session(
    repository: icechunk.Repository, label: str, version: dict[str, str]
) -> icechunk.Session:
    try:
        if "snapshot" in version:
            return repository.readonly_session(snapshot_id=version["snapshot"])
        if "tag" in version:
            return repository.readonly_session(tag=version["tag"])
        return repository.readonly_session(version.get("branch", "main"))
    except (icechunk.NotFoundError, icechunk.InvalidInputError) as error:
        if "tag" in version:
            said = unknown_name("tag", version["tag"], sorted(repository.list_tags()))
        elif "snapshot" in version:
            said = f"no snapshot {version['snapshot']}; repository.ancestry() lists them"
        else:
            branch = version.get("branch", "main")
            said = unknown_name("branch", branch, sorted(repository.list_branches()), "branches")
        raise StoreError(f"{label}: {said}") from error


def _from_session(
    session: icechunk.Session, label: str, store: icechunk.IcechunkStore | None = None
) -> Source:
    return Source(
        store=session.store if store is None else store,
        label=label,
        snapshot=session.snapshot_id if session.read_only else None,
    )


def _from_zarr(store: Any, label: str) -> Source:
    path = ""
    if isinstance(store, zarr.Group):
        store = store.store_path
    if isinstance(store, StorePath):
        store, path = store.store, store.path
    if isinstance(store, icechunk.IcechunkStore):
        source = _from_session(store.session, label, store)
        return Source(store=store, label=label, path=path, snapshot=source.snapshot)
    if isinstance(store, Store):
        return Source(store=store, label=label, path=path)
    if type(store).__module__.startswith("obstore"):
        return Source(store=ObjectStore(store, read_only=True), label=label)
    if isinstance(store, dict):
        return Source(store=MemoryStore(store, read_only=True), label=label)
    if hasattr(store, "fs") and hasattr(store, "root"):  # an fsspec mapper
        return Source(store=FsspecStore.from_mapper(store, read_only=True), label=label)
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
        place = "/".join(fields[name].strip() for name in ("bucket", "prefix") if name in fields)
        return f"Icechunk repository {place}".strip()
    if isinstance(store, zarr.Group | StorePath):
        path = store.store_path if isinstance(store, zarr.Group) else store
        return join(_describe(path.store), path.path)
    if isinstance(store, icechunk.Session | icechunk.IcechunkStore):
        return "Icechunk session"
    if isinstance(store, LocalStore):
        return str(store.root)
    if isinstance(store, MemoryStore | dict):
        return "memory"
    return strip_credentials(str(store)) if isinstance(store, Store) else type(store).__name__


def _locate(place: str) -> tuple[Any, str]:
    """Open the repository or Zarr store at a path or URL."""
    label = strip_credentials(place)
    if place.startswith("file://"):
        place = unquote(urlsplit(place).path)
    if not is_url(place):
        return _locate_file(place), label
    storage = icechunk_storage(place)
    try:
        if storage is not None and icechunk.Repository.exists(storage):
            return icechunk.Repository.open(storage), label
        options: Any = {"allow_http": True} if place.startswith("http://") else None
        store = obstore.store.from_url(place, client_options=options)
    except (ValueError, icechunk.IcechunkError, obstore.exceptions.BaseError) as error:
        raise unreadable(label, error) from error
    return ObjectStore(store, read_only=True), label


def unreadable(label: str, error: Exception) -> StoreError:
    """Return what to say where a store can't be read, in one line and with a way on."""
    said = str(error).strip() or type(error).__name__
    line = re.sub(r"\s+", " ", re.split(r"\n\s*\n|Debug source:", said)[0]).strip()
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


def _locate_file(place: str) -> Any:
    if not place:
        raise StoreError("the path of the store is empty")
    path = Path(place).expanduser()
    if not path.exists():
        # What was meant for a URL may have credentials in it.
        shown = re.sub(r"^(\w+:/*)[^/]*@", r"\1", str(path))
        raise StoreError(f"there is nothing at {shown}")
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


def icechunk_storage(url: str) -> icechunk.Storage | None:
    """Return Icechunk's storage for `url`, None for a scheme that it doesn't know.

    Settings come from the environment, by the same names as obstore reads them.
    """
    parts = urlsplit(url)
    prefix = parts.path.strip("/")
    match parts.scheme:
        case "s3" | "s3a":
            endpoint = os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT")
            anonymous = flag("AWS_SKIP_SIGNATURE")
            return icechunk.s3_storage(
                bucket=parts.netloc,
                prefix=prefix,
                region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
                endpoint_url=endpoint,
                allow_http=flag("AWS_ALLOW_HTTP"),
                force_path_style=endpoint is not None,
                anonymous=anonymous or None,
                from_env=None if anonymous else True,
            )
        case "gs" | "gcs":
            anonymous = flag("GOOGLE_SKIP_SIGNATURE")
            return icechunk.gcs_storage(
                bucket=parts.netloc,
                prefix=prefix,
                anonymous=anonymous or None,
                from_env=None if anonymous else True,
            )
        case "az" | "azure" | "abfs" | "abfss":
            account = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
            if account is None:
                raise StoreError(f"set AZURE_STORAGE_ACCOUNT_NAME to open {strip_credentials(url)}")
            return icechunk.azure_storage(
                account=account, container=parts.netloc, prefix=prefix, from_env=True
            )
        case "http" | "https":
            return icechunk.http_storage(url)
    return None


def flag(name: str) -> bool:
    """Return whether a variable of the environment is set to true."""
    return os.environ.get(name, "").casefold() in ("1", "true", "yes", "on")


def _credentials(repository: icechunk.Repository, authorize: Authorize) -> dict[str, Any]:
    """Return Icechunk's map from container to credentials for what `authorize` says.

    A prefix without credentials is read anonymously: a repository says which endpoint a
    container has, so the environment's credentials are only sent where the caller asks
    for them (``{"s3://bucket/": "env"}``).
    """
    containers = sorted(repository.config.virtual_chunk_containers or {})
    if isinstance(authorize, str):
        authorize = [authorize]
    if isinstance(authorize, bool):
        wanted: dict[str, Any] = dict.fromkeys(containers if authorize else ())
    elif isinstance(authorize, Mapping):
        wanted = dict(authorize)
    else:
        wanted = dict.fromkeys(authorize)
    wanted = {
        prefix if prefix in containers else f"{prefix.rstrip('/')}/": said
        for prefix, said in wanted.items()
    }
    for prefix in wanted:
        if prefix not in containers:
            raise AuthorizationError(
                f"authorize= names {prefix}, which is no virtual chunk container of this "
                f"repository; it has {join_names(containers)}"
            )
    return icechunk.containers_credentials(
        {prefix: _credential(prefix, said) for prefix, said in wanted.items()}
    )


def _credential(prefix: str, said: Any) -> Any:
    scheme = urlsplit(prefix).scheme
    if said not in (None, "anonymous", "env"):
        return said
    if scheme == "file":
        return icechunk.credentials.LocalFileSystemAccess
    if scheme in ("http", "https"):
        return icechunk.credentials.HttpAccess
    maker: Any = {
        "s3": icechunk.s3_credentials,
        "gs": icechunk.gcs_credentials,
        "gcs": icechunk.gcs_credentials,
        "az": icechunk.azure_credentials,
    }.get(scheme)
    if maker is None:
        raise AuthorizationError(f"authorize= needs credentials of icechunk's for {prefix}")
    return maker(from_env=True) if said == "env" else maker(anonymous=True)


def require_authorization(source: Source) -> None:
    """Raise where the chunks of `source` would need an authorisation that wasn't given.

    Raises
    ------
    AuthorizationError
        Naming the containers and the argument to pass.
    """
    if source.unauthorized:
        first = source.unauthorized[0]
        raise AuthorizationError(
            f"the chunks of {source.label} lie in {join_names(source.unauthorized)}, which you "
            f"have not authorised l2view to read. If you trust this repository, pass "
            f"authorize=[{first!r}] (or a mapping from prefix to credentials, or True for every "
            "container that it lists); authorize=False opens the view without its chunks"
        )
