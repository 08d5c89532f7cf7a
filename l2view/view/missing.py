"""Granules without arrays, and variables that none has: what a view warns of when it is opened."""

from __future__ import annotations

from l2view.errors import L2ViewWarning, MissingGranuleWarning, SkippedArrayWarning, listed
from l2view.hierarchy import join
from l2view.view.store import ViewStore


async def look(store: ViewStore) -> list[tuple[str, type[L2ViewWarning]]]:
    """Return warnings of granules without arrays, and of variables that the first has none of."""
    said: list[tuple[str, type[L2ViewWarning]]] = []
    names = store.granules.names.to_pylist()
    locations = [store.granules.location(row) for row in range(len(names))]
    await store.layout.prefetch([(location, "") for location in locations])
    missing = {
        name: store.layout.missing(location)
        for name, location in zip(names, locations, strict=True)
        if await store.layout.document(location, "") is None
    }
    if missing:
        reasons = list(dict.fromkeys(missing.values()))
        text = (
            f"{len(missing)} of {len(names)} granules have no arrays in "
            f"{store.description['collection']}: {listed(missing)}: "
            f"{'; '.join(reasons[:3])}{'; …' if len(reasons) > 3 else ''}"
        )
        said.append((text, MissingGranuleWarning))
    if store.variables is None or names[0] in missing:
        return said
    shown, hidden = await _arrays(store, names[0], "")
    if hidden and not shown:
        text = (
            f"no array of {names[0]}, the first granule, matches "
            f"variables={list(store.variables)}; it has {listed(hidden)}"
        )
        said.append((text, SkippedArrayWarning))
    return said


async def _arrays(store: ViewStore, name: str, path: str) -> tuple[list[str], list[str]]:
    """Return the arrays below a granule's group that are shown, and those that aren't."""
    location = store.granules.location(store.granules.row(name) or 0)
    shown: list[str] = []
    hidden: list[str] = []
    for child in await store.layout.children(location, path):
        inner = join(path, child)
        document = await store.layout.document(location, inner)
        if document is not None and document["node_type"] == "group":
            below = await _arrays(store, name, inner)
            shown.extend(below[0])
            hidden.extend(below[1])
        elif document is not None:
            (shown if store.shows(inner) else hidden).append(inner)
    return shown, hidden
