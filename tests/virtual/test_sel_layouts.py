"""Crops keep arrays and coordinates together, whatever the layout of the granule.

Arrays hold the position of each cell in the array that was cropped, so that a crop tells by itself
which rows and columns it shows.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import zarr
from builders import put, texts
from hypothesis import given
from hypothesis import strategies as st
from zarr.storage import MemoryStore

import l2view

type Layout = Mapping[str, tuple[Any, tuple[str, ...] | None, dict[str, Any]]]
"""The values of a granule's arrays by path, their dimensions and attributes."""

NORTH, EAST = {"units": "degrees_north"}, {"units": "degrees_east"}

BBOX = (22.05, 7.05, 24.05, 9.05)


def indices(*shape: int) -> Any:
    """Return an array of the positions of its own cells."""
    return np.arange(np.prod(shape)).reshape(shape)


def swath(rows: int, columns: int, step: float = 0.1, first: float = 0.0) -> tuple[Any, Any]:
    """Return latitudes and longitudes of cells from 5° N and 20° E on."""
    y, x = np.mgrid[:rows, :columns] * step + first
    return 5 + y + 0.01 * x, 20 + x - 0.01 * y


def track(count: int) -> tuple[Any, Any]:
    return np.linspace(5, 11, count), np.linspace(20, 26, count)


def coordinates(
    values: tuple[Any, Any], dims: tuple[str, ...] | None, path: str = "{}", **attributes: Any
) -> Layout:
    """Return the arrays of latitudes and longitudes at a path for either."""
    return {
        path.format("latitude"): (values[0], dims, NORTH | attributes),
        path.format("longitude"): (values[1], dims, EAST | attributes),
    }


