"""Which virtual chunk containers this user made on this machine.

What somebody ingested here opens here without ``authorize=``. The list lies in the user's own
state folder, names the repository, and is never taken from the repository itself.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import icechunk
from platformdirs import user_state_path


def state_file() -> Path:
    """Return the file with the list."""
    return user_state_path("l2view") / "containers.json"


def identity(storage: icechunk.Storage) -> str:
    """Return what tells a repository's storage from another, on one line."""
    lines = [line.strip() for line in str(storage).splitlines() if ":" in line]
    return "; ".join(line for line in lines if "credential" not in line.lower())


def trusted(storage: icechunk.Storage) -> frozenset[str]:
    """Return the containers that this user made for a repository."""
    return frozenset(_read().get(identity(storage), ()))


def trust(storage: icechunk.Storage, prefixes: set[str]) -> None:
    """Remember containers that this user made for a repository."""
    path, said = state_file(), _read()
    name = identity(storage)
    known = set(said.get(name, ()))
    if prefixes <= known:
        return
    said[name] = sorted(known | prefixes)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Put in place whole: two ingests may end at once.
    handle, temporary = tempfile.mkstemp(dir=path.parent, text=True)
    with os.fdopen(handle, "w") as file:
        json.dump(said, file, indent=1)
    Path(temporary).replace(path)


def _read() -> dict[str, list[str]]:
    try:
        found: dict[str, list[str]] = json.loads(state_file().read_text())
    except (OSError, ValueError):
        return {}
    return found
