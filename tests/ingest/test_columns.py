"""The fields of a collection as granules come in: their types, and what none may lose."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import pytest
import zarr
from builders import write_swath
from zarr.storage import MemoryStore

import l2view
from l2view.errors import FieldError, IngestError
from l2view.ingest.report import IngestReport
from l2view.meta.columns import Kinds, kind_of_array


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [write_swath(tmp_path / f"s{number}.h5", number) for number in range(3)]


class By:
    """A harvester that gives each file the fields of its name."""

    def __init__(self, **values: dict[str, Any]) -> None:
        self.values = values

    def __call__(self, group: zarr.Group, url: str) -> dict[str, Any]:
        return self.values.get(url.rpartition("/")[2].removesuffix(".h5"), {})


def ingest(files: Any, store: Path, **values: dict[str, Any]) -> IngestReport:
    return l2view.ingest(files, store, harvest=By(**values))


@pytest.mark.parametrize("together", [True, False])
def test_integers_that_no_float_holds(files: list[Path], tmp_path: Path, together: bool) -> None:
    exact = 2**53 + 1
    batches = [files] if together else [[file] for file in files]
    failed = []
    for batch in batches:
        report = ingest(batch, tmp_path / "c", s0={"n": exact}, s1={"n": 0.5}, s2={"n": 3})
        failed += [(one.id, one.reason) for one in report.failed]
    ((name, reason),) = failed
    assert name == "s1"
    assert reason.startswith('the field "n" is 0.5, and has integers beyond 2⁵³')
    assert l2view.search(tmp_path / "c")["n"].to_pylist() == [exact, 3]


def test_a_large_integer_into_floats() -> None:
    kinds = Kinds({"n": "float"})
    kinds.add({"n": 2**53})
    with pytest.raises(FieldError, match="integers beyond"):
        kinds.add({"n": 2**53 + 1})
    with pytest.raises(FieldError, match="integers beyond"):
        kinds.add({"n": -(2**60)})


def test_smaller_integers_become_floats(files: list[Path], tmp_path: Path) -> None:
    values = {"s0": {"n": -(2**53)}, "s1": {}, "s2": {"n": 0.5}}
    for file in files:
        assert ingest(file, tmp_path / "c", **values).failed == []
    assert l2view.search(tmp_path / "c")["n"].to_pylist() == [float(-(2**53)), None, 0.5]


@pytest.mark.parametrize("dtype", ["int32", "float32", "datetime64[s]", "uint64", "bool"])
def test_fields_of_others_are_not_cut_short(files: list[Path], tmp_path: Path, dtype: str) -> None:
    ingest(files[0], tmp_path / "c")
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(tmp_path / "c")))
    session = repository.writable_session("main")
    zarr.open_group(session.store)["meta"].create_array("mine", shape=(1,), dtype=dtype)
    session.commit("a field of somebody's own")
    with pytest.raises(FieldError, match=rf'"mine" is .*{dtype.split("[")[0]}.* ingest can\'t add'):
        ingest(files[1], tmp_path / "c")
    assert len(l2view.Collection(tmp_path / "c")) == 1


def test_another_null_is_refused() -> None:
    array = zarr.create_array({}, name="n", shape=(1,), dtype="int64", attributes={"_FillValue": 0})
    with pytest.raises(FieldError, match=r'"n" has 0 for NULL, where ingest writes -9223'):
        kind_of_array(array)


def test_a_collection_that_is_not_whole(files: list[Path], tmp_path: Path) -> None:
    ingest(files[:2], tmp_path / "c")
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(tmp_path / "c")))
    session = repository.writable_session("main")
    zarr.open_group(session.store)["l2view/ids"].resize((1,))
    session.commit("cut short")
    with pytest.raises(IngestError, match="1 ids in l2view/ids for 2 rows of meta"):
        ingest(files[2], tmp_path / "c")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2025-06-01T10:00:00+02:00", "2025-06-01 08:00:00"),
        ("2025-06-01", "2025-06-01 00:00:00"),
        (date(2025, 6, 1), "2025-06-01 00:00:00"),
        (datetime(2025, 6, 1, 1), "2025-06-01 01:00:00"),
        (np.datetime64("2025-06-01T01:00", "s"), "2025-06-01 01:00:00"),
    ],
)
def test_times_however_they_are_said(
    files: list[Path], tmp_path: Path, value: Any, expected: str
) -> None:
    names = ("datetime", "start_datetime", "end_datetime")
    report = ingest(files[0], tmp_path / "c", s0=dict.fromkeys(names, value))
    assert report.failed == []
    row = l2view.search(tmp_path / "c").to_pylist()[0]
    # A day ends with its last instant.
    is_day = not isinstance(value, datetime | np.datetime64) and len(str(value)) == 10
    end = "2025-06-01 23:59:59.999999" if is_day else expected
    assert [str(row[name]) for name in names] == [expected, expected, end]


@pytest.mark.parametrize("value", ["soon", 20250601, 1.5, ""])
@pytest.mark.parametrize("name", ["datetime", "start_datetime", "end_datetime"])
def test_what_is_no_time(files: list[Path], tmp_path: Path, name: str, value: Any) -> None:
    (failed,) = ingest(files[0], tmp_path / "c", s0={name: value}).failed
    assert failed.reason == f'the field "{name}" is {value!r}, which is no time'


def test_what_wins_over_what(files: list[Path], tmp_path: Path) -> None:
    """A file says less than a record, a record less than the caller."""
    item = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": "scene",
        "geometry": None,
        "bbox": [1, 2, 3, 4],
        "properties": {
            "datetime": None,
            "start_datetime": "2024-01-01",
            "platform": "of the item",
            "id": "of the properties",
        },
        "links": [],
        "collection": "of the item",
        "assets": {"data": {"href": str(files[0]), "type": "application/x-hdf5"}},
    }
    defaults = {"platform": "default", "grade": "default"}
    report = l2view.ingest(item, tmp_path / "c", defaults=defaults, collection="mine")
    assert report.failed == []
    row = l2view.search(tmp_path / "c").to_pylist()[0]
    wanted = {"id": "scene", "platform": "of the item", "collection": "mine", "grade": "default"}
    assert {name: row[name] for name in wanted} == wanted
    assert str(row["datetime"]) == "2024-01-01 00:00:00"

    def harvest(group: zarr.Group, url: str) -> dict[str, Any]:
        assert group["sst"].shape == (12, 8)
        return {"platform": "of the caller", "id": "other", "collection": None, "grade": 7}

    report = l2view.ingest(item, tmp_path / "d", harvest=harvest, collection="mine")
    row = l2view.search(tmp_path / "d").to_pylist()[0]
    assert (row["id"], row["platform"], row["grade"]) == ("other", "of the caller", 7)
    assert "collection" not in row


@pytest.mark.parametrize(
    "attributes",
    [{"scale_factor": 0.1, "add_offset": 1.0}, {"units": "days since 2000-01-01"}],
)
def test_packed_fields_take_no_more_values(attributes: dict[str, Any]) -> None:
    group = zarr.create_group(MemoryStore())
    array = group.create_array("n", data=np.arange(3), attributes={"_FillValue": -(2**63)})
    assert kind_of_array(array) == "int"
    array.attrs.update(attributes)
    with pytest.raises(FieldError, match='the field "n" is packed'):
        kind_of_array(array)