def crop(
    layout: Layout,
    bbox: tuple[float, ...] = BBOX,
    attributes: Mapping[str, Mapping[str, Any]] | None = None,
    **options: Any,
) -> tuple[l2view.View, list[str]]:
    """Return a view of one granule that is cropped, and what it warns of."""
    store = MemoryStore()
    root = zarr.create_group(store)
    for path, own in (attributes or {}).items():
        root.require_group(f"g/{path}".rstrip("/")).attrs.update(own)
    for path, (values, dims, own) in layout.items():
        group, _, name = f"g/{path}".rpartition("/")
        root.require_group(group).create_array(
            name, data=np.asarray(values), dimension_names=dims, attributes=own
        )
    put(root.create_group("meta"), "id", texts(["g"]))
    view = l2view.open(store).sel(bbox=bbox, **{"exact": True} | options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        view["g"]
        list(view["g"].members(max_depth=None))  # type: ignore[union-attr]
    ours = (w.message for w in caught if issubclass(w.category, l2view.L2ViewWarning))
    return view, list(map(str, ours))


def windows(view: l2view.View, path: str, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return which part is shown of an array that holds positions, of some shape."""
    values = np.asarray(view[f"g/{path}"][...])  # type: ignore[index]
    if not values.size:
        return [(0, 0)] * len(shape)
    axes = np.unravel_index(values, shape)
    parts = [(int(axis.min()), int(axis.max()) + 1) for axis in axes]
    whole = indices(*shape)[tuple(slice(*part) for part in parts)]
    np.testing.assert_array_equal(values, whole)
    return parts


def assert_coordinates(view: l2view.View, layout: Layout, path: str, parts: Any) -> None:
    """Assert that coordinates show the same part as arrays do."""
    for name in ("latitude", "longitude"):
        whole = layout[path.format(name)][0]
        shown = whole[tuple(slice(*part) for part in parts)]
        np.testing.assert_array_equal(view[f"g/{path.format(name)}"][...], shown)  # type: ignore[index]


def assert_place_is_shown(layout: Layout, path: str, parts: Any, bbox: Any = BBOX) -> None:
    """Assert that no cell is left out whose centre lies in the place, and few others are shown."""
    lat, lon = (layout[path.format(name)][0] for name in ("latitude", "longitude"))
    inside = (lat >= bbox[1]) & (lat <= bbox[3]) & (lon >= bbox[0]) & (lon <= bbox[2])
    assert inside.any()
    for axis, (start, stop) in enumerate(parts):
        others = tuple(i for i in range(inside.ndim) if i != axis)
        positions = np.flatnonzero(inside.any(axis=others))
        assert start <= positions[0]
        assert stop > positions[-1]
        assert stop - start <= len(positions) + 4


# Several grids


@pytest.mark.parametrize("groups", [False, True])
def test_two_grids_with_rows_of_the_same_count(groups: bool) -> None:
    """As of Sentinel-3, whose files have dimensions of the same names: no grid takes another's."""
    full, ties = swath(60, 80), swath(60, 5)
    ties = ties[0], 20 + 8 / 5 * np.mgrid[:60, :5][1]
    place = ("geo_{}/{{}}", "data_{}/v") if groups else ("{{}}_{}", "v_{}")
    columns = ("columns", "columns") if groups else ("columns", "tie_columns")
    layout: dict[str, Any] = {}
    for name, values, own in (("full", full, columns[0]), ("tie", ties, columns[1])):
        shape = values[0].shape
        layout |= coordinates(values, ("rows", own), place[0].format(name))
        layout[place[1].format(name)] = (indices(*shape), ("rows", own), {})
        layout[place[1].format(name) + "_times"] = (indices(60), ("rows",), {})
    view, notes = crop(layout)
    assert notes == []
    for name, values in (("full", full), ("tie", ties)):
        parts = windows(view, place[1].format(name), values[0].shape)
        assert_coordinates(view, layout, place[0].format(name), parts)
        assert_place_is_shown(layout, place[0].format(name), parts)
        assert windows(view, place[1].format(name) + "_times", (60,)) == parts[:1]


def test_samplings_of_a_track_in_one_group() -> None:
    """1 Hz and 20 Hz, as altimeters have them."""
    layout: dict[str, Any] = {}
    for rate, count in (("01", 60), ("20_ku", 1200)):
        layout |= coordinates(track(count), (f"time_{rate}",), f"{{}}_{rate}")
        layout[f"range_{rate}"] = (indices(count), (f"time_{rate}",), {})
        layout[f"waveform_{rate}"] = (indices(count, 3), (f"time_{rate}", "gate"), {})
    view, notes = crop(layout)
    assert notes == []
    for rate, count in (("01", 60), ("20_ku", 1200)):
        parts = windows(view, f"range_{rate}", (count,))
        assert_coordinates(view, layout, f"{{}}_{rate}", parts)
        assert_place_is_shown(layout, f"{{}}_{rate}", parts)
        assert windows(view, f"waveform_{rate}", (count, 3)) == [*parts, (0, 3)]


def test_swaths_of_the_same_dimensions_in_groups_of_their_own() -> None:
    """Each group has its own, and what lies beside both belongs to that which its name says."""
    layout: dict[str, Any] = {}
    for name, shift in (("left", 0.0), ("right", 1.5)):
        lat, lon = swath(60, 40)
        layout |= coordinates((lat, lon + shift), ("lines", "pixels"), f"{name}/{{}}")
        layout[f"{name}/ssh"] = (indices(60, 40), ("lines", "pixels"), {})
        layout[f"quality/flags_{name}"] = (indices(60, 40), ("lines", "pixels"), {})
    view, _ = crop(layout)
    for name in ("left", "right"):
        parts = windows(view, f"{name}/ssh", (60, 40))
        assert_coordinates(view, layout, f"{name}/{{}}", parts)
        lat, lon = (layout[f"{name}/{side}"][0] for side in ("latitude", "longitude"))
        inside = (lat > 7.05) & (lat < 9.05) & (lon > 22.05) & (lon < 24.05)
        assert inside[tuple(slice(*part) for part in parts)].sum() == inside.sum() > 0
        # The flags are in one group, where a dimension has one length.
        shown = windows(view, f"quality/flags_{name}", (60, 40))
        for (start, stop), (first, end) in zip(shown, parts, strict=True):
            assert start <= first < end <= stop


def test_what_the_attribute_names_counts_before_what_is_near() -> None:
    layout = {
        **coordinates(swath(60, 60), ("y", "x"), "a/{}"),
        **coordinates(tuple(40 + v for v in swath(60, 60)), ("y", "x"), "far/{}"),  # type: ignore[arg-type]
        "data/v": (indices(60, 60), ("y", "x"), {"coordinates": "/a/latitude /a/longitude"}),
    }
    view, _ = crop(layout)
    parts = windows(view, "data/v", (60, 60))
    assert_coordinates(view, layout, "a/{}", parts)
    assert_place_is_shown(layout, "a/{}", parts)
    assert view["g/far/latitude"].shape == (0, 0)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "names", [("channel", "y", "x"), ("y", "x", "channel"), ("y", "channel", "x"), ("x", "y")]
)
def test_rows_and_columns_at_any_axis(names: tuple[str, ...]) -> None:
    sizes = {"y": 60, "x": 50, "channel": 4}
    shape = tuple(sizes[name] for name in names)
    layout = {**coordinates(swath(60, 50), ("y", "x")), "v": (indices(*shape), names, {})}
    view, notes = crop(layout)
    assert notes == []
    parts = dict(zip(names, windows(view, "v", shape), strict=True))
    rows_and_columns = [parts["y"], parts["x"]]
    assert_coordinates(view, layout, "{}", rows_and_columns)
    assert_place_is_shown(layout, "{}", rows_and_columns)
    assert parts.get("channel", (0, 4)) == (0, 4)


UNEVEN: Any = tuple(v + 0.02 * np.sin(np.arange(60)) for v in track(60))


@pytest.mark.parametrize("made_up", [False, True])
def test_dimensions_without_names(made_up: bool) -> None:
    """They are known by the lengths of all coordinates' dimensions, as of ICESat-2's canopies."""

    def names(*numbers: int) -> tuple[str, ...] | None:
        return tuple(f"phony_dim_{n}" for n in numbers) if made_up else None

    finer = tuple(v[:, None] + 0.001 * np.arange(5) for v in UNEVEN)
    layout = {
        **coordinates(UNEVEN, names(0), "land/{}"),  # type: ignore[arg-type]
        **coordinates(finer, names(0, 1), "land/{}_20m"),  # type: ignore[arg-type]
        "land/canopy/h_te": (indices(60), names(2), {}),
        "land/canopy/metrics": (indices(60, 18), names(2, 3), {}),
        "land/canopy/h_te_20m": (indices(60, 5), names(2, 4), {}),
        "orbit/numbers": (indices(7), names(6), {}),
    }
    view, notes = crop(layout)
    assert notes == []
    (rows,) = windows(view, "land/canopy/h_te", (60,))
    assert_coordinates(view, layout, "land/{}", [rows])
    assert_coordinates(view, layout, "land/{}_20m", [rows, (0, 5)])
    assert_place_is_shown(layout, "land/{}", [rows])
    assert windows(view, "land/canopy/h_te_20m", (60, 5)) == [rows, (0, 5)]
    assert windows(view, "land/canopy/metrics", (60, 18)) == [rows, (0, 18)]
    assert windows(view, "orbit/numbers", (7,)) == [(0, 7)]


@pytest.mark.parametrize("names", [None, ("phony_dim_0",)])
@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("pressure", np.linspace(1000, 1, 60)),
        ("aux/level_index", np.arange(60)),
        ("temperature", indices(60, 60)),
    ],
)
def test_lengths_that_say_several_things(path: str, values: Any, names: Any) -> None:
    """Levels may be as many as points; which of two axes is along the track can't be known."""
    layout = {
        **coordinates(UNEVEN, names),
        "sst": (indices(60), names, {}),
        path: (values, names and tuple(f"phony_dim_{n}" for n in range(values.ndim)), {}),
    }
    view, notes = crop(layout)
    assert notes == [f"g: nothing but lengths says whether {path} lies along latitude: shown whole"]
    assert view[f"g/{path}"].shape == values.shape  # type: ignore[union-attr]
    assert windows(view, "sst", (60,)) == [(0, 60)]
    assert_coordinates(view, layout, "{}", [(0, 60)])


