"""The view itself: a `zarr.Group` of the granules that a search found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import xarray as xr
import zarr
from zarr import AsyncGroup
from zarr.core.group import GroupMetadata
from zarr.storage import StorePath

from l2view.view.store import ViewStore

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class View(zarr.Group):
    """The granules that a search found, as a Zarr group.

    Everything that a `zarr.Group` does works: ``view["granule/array"]``, ``view.tree()``,
    ``view.attrs``. Its root holds the fields as arrays over the dimension ``granule``, and
    a group for each granule with its arrays. ``view.store`` is a Zarr store, which xarray
    and any other reader opens.
    """

    @classmethod
    def of(cls, store: ViewStore) -> View:
        """Return the view over `store`."""
        metadata = GroupMetadata(attributes=store.root["attributes"])
        return cls(AsyncGroup(metadata=metadata, store_path=StorePath(store)))

    @property
    def _view_store(self) -> ViewStore:
        store = self.store
        assert isinstance(store, ViewStore)
        return store

    @property
    def table(self) -> pa.Table:
        """The rows found: ``idx`` and the selected fields, one row a granule."""
        return self._view_store.granules.table

    @property
    def names(self) -> pa.Array:
        """The name of each granule's group, in the order of `table`."""
        return self._view_store.granules.names

    @property
    def description(self) -> dict[str, Any]:
        """What the root's attribute ``l2view`` says: query, fields, count, collection, snapshot."""
        return dict(self._view_store.description)

    def __len__(self) -> int:
        """Return the number of members: the fields' arrays and the granules' groups."""
        return len(self._view_store.fields) + len(self._view_store.granules)

    def __bool__(self) -> bool:
        """Return True, as any group does: an empty view is still a group."""
        return True

    def __repr__(self) -> str:
        from l2view.pictures.text import view_text

        return view_text(self)

    def _repr_html_(self) -> str:
        from l2view.pictures.html import view_html

        return view_html(self)

    def _ipython_key_completions_(self) -> list[str]:
        return [*self._view_store.fields, *self.names.slice(0, 1000).to_pylist()]

    def to_dataset(self) -> xr.Dataset:
        """Return the fields as a Dataset over the dimension ``granule``.

        The same as ``xr.open_zarr(view.store)``, without asking the store for each granule.
        """
        from l2view.view.datatree import fields_dataset

        return fields_dataset(self._view_store)

    def to_datatree(self) -> xr.DataTree:
        """Return the view as a DataTree: the fields in its root, a node for each granule.

        The same as ``xr.open_datatree(view.store, engine="zarr")``, only faster. Arrays stay
        where they are until they are computed.
        """
        from l2view.view.datatree import datatree

        return datatree(self._view_store)

    def plot(self, ax: Axes | None = None, **style: Any) -> Axes:
        """Draw the footprints on a map with coastlines.

        Parameters
        ----------
        ax
            Matplotlib axes to draw on, new ones by default.
        style
            Passed to the `matplotlib.collections.PatchCollection` of the footprints.
        """
        from l2view.pictures.plot import plot_footprints

        return plot_footprints(self.table, ax, **style)
