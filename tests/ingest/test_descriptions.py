"""Times and fields where products say them: texts in attributes, nested groups, file names."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import zarr
from zarr.storage import MemoryStore

import l2view
from l2view.ingest.granule import Entry, Granule
from l2view.ingest.harvest import harvest_files, valid_fields
from l2view.ingest.harvest.attributes import (
    array_times,
    attribute_times,
    harvest_attributes,
    parse_time,
)
from l2view.ingest.harvest.names import times_in_name
from l2view.ingest.harvest.stac import item_fields
from l2view.ingest.options import ParseOptions
from l2view.ingest.parse import parse_granule
from l2view.text import fold_name

START, END = datetime(2019, 12, 2, 23, 15), datetime(2019, 12, 2, 23, 20)

ODL = """GROUP = INVENTORYMETADATA
  GROUP = RANGEDATETIME
    OBJECT = RANGEBEGINNINGDATE
      NUM_VAL = 1
      VALUE = "2019-12-02"
    END_OBJECT = RANGEBEGINNINGDATE
    OBJECT = RANGEBEGINNINGTIME
      NUM_VAL = 1
      VALUE = "23:15:00.000000"
    END_OBJECT = RANGEBEGINNINGTIME
    OBJECT = RANGEENDINGDATE
      VALUE = ("2019-12-02")
    END_OBJECT = RANGEENDINGDATE
    OBJECT = RANGEENDINGTIME
      VALUE = "23:20:00"
    END_OBJECT = RANGEENDINGTIME
  END_GROUP = RANGEDATETIME
  OBJECT = ASSOCIATEDPLATFORMINSTRUMENTSENSORCONTAINER
    CLASS = "1"
    OBJECT = ASSOCIATEDPLATFORMSHORTNAME
      VALUE = "Terra"
    END_OBJECT = ASSOCIATEDPLATFORMSHORTNAME
  END_OBJECT = ASSOCIATEDPLATFORMINSTRUMENTSENSORCONTAINER