def test_dimensions_of_levels_are_no_points() -> None:
    layout = {
        **coordinates(UNEVEN, None),
        "t": (indices(60, 60), ("point", "level"), {"coordinates": "latitude longitude"}),
        "pressure": (np.linspace(1000, 1, 60), ("level",), {}),
    }
    view, notes = crop(layout)
    (rows, levels) = windows(view, "t", (60, 60))
    assert notes == []
    assert levels == (0, 60)
    assert_place_is_shown(layout, "{}", [rows])
    assert view["g/pressure"].shape == (60,)  # type: ignore[union-attr]


# Tie points

MAP = """
GROUP=SwathStructure
	GROUP=SWATH_1
		SwathName="{swath}"
		GROUP=DimensionMap
			OBJECT=DimensionMap_1
				GeoDimension="{names[0]}"
				DataDimension="line"
				Offset={offset}
				Increment={increment}
			END_OBJECT=DimensionMap_1
			OBJECT=DimensionMap_2
				GeoDimension="{names[1]}"
				DataDimension="pixel"
				Offset={offset}
				Increment={increment}
			END_OBJECT=DimensionMap_2
		END_GROUP=DimensionMap
	END_GROUP=SWATH_1
END_GROUP=SwathStructure
"""

LINES, PIXELS = 100, 104


