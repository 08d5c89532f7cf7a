"""What is added can be read: a chunk of each array of a new profile is decoded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import shapely
from builders import write_swath

import l2view
from l2view.errors import IngestError
from l2view.ingest import check

DEFAULTS = {"datetime": "2025-06-01", "bbox": shapely.box(0, 0, 1, 1)}
GOOD = {"shape": [4], "chunks": [4], "dtype": "<i2", "order": "C", "zarr_format": 2}
GOOD |= {"compressor": None, "filters": None, "fill_value": None}
BAD = GOOD | {"compressor": {"id": "zlib", "level": 1}}


@pytest.fixture(autouse=True)
def of_new_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_decodable", set())


def references(folder: Path, **arrays: dict[str, Any]) -> Path:
    """Write references, all of them to the same eight bytes, that no zlib has written."""
    (folder / "raw").write_bytes(b"no zlib!")
    refs: dict[str, Any] = {".zgroup": '{"zarr_format": 2}'}
    for name, document in arrays.items():
        refs |= {
            f"{name}/.zarray": json.dumps(document),
            f"{name}/0": [(folder / "raw").as_uri(), 0, 8],
        }
    path = folder / f"{'-'.join(arrays)}.json"
    path.write_text(json.dumps({"refs": refs}))
    return path


def ingest(path: Path, **options: Any) -> Any:
    shutil.rmtree(path.parent / "c", ignore_errors=True)
    return l2view.ingest(path, path.parent / "c", defaults=DEFAULTS, **options)


def test_what_cannot_be_decoded_is_left_out(tmp_path: Path) -> None:
    path = references(tmp_path, bad=BAD, good=GOOD)
    for _ in range(2):  # what can't be decoded is no profile that is known
        report = ingest(path)
        assert [name for name, _ in report.omitted] == ["bad"]
        assert "a chunk of it can't be decoded" in str(report)
    assert sorted(l2view.open(tmp_path / "c", fields=[])["bad-good"].array_keys()) == ["good"]
    assert ingest(path, check=False).omitted == {}
    report = ingest(references(tmp_path, bad=BAD))
    assert "no array of it can be taken in; bad: a chunk of it" in report.failed[0].reason


def test_large_chunks_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "LARGEST", 7)
    assert ingest(references(tmp_path, bad=BAD)).omitted == {}


def test_of_a_profile_only_the_first_granule_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    error = check._decoding_error
    monkeypatch.setattr(
        check, "_decoding_error", lambda array: decoded.append(array.path) or error(array)
    )
    for number in range(3):
        write_swath(tmp_path / f"{number}.h5", number)
    report = l2view.ingest(tmp_path / "*.h5", tmp_path / "c")
    assert report.added.count == 3
    assert sorted(decoded) == sorted(l2view.open(tmp_path / "c", fields=[])["0"].array_keys())


def test_a_failing_store_costs_the_granule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run again, it comes in whole."""

    def fail(*_: Any) -> bytes:
        raise IngestError("it can't be read: busy")

    monkeypatch.setattr(check, "read_range", fail)
    assert ingest(references(tmp_path, good=GOOD)).failed[0].reason == "it can't be read: busy"


@pytest.mark.parametrize("model", ["NETCDF3_CLASSIC", "NETCDF4"])
def test_a_file_that_is_cut_off(tmp_path: Path, model: Any) -> None:
    path = tmp_path / "r.nc"
    with netCDF4.Dataset(path, "w", format=model) as file:
        file.createDimension("x", 1_000)
        for name in ("first", "last"):
            file.createVariable(name, "f8", ("x",))[:] = 1
    path.write_bytes(path.read_bytes()[:-100])
    report = ingest(path)
    if model == "NETCDF4":  # HDF5 knows how long it was
        assert "truncated file" in report.failed[0].reason
        return
    assert [name for name, _ in report.omitted] == ["last"]
    assert "end behind their file" in str(report)
    np.testing.assert_array_equal(l2view.open(tmp_path / "c")["r/first"][...], np.ones(1_000))


def test_files_that_are_missing_cost_their_arrays(tmp_path: Path) -> None:
    path = references(tmp_path, good=GOOD)
    content = json.loads(path.read_text())
    content["refs"] |= {
        "gone/.zarray": json.dumps(GOOD),
        "gone/0": [(tmp_path / "nothing").as_uri(), 0, 8],
        "short/.zarray": json.dumps(GOOD),
        "short/0": [(tmp_path / "raw").as_uri(), 4, 8],
    }
    path.write_text(json.dumps(content))
    report = ingest(path)
    assert {name: reason.partition(" ")[0] for name, reason in report.omitted} == {
        "gone": "it",
        "short": "some",
    }


@pytest.mark.parametrize("is_bad", [False, True])
def test_coordinates_that_cannot_be_read_cost_the_place_alone(tmp_path: Path, is_bad: bool) -> None:
    path = references(tmp_path, lat=BAD if is_bad else GOOD, lon=GOOD, good=GOOD)
    content = json.loads(path.read_text())
    content["refs"]["lat/.zattrs"] = '{"units": "degrees_north", "scale_factor": 0.001}'
    content["refs"]["lon/.zattrs"] = '{"units": "degrees_east", "scale_factor": 0.001}'
    path.write_text(json.dumps(content))
    report = l2view.ingest(path, tmp_path / "c", defaults={"datetime": "2025-06-01"})
    assert report.failed == []
    assert [name for name, _ in report.omitted] == (["lat"] if is_bad else [])
    row = l2view.search(tmp_path / "c").to_pylist()[0]
    assert (row.get("bbox") is None) == is_bad
