"""File formats and harvesters that other packages add by entry points."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from builders import write_swath

import l2view
from l2view.errors import L2ViewWarning
from l2view.ingest.plugins import load_plugins

MODULE = '''
import numpy as np
import shapely
from virtualizarr.manifests import ChunkManifest, ManifestArray, ManifestGroup, ManifestStore
from virtualizarr.manifests.utils import create_v3_array_metadata

from l2view.ingest.formats import FileFormat


class RawParser:
    """Files of a magic number and 6 float32."""

    def __call__(self, url, registry):
        metadata = create_v3_array_metadata(
            shape=(6,),
            chunk_shape=(6,),
            data_type=np.dtype("<f4"),
            codecs=[{"name": "bytes", "configuration": {"endian": "little"}}],
            dimension_names=("time",),
        )
        entries = {"0": {"path": url, "offset": 4, "length": 24}}
        array = ManifestArray(metadata=metadata, chunkmanifest=ChunkManifest(entries))
        return ManifestStore(ManifestGroup(arrays={"sst": array}), registry=registry)


RAW = FileFormat("raw", "l2view_raw:RawParser", magic=(b"RAW1",))


def harvest(group, url):
    return {"datetime": "2025-06-01T10:00Z", "bbox": shapely.Point(3, 4), "sensor": "buoy"}


def fail(group, url):
    raise RuntimeError("no sensor in " + url.rpartition("/")[2])
'''


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, points: str) -> None:
    """Put a distribution with entry points on the path."""
    (folder / "l2view_raw.py").write_text(MODULE)
    info = folder / "l2view_raw-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: l2view-raw\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(folder)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    load_plugins.cache_clear()
    yield
    load_plugins.cache_clear()


def write_raw(path: Path) -> Path:
    path.write_bytes(b"RAW1" + np.arange(6, dtype="<f4").tobytes())
    return path


def test_another_package_s_format_and_harvester(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = (
        "[l2view.formats]\nraw = l2view_raw:RAW\n[l2view.harvesters]\nraw = l2view_raw:harvest\n"
    )
    install(tmp_path, monkeypatch, points)
    report = l2view.ingest(write_raw(tmp_path / "one.raw"), tmp_path / "c")
    assert report.failed == []
    view = l2view.open(tmp_path / "c")
    assert view["one.raw/sst"][:].tolist() == [0, 1, 2, 3, 4, 5]
    assert view["one.raw"].attrs["sensor"] == "buoy"
    assert l2view.open(tmp_path / "c", bbox=(4, 4, 5, 5)).names == []


def test_a_harvester_adds_to_what_files_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "[l2view.harvesters]\nraw = l2view_raw:harvest\n")
    path = write_swath(tmp_path / "s.h5", 1)
    l2view.ingest(path, tmp_path / "c", harvest=lambda *_: {"datetime": "2026-01-01"})
    attributes = l2view.open(tmp_path / "c")["s"].attrs
    assert attributes["sensor"] == "buoy"
    assert attributes["datetime"].startswith("2026-01-01")  # the caller's wins


def test_a_broken_plugin_is_named_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = (
        "[l2view.formats]\nraw = l2view_raw:harvest\n[l2view.harvesters]\nodd = l2view_gone:x\n"
    )
    install(tmp_path, monkeypatch, points)
    swath, raw = write_swath(tmp_path / "s.h5", 1), write_raw(tmp_path / "one.raw")
    with pytest.warns(L2ViewWarning) as caught:
        report = l2view.ingest([swath, raw], tmp_path / "c")
    texts = sorted(str(warning.message) for warning in caught)
    assert len(texts) == 2
    assert (
        "plugin odd (l2view.harvesters) of l2view-raw can't be loaded: ModuleNotFound" in texts[0]
    )
    assert "plugin raw (l2view.formats) of l2view-raw is left out: it is a function" in texts[1]
    assert report.added.ids == ["s"]
    assert [failure.reason for failure in report.failed] == [
        "its format isn't known: it begins with b'RAW1\\x00\\x00\\x00\\x00'"
    ]


def test_a_harvester_that_fails_costs_one_granule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "[l2view.harvesters]\nodd = l2view_raw:fail\n")
    report = l2view.ingest(write_swath(tmp_path / "s.h5", 1), tmp_path / "c")
    (failure,) = report.failed
    assert failure.reason.startswith("the harvester odd fails in line")
    assert "l2view_raw.py: RuntimeError: no sensor in s.h5; it is called with" in failure.reason