def tie_layout(form: str, offset: int, increment: int) -> tuple[Layout, dict[str, Any]]:
    """Return tie points among data without locations of its own, and where it is declared."""
    lat, lon = (values[offset::increment, offset::increment] for values in swath(LINES, PIXELS))
    ties, data, groups = ("tl", "tp"), ("line", "pixel"), ("", "")
    attributes: dict[str, Any] = {}
    own: dict[str, Any] = {}
    text = MAP.format(swath="s", names=ties, offset=offset, increment=increment)
    layout: dict[str, Any] = {}
    if form == "HDF-EOS2":
        attributes[""] = {"StructMetadata.0": text[:120], "StructMetadata.1": text[120:]}
        ties, data = ("tl:s", "tp:s"), ("line:s", "pixel:s")
    elif form == "HDF-EOS5":
        array = np.array(text.encode())
        layout["HDFEOS INFORMATION/StructMetadata.0"] = (array, None, {})
        groups = ("HDFEOS/SWATHS/s/Geolocation Fields/", "HDFEOS/SWATHS/s/Data Fields/")
    elif form == "Sentinel-3":
        assert offset == 0
        ties, data, groups = ("tie_rows", "tie_columns"), ("rows", "columns"), ("tie/", "oa01/")
        attributes["tie"] = {f"{axis}_subsampling_factor": increment for axis in ("al", "ac")}
    elif form == "SNAP":
        ties, data = ("tp_y", "tp_x"), ("y", "x")
        for axis in "yx":
            own |= {f"offset_{axis}": float(offset), f"subsampling_{axis}": float(increment)}
    layout |= coordinates((lat, lon), ties, f"{groups[0]}{{}}", **own)
    layout[f"{groups[0]}angle"] = (indices(*lat.shape), ties, own)
    layout[f"{groups[1]}radiance"] = (indices(LINES, PIXELS), data, {})
    return layout, attributes


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(
    ("form", "offset", "increment"),
    [
        ("HDF-EOS2", 2, 5),
        ("HDF-EOS2", 0, 3),
        ("HDF-EOS5", 2, 5),
        ("Sentinel-3", 0, 8),
        ("SNAP", 3, 7),
    ],
)
def test_declared_tie_points(form: str, offset: int, increment: int, exact: bool) -> None:
    """What is interpolated between the tie points that are left is what it was."""
    layout, attributes = tie_layout(form, offset, increment)
    view, notes = crop(layout, attributes=attributes, exact=exact)
    assert notes == []
    angle, radiance, lat = (
        next(path for path in layout if path.endswith(name))
        for name in ("angle", "radiance", "latitude")
    )
    ties = windows(view, angle, layout[angle][0].shape)
    data = windows(view, radiance, (LINES, PIXELS))
    assert_coordinates(view, layout, lat.replace("latitude", "{}"), ties)
    whole = swath(LINES, PIXELS)
    inside = (np.abs(whole[0] - 8.05) <= 1) & (np.abs(whole[1] - 23.05) <= 1)
    shown = inside[tuple(slice(*part) for part in data)]
    assert shown.sum() == inside.sum() > 0
    for axis, (start, stop) in enumerate(data):
        first, last = ties[axis]
        assert start == increment * first  # the offset is what it was
        assert stop - start < 20 + 6 * increment
        positions = np.flatnonzero(shown.any(axis=1 - axis))
        assert offset <= positions[0]
        assert positions[-1] <= offset + increment * (last - first - 1)


