"""Granules without arrays, and variables that none has: what a view warns of when it is opened."""

from __future__ import annotations

from l2view.errors import L2ViewWarning, MissingGranuleWarning, SkippedArrayWarning
from l2view.stores.hierarchy import join
from l2view.text import join_names
from l2view.virtual.tree import Tree


async def look(tree: Tree) -> list[tuple[str, type[L2ViewWarning]]]:
    """Return warnings of granules without arrays, and of variables that the first has none of."""
    said: list[tuple[str, type[L2ViewWarning]]] = []
    names = tree.granules.names.to_pylist()
    locations = [tree.granules.location(row) for row in range(len(names))]
    await tree.layout.prefetch([(location, "") for location in locations])
    missing = {
        name: tree.layout.missing(location)
        for name, location in zip(names, locations, strict=True)
        if await tree.layout.document(location, "") is None
    }
    if missing:
        reasons = list(dict.fromkeys(missing.values()))
        text = (
            f"{len(missing)} of {len(names)} granules have no arrays in "
            f"{tree.description['collection']}: {join_names(missing)}: "
            f"{'; '.join(reasons[:3])}{'; …' if len(reasons) > 3 else ''}"
        )
        said.append((text, MissingGranuleWarning))
    if tree.variables is None or names[0] in missing:
        return said
    shown, hidden = await _arrays(tree, names[0], "")
    if hidden and not shown:
        text = (
            f"no array of {names[0]}, the first granule, matches "
            f"variables={list(tree.variables)}; it has {join_names(hidden)}"
        )
        said.append((text, SkippedArrayWarning))
    return said


async def _arrays(tree: Tree, name: str, path: str) -> tuple[list[str], list[str]]:
    """Return the arrays below a granule's group that are shown, and those that aren't."""
    location = tree.granules.location(tree.granules.row(name) or 0)
    shown: list[str] = []
    hidden: list[str] = []
    for child in await tree.layout.children(location, path):
        inner = join(path, child)
        document = await tree.layout.document(location, inner)
        if document is not None and document["node_type"] == "group":
            below = await _arrays(tree, name, inner)
            shown.extend(below[0])
            hidden.extend(below[1])
        elif document is not None:
            (shown if tree.shows(inner) else hidden).append(inner)
    return shown, hidden
