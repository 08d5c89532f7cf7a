"""Which virtual chunk containers this user made on this machine.

What somebody ingested here opens here without ``authorize=``. The list lies in the user's own
state folder, names the repository, and is never taken from the repository itself.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import icechunk
from platformdirs import user_state_path

from l2view.errors import L2ViewWarning, warn
from l2view.text import first_line


def state_file() -> Path:
    """Return the file with the list."""
    return user_state_path("l2view") / "containers.json"


def _storage_id(storage: icechunk.Storage) -> str:
    """Return a text, without credentials, that no other repository's storage has."""
    lines = [line.strip() for line in str(storage).splitlines() if ":" in line]
    return "; ".join(line for line in lines if "credential" not in line.lower())


def trusted_prefixes(
    storage: icechunk.Storage, containers: Mapping[str, icechunk.VirtualChunkContainer]
) -> frozenset[str]:
    """Return those of a repository's containers, by prefix, that this user made for it.

    One whose settings are no longer what the user made, such as another endpoint, isn't among
    them: whoever writes to the repository could otherwise have credentials sent elsewhere.
    """
    trusted = _read().get(_storage_id(storage), {})
    return frozenset(
        prefix for prefix, c in containers.items() if trusted.get(prefix) == _settings(c)
    )


def trust(
    storage: icechunk.Storage, containers: Mapping[str, icechunk.VirtualChunkContainer]
) -> None:
    """Remember containers, by prefix, that this user made for a repository."""
    path, name = state_file(), _storage_id(storage)
    added = {prefix: _settings(container) for prefix, container in containers.items()}
    if added.items() <= _read().get(name, {}).items():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two ingests may end at once
            repositories = _read()
            repositories.setdefault(name, {}).update(added)
            # Put in place whole, for who reads it.
            handle, temporary = tempfile.mkstemp(dir=path.parent, text=True)
            with os.fdopen(handle, "w") as file:
                json.dump(repositories, file, indent=1)
            Path(temporary).replace(path)
    except OSError as error:
        warn(
            f"{path} can't be written ({first_line(error)}): opening this collection will take "
            "authorize=",
            L2ViewWarning,
        )


def _settings(container: icechunk.VirtualChunkContainer) -> str:
    """Return how a container reaches its files, on one line; no credentials are in it."""
    return " ".join(repr(container.store).split())


def _read() -> dict[str, dict[str, str]]:
    try:
        repositories = json.loads(state_file().read_text())
    except (OSError, ValueError):
        return {}
    names = repositories if isinstance(repositories, dict) else {}
    return {name: names[name] for name in names if isinstance(names[name], dict)}