@given(
    st.integers(0, 9),
    st.integers(1, 9),
    st.integers(2, 12),
    st.integers(0, 12),
    st.integers(0, 40),
    st.integers(1, 60),
)
def test_tie_points_stay_where_they_are_in_the_data(
    offset: int, increment: int, count: int, rest: int, start: int, length: int
) -> None:
    from l2view.geolocation.dimensions import Dimension
    from l2view.geolocation.tie_points import TiePoints, cut_tie_points

    data = Dimension("", "data", offset + increment * (count - 1) + 1 + rest)
    ties = Dimension("", "ties", count)
    start = min(start, data.length - 1)
    window = (start, min(start + length, data.length))
    cut = cut_tie_points({data: window}, [TiePoints(ties, data, offset, increment)])
    assert cut[data][0] == increment * cut[ties][0]
    assert cut[data][0] <= window[0]
    assert window[1] <= cut[data][1] <= data.length
    assert 0 <= cut[ties][0] < cut[ties][1] <= count
    # Tie points around what was asked for are there, unless there were none.
    first, last = (offset + increment * i for i in (cut[ties][0], cut[ties][1] - 1))
    assert first <= window[0] or cut[ties][0] == 0
    assert last >= window[1] - 1 or cut[ties][1] == count


def test_tie_points_beside_data_with_its_own_locations() -> None:
    """Those are cut as the data is, with tie points around it; angles without locations too."""
    increment, full = 8, swath(97, 97)
    ties = tuple(values[::increment, ::increment] for values in full)
    layout = {
        **coordinates(full, ("rows", "columns"), "geo/{}"),
        **coordinates(ties, ("tie_rows", "tie_columns"), "tie_geo/{}"),  # type: ignore[arg-type]
        "tie_angles/sza": (indices(13, 13), ("tie_rows", "tie_columns"), {}),
        "oa01/radiance": (indices(97, 97), ("rows", "columns"), {}),
    }
    factors = {f"{axis}_subsampling_factor": increment for axis in ("al", "ac")}
    groups = ("geo", "tie_geo", "tie_angles", "oa01")
    view, notes = crop(layout, attributes=dict.fromkeys(groups, factors))
    assert notes == []
    data, angles = (
        windows(view, "oa01/radiance", (97, 97)),
        windows(view, "tie_angles/sza", (13,) * 2),
    )
    assert_coordinates(view, layout, "geo/{}", data)
    assert_coordinates(view, layout, "tie_geo/{}", angles)
    for (start, stop), (first, last) in zip(data, angles, strict=True):
        assert start == increment * first
        assert stop == increment * (last - 1) + 1
        assert stop - start <= 40


PHONY = ("phony_dim_0", "phony_dim_1")