END_GROUP = INVENTORYMETADATA
END
"""
HEADER = """DOI=10.5067/GPM/MHS/NOAA18/1C/07;
SatelliteName=NOAA18;
StartGranuleDateTime=2019-12-02T23:15:00.000Z;
StopGranuleDateTime=2019-12-02T23:20:00.000Z;
"""


def group_with(path: str, attributes: dict[str, Any]) -> zarr.Group:
    root = zarr.create_group(MemoryStore())
    (root.require_group(path) if path else root).attrs.update(attributes)
    return root


@pytest.mark.parametrize("path", ["", "HDFEOS/ADDITIONAL/FILE_ATTRIBUTES"])
@pytest.mark.parametrize(
    ("attributes", "platform"),
    [
        ({"CoreMetadata.0": ODL}, "Terra"),
        ({"FileHeader": HEADER}, "NOAA18"),
        ({"StartUTC": "2019-12-02T23:15:00Z", "EndUTC": "2019-12-02T23:20:00Z"}, None),
        ({"Start_Date": "02-DEC-2019 23:15:00.00", "Stop_Date": "02-DEC-2019 23:20:00"}, None),
        ({"start_time": "UTC=2019-12-02T23:15:00", "stop_time": "UTC=2019-12-02T23:20:00"}, None),
        (
            {
                "rangeBeginningDateTime": "2019-12-02T23:15:00.000Z",
                "rangeEndingDateTime": "2019-12-02T23:20:00.000Z",
            },
            None,
        ),
        ({"start-date-time": "2019-12-02T23:15:00", "end date time": "2019-12-02T23:20:00"}, None),
    ],
)
def test_products_say_their_times(
    path: str, attributes: dict[str, Any], platform: str | None
) -> None:
    fields = harvest_attributes(group_with(path, attributes))[0]
    assert (fields["datetime"], fields["end_datetime"]) == (START, END)
    assert fields.get("platform") == platform


def test_an_inventory_that_is_an_array() -> None:
    root = zarr.create_group(MemoryStore())
    text = np.array(ODL.encode(), dtype=f"S{len(ODL) + 100}")
    root.create_array("HDFEOS INFORMATION/coremetadata.0", data=text)
    assert harvest_attributes(root)[0]["datetime"] == START


def test_the_own_attributes_come_before_those_below() -> None:
    root = group_with("below", {"time_coverage_start": "2001-01-01", "platform": "B"})
    root.attrs.update({"time_coverage_start": "2002-01-01", "platform": "A"})
    fields = harvest_attributes(root)[0]
    assert (fields["datetime"], fields["platform"]) == (datetime(2002, 1, 1), "A")


@pytest.mark.parametrize("text", ["GROUP = X\nVALUE = \n=\nOBJECT", "a=b;c=d;", "", "\0"])
@pytest.mark.parametrize("name", ["CoreMetadata.0", "FileHeader"])
def test_texts_that_are_damaged_say_nothing(name: str, text: str) -> None:
    assert "datetime" not in harvest_attributes(group_with("", {name: text}))[0]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"StartUTC": "2020-01-01"}, (datetime(2020, 1, 1), None)),
        ({"sensing_start": "2020-01-01", "platform": "A"}, (datetime(2020, 1, 1), None)),
        (
            {
                "time_coverage_start": "2020-06-01",
                "start_date": "2019-01-01",
                "stop_date": "2019-01-02",
            },
            (datetime(2020, 6, 1), None),
        ),
        (
            {
                "start_time": "2020-01-01",
                "sensing_start": "2020-01-01",
                "sensing_end": "2020-01-02",
            },
            (datetime(2020, 1, 1), datetime(2020, 1, 2, 23, 59, 59, 999_999)),
        ),
    ],
)
def test_a_beginning_needs_no_end(attributes: dict[str, str], expected: Any) -> None:
    assert attribute_times({fold_name(n): v for n, v in attributes.items()}) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("9999-12-31T24:00:00Z", None),
        ("2019-12-31T24:00:00Z", datetime(2020, 1, 1)),
        ("2019-12-31T24:00:00.000", datetime(2020, 1, 1)),
        ("2019-12-31T24:00:01Z", None),
        ("14-APR-2017 10:27:29.45", datetime(2017, 4, 14, 10, 27, 29, 450000)),
        ("2017:04:14 10:27:29", datetime(2017, 4, 14, 10, 27, 29)),
        ("14-Apr-2017 10:27:29 UTC", datetime(2017, 4, 14, 10, 27, 29)),
        ("Fri Apr 14 10:27:29 2017", datetime(2017, 4, 14, 10, 27, 29)),
        ("2017_04_14_10_27_29", datetime(2017, 4, 14, 10, 27, 29)),
        ("1993-1-1T2:03:4.5Z", datetime(1993, 1, 1, 2, 3, 4, 500000)),
        ("36000", None),
        ("20150", None),
    ],
)
def test_forms_of_times(text: str, expected: datetime | None) -> None:
    assert parse_time(text) == expected


@pytest.mark.parametrize(
    ("name", "start", "end"),
    [
        (
            "S5P_20200303T013547_20200303T031717_1_20200306T0538.nc",
            "20200303013547",
            "20200303031717",
        ),
        ("OPERA_20190302T034350Z_20230131T222341Z_L8.tiff", "20190302034350", None),
        ("1C.MHS.20050525-S235459-E013706.000073.HDF5", "20050525235459", "20050526013706"),
        (
            "ABI_s20211381700538_e20211381700595_c20211381701211.nc",
            "20210518170053",
            "20210518170059",
        ),
        ("NSS.MHSX.NN.D07032.S0015.E0155.B0832728.WI.h5", "20070201001500", None),
        ("MOD05_L2.A2019336.2315.061.2019337071952.hdf", "20191202231500", None),
        ("MOD11B2.A2017032.h14v04.006.2018013155631.hdf", "20170201000000", None),
        ("OMI-Aura_L2-OMNO2_2007m0210t0103-o13456_v003.he5", "20070210010300", None),
        ("MLS-Aura_L2GP-IWC_v02-21-c02_2007d210.he5", "20070729000000", None),
        ("GEDI04_A_2019117051430_O02102_01_T04603.h5", "20190427051430", None),
        ("SWOT_003_005_20111115_030538_20111115_035643.nc", "20111115030538", "20111115035643"),
        ("LC08_L2SP_005009_20150710_20200908_02_T2_SR_B2.TIF", "20150710000000", None),
        ("LC80140332018166LGN00.tif", "20180615000000", None),
        ("cyg01.ddmi.s20200101-000000-e20200101-235959.nc", "20200101000000", "20200101235959"),
        ("SAFNWC_MSG3_CT___201304290415_BEL_________.h5", "20130429041500", None),
    ],
)
def test_times_in_names(name: str, start: str, end: str | None) -> None:
    expected = [text and datetime.strptime(text, "%Y%m%d%H%M%S") for text in (start, end)]
    assert times_in_name(f"https://host/archive/{name}?version=20010101") == tuple(expected)


@pytest.mark.parametrize(
    "name",
    [
        "H108_1436.nc",
        "x_20150_y.nc",
        "y_2019366.nc",
        "a_201501011.nc",
        "tile_12345678.tif",
        "19.nc",
    ],
)
def test_numbers_in_names_that_are_no_times(name: str) -> None:
    assert times_in_name(f"file:///data/20200101/{name}") == (None, None)


def array_of_times(values: Any, **attributes: str) -> zarr.Group:
    group = zarr.create_group({})
    group.create_array("time", data=np.asarray(values)).attrs.update(attributes)
    return group


@pytest.mark.parametrize(
    ("calendar", "start", "end"),
    [
        ("standard", "2000-01-02", "2000-02-29"),
        ("noleap", "2000-01-02", "2000-03-01"),
        ("360_day", "2000-01-02", None),  # it has a 30 February
        ("julian", "2000-01-15", "2000-03-13"),
    ],
)
def test_calendars(calendar: str, start: str, end: str | None) -> None:
    group = array_of_times([1, 59], units="days since 2000-01-01", calendar=calendar)
    expected = (datetime.fromisoformat(start), end and datetime.fromisoformat(end))
    fields, notes = harvest_files([(group, "")], {})
    if end is None:
        assert "datetime" not in fields
        assert notes == ["its times are in the calendar 360_day, which has other days"]
    else:
        assert array_times(group) == (*expected, notes) == (*expected, [])


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("2017-02", "2017-02-28T23:59:59.999999"),
        ("2017-4-14", "2017-04-14T23:59:59.999999"),
        ("2017-04-14 UTC", "2017-04-14T23:59:59.999999"),
        ("2016366", "2016-12-31T23:59:59.999999"),
        ("20170414", "2017-04-14T23:59:59.999999"),
        ("9999-12-31", "9999-12-31T23:59:59.999999"),
        ("2017-04-14T10", "2017-04-14T10:59:59.999999"),
        ("2017-04-14T10:05+02:00", "2017-04-14T08:05:59.999999"),
        ("2017-04-14T10:05:00Z", "2017-04-14T10:05"),
        ("14-APR-2017 10:05:00", "2017-04-14T10:05"),
    ],
)
def test_an_end_is_that_of_its_period(text: str, end: str) -> None:
    expected = datetime.fromisoformat(end)
    start, stop = "2010-01-01", {"end_datetime": text}
    assert attribute_times({"timecoveragestart": start, "timecoverageend": text})[1] == expected
    assert attribute_times({"startdate": start, "stopdate": text})[1] == expected
    assert item_fields({"properties": stop})["end_datetime"] == expected
    assert valid_fields(stop)[0]["end_datetime"] == expected


def test_an_end_before_the_start_is_left_out(tmp_path: Path) -> None:
    root = zarr.create_group(tmp_path / "g.zarr")
    root.create_array("v", data=np.arange(3))
    root.attrs.update({"time_coverage_start": "2020-01-02", "time_coverage_end": "2020-01-01"})
    report = l2view.ingest(tmp_path / "g.zarr", tmp_path / "store")
    (row,) = l2view.search(tmp_path / "store").to_pylist()
    assert row["datetime"] == row["start_datetime"] == datetime(2020, 1, 2)
    assert row.get("end_datetime") is None
    assert (
        "its end_datetime, 2020-01-01 23:59:59.999999, is before its start, 2020-01-02 00:00:00: "
        "it is left out"
    ) in report.notes


DAY = 86_400.0


@pytest.mark.parametrize(
    ("seconds", "attributes", "expected", "note"),
    [
        # The first second of 2017 follows the leap second, which xarray doesn't count.
        (1_167_264_018, {"units": "seconds since 1980-01-06 00:00:00 GPS"}, 0, ""),
        (1_167_264_016, {"units": "seconds since 1980-1-6", "long_name": "GPS time"}, -1, ""),
        (8766 * DAY + 10, {"units": "Seconds since 1993-1-1", "long_name": "TAI Time"}, 0, ""),
        (21_550 * DAY + 37, {"units": "seconds since 1958-01-01", "time_system": "TAI93"}, 0, ""),
        (0, {"units": "seconds since 2017-01-01", "long_name": "GPS time"}, 0, "GPS 18"),
        (0, {"units": "seconds since 2017-01-01 TAI"}, 0, "TAI 37"),
        (0, {"units": "seconds since 2017-01-01", "long_name": "UTC, not TAI"}, 0, ""),
        (1_167_264_000, {"units": "seconds since 1980-01-06 UTC"}, 0, ""),
        (0, {"units": "seconds since 2017-01-01", "long_name": "details"}, 0, ""),
    ],
)
def test_scales_without_leap_seconds(
    seconds: float, attributes: dict[str, str], expected: Any, note: str
) -> None:
    start, _, notes = array_times(array_of_times([seconds], **attributes))
    at = datetime(2017, 1, 1) + timedelta(seconds=expected)
    assert start == at
    assert [re.sub(r"\D+", "", text) for text in notes] == note.split()[1:]


def test_arrays_called_time_that_are_none() -> None:
    """Such as indices of passes, lengths of time, and the beginning of a forecast."""
    for units in ("days", "hours since 00:00 UTC", "1"):
        assert array_times(array_of_times([1, 2], units=units)) == (None, None, [])
    days = array_of_times(np.array([1, 2], "i1"), units="days since 2020-01-01")
    assert array_times(days) == (datetime(2020, 1, 2), datetime(2020, 1, 3), [])
    forecast = {"units": "days since 2020-01-01", "standard_name": "forecast_reference_time"}
    assert array_times(array_of_times([1, 2], **forecast)) == (None, None, [])


@pytest.mark.parametrize("quote", ['"', "'", ""])
def test_inventories_with_other_quotes(quote: str) -> None:
    fields = harvest_attributes(group_with("", {"CoreMetadata.0": ODL.replace('"', quote)}))[0]
    assert (fields["datetime"], fields["end_datetime"]) == (START, END)


@pytest.mark.parametrize(
    ("duration", "end"),
    [
        ("PT10M", datetime(2020, 1, 1, 0, 10)),
        ("P1DT0.5S", datetime(2020, 1, 2, 0, 0, 0, 500_000)),
        ("P1M", None),
        ("P99999999999D", None),
        ("long", None),
    ],
)
def test_durations(duration: str, end: datetime | None) -> None:
    start = {"timecoveragestart": "2020-01-01", "timecoverageduration": duration}
    assert attribute_times(start) == (datetime(2020, 1, 1), end)


@pytest.mark.parametrize(
    ("name", "tags", "expected", "note"),
    [
        (
            "a",
            {"TIFFTAG_DATETIME": "2017:04:14 10:27:29"},
            datetime(2017, 4, 14, 10, 27, 29),
            "made",
        ),
        ("a_20150710", {"TIFFTAG_DATETIME": "2017:04:14 10:27:29"}, datetime(2015, 7, 10), "name"),
        ("a", {"NC_GLOBAL#time_coverage_start": "2016-01-01"}, datetime(2016, 1, 1), ""),
    ],
)
def test_times_of_tiffs(
    tmp_path: Path, name: str, tags: dict[str, str], expected: datetime, note: str
) -> None:
    path = tmp_path / f"{name}.tif"
    profile: dict[str, Any] = {"driver": "GTiff", "count": 1, "height": 16, "width": 16}
    profile |= {"crs": "EPSG:32631", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 4.6e6)}
    with rasterio.open(path, "w", dtype="uint8", **profile) as file:
        file.write(np.ones((1, 16, 16), "uint8"))
        file.update_tags(**tags)
    granule = parse_granule(Entry.of_file(path.as_uri()), ParseOptions())
    assert isinstance(granule, Granule)
    assert granule.row["datetime"] == expected
    notes = [text for text in granule.notes if "its time" in text]
    assert bool(notes) == bool(note)
    assert note in "".join(notes)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2017101012345", datetime(2017, 4, 11, 1, 23, 45)),
        ("2011011012345.5Z", datetime(2011, 1, 11, 1, 23, 45, 500_000)),
        ("20170411", datetime(2017, 4, 11)),
        ("1512121212", None),
    ],
)
def test_digits_without_separators(text: str, expected: datetime | None) -> None:
    """Days of the year are no months; seconds since an epoch are no year."""
    assert parse_time(text) == expected


@pytest.mark.parametrize(
    "attributes",
    [
        {"mission_begin_date": "2002-01-01", "mission_end_date": "2030-01-01"},
        {"climatology_start_date": "1971-01-01", "climatology_end_date": "2000-12-31"},
        {"project_start_date": "1998-01-01", "project_end_date": "2000-01-01"},
        {"date": "2024-03-03"},
    ],
)
def test_times_of_other_things_are_not_the_granules(attributes: dict[str, Any]) -> None:
    root = group_with("", attributes)
    time = root.create_array("time", data=np.array([0, 60]))
    time.attrs["units"] = "seconds since 2020-01-01"
    assert harvest_attributes(root)[0]["datetime"] == datetime(2020, 1, 1)
