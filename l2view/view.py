"""The view itself: a `zarr.Group` of the granules that a search found."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import zarr
from zarr import AsyncGroup
from zarr.core.group import GroupMetadata
from zarr.storage import StorePath

from l2view.cells.granules import cells
from l2view.cells.scan import MAX_CELLS
from l2view.display.plot import plot_footprints
from l2view.display.quicklook import plot_granules
from l2view.display.summary import Summary, summarize_view
from l2view.errors import QueryError, ShapeError
from l2view.export.zarr import to_zarr
from l2view.geolocation.globe import rectangle
from l2view.mosaic.api import explain_mosaic, mosaic
from l2view.progress import show_progress
from l2view.scan.dataset import TableDataset
from l2view.search.place import corners, geometry
from l2view.stores.hierarchy import JSON
from l2view.text import join_names, unknown_name
from l2view.virtual.crop import Crop
from l2view.virtual.datatree import datatree, fields_dataset, joined_dataset
from l2view.virtual.granules import Names
from l2view.virtual.join_plan import plan_join
from l2view.virtual.join_shape import JoinedView
from l2view.virtual.references import nbytes_by_container, references, verify_granules
from l2view.virtual.store import ViewStore
from l2view.virtual.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from os import PathLike

    import xarray as xr
    from matplotlib.axes import Axes
    from virtualizarr.manifests import ManifestStore

    from l2view.granules.layouts import StorageName

MAX_COMPLETIONS = 1000  # how many names tab completion offers


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
        metadata = GroupMetadata(attributes=store.shape.root["attributes"])
        return cls(AsyncGroup(metadata=metadata, store_path=StorePath(store)))

    @property
    def view_store(self) -> ViewStore:
        """The view's store, as what it is."""
        store = self.store
        assert isinstance(store, ViewStore)
        return store

    @property
    def table(self) -> pa.Table:
        """The rows found: ``idx`` and the selected fields, one row a granule."""
        return self.view_store.tree.granules.table

    @property
    def names(self) -> Names:
        """The name of each granule's group, in the order of `table`: a sequence of strings."""
        return Names(self.view_store.tree.granules.names)

    @property
    def read_only(self) -> bool:
        """Always True, though its store doesn't call itself so (see `ViewStore`)."""
        return True

    @property
    def description(self) -> dict[str, Any]:
        """What the root's attribute ``l2view`` says: query, fields, count, collection, snapshot."""
        return dict(self.view_store.shape.description)

    def __len__(self) -> int:
        """Return the number of members: the fields' arrays and the granules' groups."""
        return self.view_store.shape.members

    def __bool__(self) -> bool:
        """Return True, as any group does: an empty view is still a group."""
        return True

    def __repr__(self) -> str:
        return str(self.summary())

    def _repr_html_(self) -> str:
        return self.summary().to_html()

    def summary(self) -> Summary:
        """Return what the view holds, as text and footprints."""
        return summarize_view(self.view_store)

    def _ipython_key_completions_(self) -> list[str]:
        shape = self.view_store.shape
        if isinstance(shape, JoinedView):
            return shape.paths
        return [*shape.tree.fields, *self.names[:MAX_COMPLETIONS]]

    def head(self, count: int = 5) -> View:
        """Return the view of the first `count` granules, which says so in its attributes."""
        if len(self.names) <= count:
            return self
        return self._over(self.view_store.tree.head(max(count, 0)))

    def _over(self, tree: Tree) -> View:
        """Return the view of other granules, joined as these are."""
        shape = self.view_store.shape
        joined = plan_join(tree, shape.options) if isinstance(shape, JoinedView) else tree
        return View.of(ViewStore(joined))

    def tree(
        self,
        expand: bool | None = None,
        level: int | None = None,
        *,
        max_nodes: int = 500,
        plain: bool = False,
    ) -> Any:
        """Show the groups and arrays, of the first granules where there are many.

        Parameters
        ----------
        expand, level, plain
            See `zarr.Group.tree`.
        max_nodes
            About as many groups and arrays are shown; the rest isn't read either.
        """
        if self.view_store.shape is not self.view_store.tree:
            return super().tree(expand, level, max_nodes=max_nodes, plain=plain)
        nodes = 1
        if level != 0 and len(self.names):
            granule = self.get_group(self.names[0])
            nodes += len(granule.members(None if level is None else level - 1))
        head = self.head(max((max_nodes - len(self.view_store.tree.fields)) // nodes, 1))
        tree = super(View, head).tree(expand, level, max_nodes=max_nodes, plain=plain)
        if head is not self:
            # zarr's own place for saying that it isn't all.
            tree._truncated = (
                f"the first {len(head.names):,} of {len(self.names):,} granules; "
                "max_nodes= shows more\n"
            )
        return tree

    def to_dataset(self, chunks: Any = None) -> xr.Dataset:
        """Return the view as a Dataset: of its fields, or of the arrays that it joins.

        The same as ``xr.open_zarr(view.store)``, in a tree without asking the store for each
        granule. Of arrays nothing is read until they are computed. What xarray can't decode is as
        it is stored (see `to_datatree`).

        Parameters
        ----------
        chunks
            As for `xarray.open_dataset`: ``{}`` for Dask arrays with the chunks that are stored,
            ``"auto"`` for larger ones, None for no Dask.

        Raises
        ------
        ShapeError
            Where the granules are joined into several groups.
        """
        store = self.view_store
        if store.shape is store.tree:
            return fields_dataset(store.tree)
        if "stacks" in store.shape.description:
            raise ShapeError(
                f"the granules differ, and are in {join_names(store.shape.description['stacks'])}: "
                "to_datatree() has all of them, xarray.open_zarr(view.store, group=…) one"
            )
        return joined_dataset(store, chunks)

    def to_datatree(self, chunks: Any = None, **decoding: Any) -> xr.DataTree:
        """Return the view as a DataTree.

        The same as ``xr.open_datatree(view.store, engine="zarr")``; a tree of granules, with the
        fields in its root and a node for each granule, is made faster. Arrays stay where they
        are until they are computed. What xarray can't decode, such as times of odd units, is as
        it is stored there, in every layout, and an `UndecodedArrayWarning` names all such arrays.

        Parameters
        ----------
        chunks
            As for `to_dataset`.
        **decoding
            As for `xarray.decode_cf`: ``decode_times``, ``decode_timedelta``, ``decode_coords``,
            ``mask_and_scale``, ``concat_characters``, ``use_cftime``, ``drop_variables``.
        """
        return datatree(self.view_store, chunks, **decoding)

    def references(self) -> pa.RecordBatchReader:
        """Return where the chunks of the granules lie, as Arrow batches.

        One row a chunk: ``granule``, ``array`` (its path below the granule), ``chunk`` (its
        indices), ``kind``, ``path``, ``offset``, ``length`` and ``checksum``. The kind is

        - ``virtual``: a part of another file, whose URL is the path;
        - ``native``: a value of the store itself; of Icechunk's the path is the chunk's id;
        - ``inline``: within Icechunk's manifest;
        - ``missing``: nowhere, so that it reads as the fill value.

        The checksum is the ETag of a plain store's object; Icechunk compares those that it has
        of virtual chunks when it reads, and tells nobody.

        Returns
        -------
        pyarrow.RecordBatchReader
            ``read_all()`` makes a table of it, and DuckDB and Polars read it as it is.
        """
        return references(self.view_store.tree)

    def cells(
        self, variable: str, *, decode: bool = True, max_cells: int = MAX_CELLS
    ) -> TableDataset:
        """Return the cells of a variable over all granules, as a table that engines query.

        One row a cell. Its columns are ``granule``, the name of the granule's group, and its
        fields (``granule_`` before those whose names are taken); then those of
        `l2view.zarr_cells`, of swaths their latitudes and longitudes, too. A filter on the
        granule's columns leaves granules unread, one on positions and coordinates along one axis
        chunks.

        Parameters
        ----------
        variable
            The path of the arrays below their granules, or their name alone.
        decode
            Whether each granule's values are decoded by its own scale, offset and fill value,
            with NULL for what is missing; otherwise they are what is stored.
        max_cells
            A query that goes through more cells is an error.

        Returns
        -------
        pyarrow.dataset.Dataset
            For DataFusion (``register_dataset``), DuckDB (``FROM name``), Polars
            (``scan_pyarrow_dataset``) and `pyarrow` itself. Nothing is read yet.

        Raises
        ------
        QueryError
            Where there is no such variable, or granules have no type in common.
        """
        return cells(self.view_store.tree, variable, decode=decode, max_cells=max_cells)

    @property
    def nbytes(self) -> int:
        """How many bytes the granules' chunks have where they are stored."""
        return sum(self.nbytes_by_container.values())

    @property
    def nbytes_by_container(self) -> dict[str, int]:
        """The same by virtual chunk container, and by the collection for what it holds itself."""
        return nbytes_by_container(self.view_store.tree)

    def sel(
        self,
        *,
        bbox: Sequence[float] | str | None = None,
        intersects: Any = None,
        exact: bool = False,
        latitude: str | None = None,
        longitude: str | None = None,
    ) -> View:
        """Return the view with each granule's arrays cropped to a place.

        What is left are the rows and columns from the first to the last that touch it: of a
        swath by its latitudes and longitudes, of a grid by its axes, of a raster by its
        transform. They are found out when a granule is first asked for. Arrays and coordinates
        along one dimension are cropped alike, tie points and ragged arrays with their data. A
        granule that doesn't touch the place has arrays of no length.

        Parameters
        ----------
        bbox
            West, south, east, north in degrees (EPSG:4326); west > east crosses the antimeridian.
        intersects
            A geometry in EPSG:4326: shapely, GeoJSON or WKT.
        exact
            Whether to crop to these rows and columns. By default whole chunks are left, so that
            none need be decoded on the way.
        latitude, longitude
            The paths of the arrays of coordinates below each granule, where l2view doesn't find
            them by their names, units or standard names.

        Raises
        ------
        QueryError
            Where there is no place, or it is none; or no array called `latitude` or `longitude`.
        """
        if (bbox is None) == (intersects is None):
            raise QueryError("sel() crops to a place: pass bbox= or intersects=, one of them")
        if (latitude is None) != (longitude is None):
            raise QueryError("pass both latitude= and longitude=, or neither")
        bbox = None if bbox is None else corners(bbox)
        place = geometry(intersects) if bbox is None else rectangle(*bbox, both_sides=True)
        tree = self.view_store.tree
        if tree.crop is not None:
            raise QueryError("this view is cropped already; crop the view that it was made of")
        options: JSON = {"intersects": place.wkt} if bbox is None else {"bbox": list(bbox)}
        if latitude is not None and longitude is not None:
            options |= {"latitude": latitude, "longitude": longitude}
            paths = tree.sample_arrays()
            for path in (latitude, longitude):
                if paths and path not in paths:
                    raise QueryError(unknown_name("array", path, sorted(paths)))
        crop = Crop(place, exact=exact, latitude=latitude, longitude=longitude)
        description = {**tree.description, "sel": options | {"exact": exact}}
        return self._over(replace(tree, crop=crop, description=description))

    mosaic = mosaic
    explain_mosaic = explain_mosaic

    def to_icechunk(
        self,
        target: Any,
        *,
        storage: StorageName = "packed",
        branch: str = "main",
        copy_native: bool = False,
        check: bool = True,
        progress: bool | Callable[[int, int], None] = False,
    ) -> str | None:
        """Write the granules as a collection of their own: metadata, references, attributes.

        No data is copied. It opens in l2view, and its arrays with plain Icechunk and xarray.

        Parameters
        ----------
        target
            An Icechunk repository; a path or URL, where one is made if there is none; or a
            writable session, which is left to commit.
        storage
            ``"packed"``, by product version, or ``"groups"``, a group for each granule.
        branch
            The branch to commit to.
        copy_native
            Whether to copy chunks that nothing else can refer to, because the collection holds
            them itself.
        check
            Whether to look at each file: one that has changed since it was referred to is an
            error, and what tells later changes is written for the others. False takes the
            references as they are, and no file is asked for.
        progress
            True for a bar where there is a terminal or a notebook; or what is called with the
            granules that are written, and how many there are.

        Returns
        -------
        str or None
            The snapshot, None where it is for the caller to commit.

        Raises
        ------
        ExportError
            Where a file has changed, a chunk can't be referred to, a granule can't be written, or
            there is none.
        """
        from l2view.export.collection import to_icechunk  # imports VirtualiZarr

        with show_progress(progress, "granules") as report:
            options: Any = {"copy_native": copy_native, "check": check, "progress": report}
            tree = self.view_store.tree
            return to_icechunk(tree, target, storage=storage, branch=branch, **options)

    def to_kerchunk(
        self,
        path: str | PathLike[str],
        *,
        format: Literal["json", "parquet"] = "json",
        zarr_format: Literal[2, 3] = 2,
        copy_native: bool = False,
    ) -> None:
        """Write the view, in the shape that it has, as Kerchunk's references.

        They are read with fsspec, or VirtualiZarr's parsers for Kerchunk.

        Parameters
        ----------
        path
            Of the file to write; of a folder for Parquet.
        format
            ``"json"``, or ``"parquet"``, whose files are read as they are needed.
        zarr_format
            The Zarr format of the metadata: 2 is what readers of Kerchunk know, 3 has what 2
            can't say. Parquet has 2 only.
        copy_native
            Whether chunks that nothing else can refer to are written into the references.

        Raises
        ------
        ExportError
            Where a chunk can't be referred to, or an array can't be told in the Zarr format.
        """
        from l2view.export.kerchunk import to_kerchunk  # imports VirtualiZarr

        options: Any = {"format": format, "zarr_format": zarr_format, "copy_native": copy_native}
        to_kerchunk(self.view_store.shape, path, **options)

    def to_manifest_store(self, *, copy_native: bool = False) -> ManifestStore:
        """Return the view, in the shape that it has, as a store of VirtualiZarr's.

        Its ``to_virtual_dataset()`` and ``to_virtual_datatree()`` give what VirtualiZarr works
        with.

        Parameters
        ----------
        copy_native
            Whether chunks that nothing else can refer to are read into the manifests.

        Raises
        ------
        ExportError
            Where a chunk can't be referred to.
        """
        from l2view.export.manifests import to_manifest_store  # imports VirtualiZarr

        return to_manifest_store(self.view_store.shape, copy_native=copy_native)

    def to_zarr(self, target: Any, *, progress: bool | Callable[[int, int], None] = False) -> None:
        """Copy the view, in the shape that it has: its chunks' bytes as they are.

        A copy that was broken off goes on where it stopped, when it is asked for again.

        Parameters
        ----------
        target
            A path, a URL, or a Zarr store, without a hierarchy in it.
        progress
            As for `to_icechunk`, of chunks.

        Raises
        ------
        ExportError
            Where there is something else in the store.
        """
        with show_progress(progress, "chunks") as report:
            to_zarr(self.view_store, target, report)

    def verify(self) -> dict[str, str]:
        """Return what is wrong with files that changed since they were referred to, or are gone.

        By the names of their granules.
        """
        verified = verify_granules(self.view_store.tree)
        return {name: problem for name, problem in verified if problem is not None}

    def plot(
        self,
        name: str | None = None,
        ax: Axes | None = None,
        *,
        ncols: int | None = None,
        limit: int | None = None,
        figsize: tuple[float, float] | None = None,
        **style: Any,
    ) -> Any:
        """Draw the footprints, or a variable of the granules, on a map with coastlines.

        Parameters
        ----------
        name
            A field to colour the footprints by; or a variable of the granules, by its name or
            path, whose cells are then drawn where their own latitudes and longitudes, axes or
            transform say.
        ax
            Matplotlib axes to draw on, new ones by default.
        ncols
            Draw each granule for itself, in so many columns.
        limit
            The most granules of which a variable is drawn, by default 64 on one map and 16 each
            for itself.
        figsize
            The size of new axes in inches.
        style
            For the `matplotlib.collections.PathCollection` of the footprints; for the
            ``pcolormesh`` of cells, such as ``cmap=``, ``vmin=`` and ``vmax=``.

        Returns
        -------
        matplotlib.axes.Axes
            An array of them with `ncols`.

        Raises
        ------
        FieldError
            Where there is no geometry field, or nothing called `name`.
        """
        if name is None and ncols is not None:
            raise QueryError("ncols= draws a variable of each granule: name it")
        if name is not None and name not in self.table.schema.names:
            options: Any = {"ncols": ncols, "limit": limit, "ax": ax, "figsize": figsize}
            return plot_granules(self.view_store, name, **options, **style)
        return plot_footprints(self.table, name, ax, figsize=figsize or (9, 5), **style)