@pytest.mark.parametrize(
    ("part", "ties", "data"),
    [
        ((slice(2, None, 5), slice(2, None, 5)), ("tl", "tp"), ("line", "pixel")),
        ((slice(None), slice(2, None, 5)), ("tl", "tp"), ("line", "pixel")),
        ((slice(None), slice(2, None, 5)), ("line", "tp"), ("line", "pixel")),
        ((slice(None, None, 20), slice(None)), ("tl", "pixel"), ("line", "pixel")),
        (
            (slice(None, None, 20), slice(None)),
            ("phony_dim_0", "phony_dim_1"),
            ("phony_dim_2", "phony_dim_1"),
        ),
        ((slice(None, None, 20), slice(None)), None, None),
        ((slice(None), slice(None)), ("tl", "tp"), ("line", "pixel")),
    ],
)
def test_undeclared_tie_points_stay_with_their_data(part: Any, ties: Any, data: Any) -> None:
    """They may be as many as the data along one axis; what both have by name is cut alike."""
    places = tuple(values[part] for values in swath(LINES, PIXELS))
    shape = places[0].shape
    layout = {
        **coordinates(places, ties),  # type: ignore[arg-type]
        "angle": (indices(*shape), ties, {}),
        "radiance": (indices(LINES, PIXELS), data, {}),
        "lut": (indices(7, 9), data and ("i", "j"), {}),
    }
    view, notes = crop(layout)
    assert len(notes) == 1
    assert "g: radiance may lie between the tie points of latitude" in notes[0]
    cut = windows(view, "radiance", (LINES, PIXELS))
    is_shared = [ties and ties[n] == data[n] != PHONY[1] for n in range(2)]
    for (start, stop), length, shared in zip(cut, (LINES, PIXELS), is_shared, strict=True):
        assert (stop - start < length) == bool(shared)
    expected = [cut[n] if is_shared[n] else (0, shape[n]) for n in range(2)]
    assert windows(view, "angle", shape) == expected
    assert_coordinates(view, layout, "{}", expected)
    assert windows(view, "lut", (7, 9)) == [(0, 7), (0, 9)]


def test_a_map_that_does_not_fit_declares_nothing() -> None:
    layout, _ = tie_layout("HDF-EOS2", 2, 5)
    text = MAP.format(swath="s", names=("tl", "tp"), offset=2, increment=50)
    view, notes = crop(layout, attributes={"": {"StructMetadata.0": text}})
    assert "may lie between the tie points" in notes[0]
    assert view["g/radiance"].shape == (LINES, PIXELS)  # type: ignore[union-attr]


# Ragged arrays

COUNTS = [5, 0, 3, 4, 0]


def ragged(values: Any) -> Any:
    return np.concatenate([values(i, n) for i, n in enumerate(COUNTS)])


def trajectories() -> dict[str, Any]:
    """Five trajectories, two without an observation; the third goes through the place."""
    lat = ragged(lambda i, n: np.linspace(0, 1, n) + 3.5 * i)
    lon = ragged(lambda i, n: np.linspace(0, 1, n) + 15 + 3.5 * i)
    return {
        **coordinates((lat, lon), ("obs",)),
        "who": (ragged(lambda i, n: np.full(n, i)), ("obs",), {}),
        "position": (indices(12), ("obs",), {}),
        "name": (indices(5), ("trajectory",), {}),
    }


@pytest.mark.parametrize("bbox", [(22.3, 7.3, 22.7, 7.7), (22.3, 7.3, 26.1, 11.1), BBOX])
@pytest.mark.parametrize("exact", [True, False])
def test_contiguous_ragged_arrays_lose_whole_instances(
    bbox: tuple[float, ...], exact: bool
) -> None:
    counts = {"row_size": (COUNTS, ("trajectory",), {"sample_dimension": "obs"})}
    layout = trajectories() | counts
    view, notes = crop(layout, bbox, exact=exact)
    assert notes == []
    (names,) = windows(view, "name", (5,))
    sizes = view["g/row_size"][...].tolist()  # type: ignore[union-attr,index,operator]
    assert sizes == COUNTS[slice(*names)]
    who = view["g/who"][...].tolist()  # type: ignore[union-attr,index,operator]
    assert who == np.repeat(np.arange(*names), sizes).tolist()
    assert 2 in who
    assert 0 not in who
    assert (3 in who) == (bbox[2] > 25)
    assert_coordinates(view, layout, "{}", windows(view, "position", (12,)))


