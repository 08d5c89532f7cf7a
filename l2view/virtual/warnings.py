"""Warnings on opening a view: of granules without arrays, and of variables that none has."""

from __future__ import annotations

from l2view.errors import L2ViewWarning, MissingGranuleWarning, SkippedArrayWarning
from l2view.limits import limits
from l2view.text import join_names
from l2view.virtual.tree import Tree


async def warnings_on_open(tree: Tree) -> list[tuple[str, type[L2ViewWarning]]]:
    """Return warnings of granules without arrays, and of variables that the first has none of.

    Of many granules only the first is looked at: each warns when it is asked for.
    """
    if not len(tree.granules):
        return []
    layout, collection = tree.layout, tree.description["collection"]
    if not layout.fields:
        message = f"the granules of {collection} have no arrays: {layout.missing(())}"
        return [(message, MissingGranuleWarning)]
    are_many = len(tree.granules) > limits().checked_granules
    if are_many and tree.variables is None:
        return []
    messages: list[tuple[str, type[L2ViewWarning]]] = []
    names = tree.granules.names[: 1 if are_many else None].to_pylist()
    locations = [tree.granules.location(row) for row in range(len(names))]
    await layout.prefetch([(location, "") for location in locations])
    missing = {
        name: layout.missing(location)
        for name, location in zip(names, locations, strict=True)
        if await layout.document(location, "") is None
    }
    if missing and not are_many:
        reasons = list(dict.fromkeys(missing.values()))
        message = (
            f"{len(missing)} of {len(names)} granules have no arrays in {collection}: "
            f"{join_names(missing)}: {'; '.join(reasons[:3])}{'; …' if len(reasons) > 3 else ''}"
        )
        messages.append((message, MissingGranuleWarning))
    if tree.variables is None or names[0] in missing:
        return messages
    paths = await tree.sample_arrays()
    if paths and not any(map(tree.shows, paths)):
        message = (
            f"no array of {names[0]}, the first granule, matches "
            f"variables={list(tree.variables)}; it has {join_names(paths)}"
        )
        messages.append((message, SkippedArrayWarning))
    return messages