def test_stations_take_their_observations_along() -> None:
    """Here the instances say where they lie."""
    lat, lon = np.array([0, 1, 8, 9, 30.0]), np.array([0, 1, 23, 24, 30.0])
    layout = {
        **coordinates((lat, lon), ("station",)),
        "row_size": (COUNTS, ("station",), {"sample_dimension": "obs"}),
        "position": (indices(12), ("obs",), {}),
        "name": (indices(5), ("station",), {}),
    }
    view, notes = crop(layout)
    assert notes == []
    (names,) = windows(view, "name", (5,))
    assert names == (2, 4)
    assert windows(view, "position", (12,)) == [(5, 12)]
    assert_coordinates(view, layout, "{}", [names])
    nothing, _ = crop(layout, (100, 40, 101, 41))
    assert nothing["g/row_size"].shape == nothing["g/position"].shape == (0,)  # type: ignore[union-attr]


def test_counts_that_are_wrong_leave_all_there() -> None:
    layout = trajectories() | {
        "row_size": ([5, 0, 3, 4, 7], ("trajectory",), {"sample_dimension": "obs"})
    }
    view, notes = crop(layout)
    assert notes == ["g: row_size doesn't count the obs that there are: shown whole"]
    assert windows(view, "position", (12,)) == [(0, 12)]


def test_indexed_ragged_arrays_keep_all_instances() -> None:
    layout = trajectories()
    layout["who"] = (*layout["who"][:2], {"instance_dimension": "trajectory"})
    view, notes = crop(layout, (22.3, 7.3, 22.7, 7.7))
    assert notes == []
    parts = windows(view, "position", (12,))
    assert_coordinates(view, layout, "{}", parts)
    assert set(view["g/who"][...].tolist()) == {2}  # type: ignore[union-attr,index,operator]
    assert windows(view, "name", (5,)) == [(0, 5)]


def test_indexed_observations_of_stations_stay_whole() -> None:
    lat, lon = np.array([0, 1, 8, 9, 30.0]), np.array([0, 1, 23, 24, 30.0])
    layout = {
        **coordinates((lat, lon), ("station",)),
        "who": (np.arange(12) % 5, ("obs",), {"instance_dimension": "station"}),
        "position": (indices(12), ("obs",), {}),
    }
    view, notes = crop(layout)
    assert notes == ["g: who names positions along station, which are shown whole"]
    assert windows(view, "position", (12,)) == [(0, 12)]
    assert_coordinates(view, layout, "{}", [(0, 5)])


# Cells


def test_cells_have_the_coordinates_of_their_own_grid() -> None:
    """Those that the finder finds, for images of several channels and for tracks as well."""
    layout = {
        **coordinates(swath(6, 5), ("y", "x"), "geo/{}"),
        **coordinates(swath(6, 2), ("y", "tie_x"), "ties/{}"),
        **coordinates(track(4), ("time",), "track/{}"),
        "data/tc": (indices(6, 5, 3), ("y", "x", "channel"), {}),
        "data/height": (indices(4), ("time",), {}),
    }
    view, _ = crop(layout, (-180, -90, 180, 90))
    table = view.cells("tc").to_table()
    rows, columns, _ = np.unravel_index(table["value"].to_numpy(), (6, 5, 3))
    for name in ("latitude", "longitude"):
        np.testing.assert_array_equal(table[name], layout[f"geo/{name}"][0][rows, columns])
        np.testing.assert_array_equal(
            view.cells("height").to_table()[name], layout[f"track/{name}"][0]
        )
