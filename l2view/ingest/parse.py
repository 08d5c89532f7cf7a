"""One granule's files, parsed: its references and its row of metadata, or why there are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import zarr
from obspec_utils.protocols import ReadableFile
from obspec_utils.registry import ObjectStoreRegistry
from virtualizarr.manifests import ManifestStore

from l2view.errors import FieldError, IngestError
from l2view.geolocation.struct_metadata import STRUCTURE, read_structures
from l2view.granules.references import ArrayReferences, Checksum, GranuleReferences
from l2view.ingest.check import (
    decodable_arrays,
    find_targets,
    notes_on_chunks,
    notes_on_scales,
    range_error,
    size_reason,
    unfound_chunks,
)
from l2view.ingest.dimensions import name_dimensions
from l2view.ingest.eos import place_grids
from l2view.ingest.files import (
    is_kerchunk_parquet,
    is_zarr,
    is_zarr_array,
    list_files,
    locate_repository,
    object_store,
    open_file,
    parsable_url,
    read_head,
    store_registry,
)
from l2view.ingest.formats import (
    HDF4,
    HEAD,
    ICECHUNK,
    KERCHUNK_PARQUET,
    TIFF,
    ZARR,
    ZARR_ARRAY,
    FileFormat,
    detect_format,
)
from l2view.ingest.granule import BandPacking, Entry, Failure, Granule
from l2view.ingest.harvest import TIMES, call_harvester, field_value, harvest_files, valid_fields
from l2view.ingest.harvest.attributes import DATE_TIME, parse_time
from l2view.ingest.harvest.names import times_in_name
from l2view.ingest.harvest.products import describe_product
from l2view.ingest.manifests import (
    Manifests,
    manifest_references,
    readable_group,
    rename_nodes,
    storable_name,
)
from l2view.ingest.opening import make_openable
from l2view.ingest.options import ParseOptions
from l2view.meta.columns import Value, plain, require_field_name
from l2view.stores.hierarchy import JSON, join, parents, resolve
from l2view.stores.urls import key_of, root_of
from l2view.text import first_line, join_names, strip_credentials

WAYS_OUT = "harvest= or defaults= (--harvest, --default)"
"""Where a caller may name what granules don't say."""

HELPED_BY = {
    "datetime": f"a time: no search by time finds it; name the field datetime in {WAYS_OUT}",
    "bbox": f"a place: no search by place finds it; name the field bbox in {WAYS_OUT}",
}
"""The fields by which granules are searched, and what is said of one that lacks them."""

SIGNATURES = frozenset({"sig", "signature", "token", "x-amz-signature", "x-goog-signature"})
"""The names by which a URL's query is known for a signature."""


@dataclass(frozen=True)
class ParsedFile:
    """One of a granule's files: a group whose chunks can be read, and references.

    The references have paths below the granule, in the group `asset` where it has several files.
    """

    asset: str
    url: str
    manifests: Manifests
    registry: ObjectStoreRegistry[Any]
    references: GranuleReferences
    notes: tuple[str, ...] = ()

    @cached_property
    def group(self) -> zarr.Group:
        """The file without what was dropped, once it is asked for."""
        return readable_group(self.manifests, self.registry)


def parse_granule(entry: Entry, options: ParseOptions) -> Granule | Failure:
    """Return the granule, or why it is left out; no error of one file stops the others."""
    try:
        with ExitStack() as links:
            return _parse_entry(entry, options, links)
    except Exception as error:  # parsers, codecs and harvesters have errors of their own
        return Failure(entry.id, entry.url, first_line(error))


def _parse_entry(entry: Entry, options: ParseOptions, links: ExitStack) -> Granule:
    entry, of_manifest = describe_product(entry)
    files, left_out = _parse_assets(entry, options, links)
    references = _merge([file.references for file in files], left_out)
    if options.check:
        merged, references = references, decodable_arrays(references)
        for path in references.omitted.keys() - merged.omitted.keys():
            for file in files:
                file.manifests.drop(path.removeprefix(f"{file.asset}/"))
    if not references.arrays and not (entry.manifest and files):
        reasons = (f"{path}: {reason}" for path, reason in references.omitted.items())
        raise IngestError(f"no array of it can be taken in; {next(reasons, 'it has none')}")
    _check_paths(references)
    row, notes = _row(entry, options, files)
    notes += of_manifest + [note for file in files for note in file.notes]
    notes += notes_on_chunks(references.arrays)
    # What has no values needs no place.
    empty = all(0 in array.shape for array in references.arrays)
    lacking = [name for name in HELPED_BY if row.get(name) is None]
    notes += [f"without {HELPED_BY[n]}" for n in lacking if not (n == "bbox" and empty)]
    required = [name for name in options.require if row.get(name) is None]
    if required and not (empty and required == ["bbox"]):
        fields = join_names(str(name) for name, value in row.items() if value is not None)
        raise IngestError(
            f"it lacks what require= names, {join_names(required)}; name it in {WAYS_OUT}, or "
            f"require another of its fields, {fields}"
        )
    row, of_fields = _storable(row)
    aliases = entry.aliases if row["id"] == entry.id else ()
    return Granule(row, references, tuple(notes + of_fields), aliases)


def _storable(row: Mapping[str, Any]) -> tuple[dict[str, Value], list[str]]:
    """Return a granule's fields as ``/meta`` can hold them, and notes on those that it can't.

    An `IngestError` names one whose name is no text.
    """
    storable: dict[str, Value] = {}
    notes: list[str] = []
    for name, value in row.items():
        if not isinstance(name, str):
            raise IngestError(f"one of its fields is called {name!r}, which is no text")
        try:
            if "/" in name:
                field = name.replace("/", "_")
                if field in row:
                    raise FieldError(f'a field can\'t be called "{name}", and there is "{field}"')
                notes.append(f'its field "{name}" is called "{field}"')
                name = field
            require_field_name(name)
            if (valid := plain(name, value)) is not None:
                storable[name] = valid
        except FieldError as error:
            notes.append(f"{error}: it is left out; name it in harvest=")
    start = storable.get("start_datetime", storable.get("datetime"))
    end = storable.get("end_datetime")
    if isinstance(start, datetime) and isinstance(end, datetime) and end < start:
        del storable["end_datetime"]
        notes.append(f"its end_datetime, {end}, is before its start, {start}: it is left out")
    return storable, notes


def _merge(files: Sequence[GranuleReferences], omitted: Mapping[str, str]) -> GranuleReferences:
    """Return the references of a granule's files as one granule's."""
    attributes: dict[str, JSON] = {"": {}}
    checksums: dict[str, Checksum] = {}
    reasons: dict[str, str] = {}
    for file in files:
        attributes |= file.attributes
        checksums |= file.checksums
        reasons |= file.omitted
    arrays = tuple(array for file in files for array in file.arrays)
    return GranuleReferences(arrays, attributes, checksums, reasons | dict(omitted))


def _parse_assets(
    entry: Entry, options: ParseOptions, links: ExitStack
) -> tuple[list[ParsedFile], dict[str, str]]:
    """Return a granule's files, and why others are left out; what the only one raises is raised."""
    files: list[ParsedFile] = []
    omitted = dict(entry.omitted)
    for key, url in entry.assets.items():
        is_name = resolve(key) == key and parents(key).isdisjoint(entry.assets)
        taken = {*entry.assets, *(file.asset for file in files)}
        # A name of Zarr's has neither slash.
        name = key if is_name else storable_name(key.replace("/", "\\"), taken)
        try:
            file = _parse_file(name, url, options, entry.packing.get(key, {}), links)
        except Exception as error:  # each parser's library has errors of its own
            if len(entry.assets) == 1 and not key:
                raise
            omitted[key] = first_line(error)
            continue
        renamed = (f"its asset {key!r} is called {name}",) if name != key else ()
        files.append(replace(file, notes=file.notes + renamed))
    if not files:
        reasons = (f"its asset {key} ({url}): {omitted[key]}" for key, url in entry.assets.items())
        raise IngestError(strip_credentials(next(reasons, "it names no file")))
    return files, omitted


def _parse_file(
    asset: str, url: str, options: ParseOptions, packing: BandPacking, links: ExitStack
) -> ParsedFile:
    query = {name.lower() for name, _ in parse_qsl(urlsplit(url).query)}
    url = strip_credentials(url)  # which don't belong into a collection, as a signature doesn't
    if query and not query & SIGNATURES:
        raise IngestError("its URL has a query, by which no object store tells files apart")
    file = open_file(url)
    reader = None if file is None else file[1]
    file_format = _detect(url, reader) if options.parser is None else None
    # What changes from here on until the granule is written has another checksum.
    infos = list(list_files(url)) if file is None else [file[0]]
    source, registry = parsable_url(url, links), store_registry(url)
    made: Manifests | ManifestStore = Manifests()
    if options.parser is not None:
        made = options.parser(source, registry)
    elif file_format is not None:
        made = file_format.parse(source, reader, registry, options.inline_threshold)
    if isinstance(made, ManifestStore):
        registry, made = made._registry, Manifests().add(made._group)
    manifests, renamed = rename_nodes(made)
    omitted = manifests.omitted
    described = [path for path in manifests.arrays if STRUCTURE.fullmatch(path)]
    group = readable_group(manifests, registry) if described else None
    texts: Any = {} if group is None else {path: group[path] for path in described}
    structures = read_structures(manifests.groups[""], texts)
    place_grids(manifests.arrays, structures)
    parsed, attributes = manifest_references(manifests)
    if file_format is TIFF:
        # virtual-tiff, which only TIFFs need, is an extra.
        from l2view.ingest.tiff_images import flatten_images, pack_images

        parsed, attributes = flatten_images(parsed, attributes, alone=bool(asset))
        parsed, packed = pack_images(parsed, packing)
        renamed += packed
    parsed = name_dimensions(parsed, structures)
    # An asset that is an array is one of the granule, of the asset's name.
    is_asset_array = bool(asset) and file_format is ZARR_ARRAY
    attributes = {} if is_asset_array else attributes
    parsed, reasons, notes = make_openable(
        parsed, is_filled=file_format is not None and file_format.is_filled
    )
    omitted |= reasons
    notes += notes_on_scales(parsed) if file_format is HDF4 else []
    parsed = [_quote_locations(array, source, url) for array in parsed]
    targets, unreachable = find_targets(parsed, url, infos)
    arrays = []
    for array in parsed:
        chunks = url if file_format is ZARR_ARRAY else f"{url}/{quote(array.path)}"
        is_zarr_node = file_format in (ZARR, ZARR_ARRAY)
        reason = unfound_chunks(array, chunks, infos) if is_zarr_node else None
        reason = reason or next((unreachable[u] for u in array.files & unreachable.keys()), None)
        reason = reason or range_error(array, targets)
        if reason is not None:
            manifests.drop(array.path)
        if reason is None and array.inlined_bytes > options.inline_threshold:
            size = size_reason(array.inlined_bytes, options.inline_threshold)
            reason = f"it can't be referred to, and {size}"
        if reason is None:
            path = asset if is_asset_array else join(asset, array.path)
            arrays.append(array.at(path))
        else:
            omitted[array.path] = reason
    for other in {root_of(target) for target in targets} - {root_of(url)}:
        registry.register(other, object_store(other))  # from which harvesters read
    references = GranuleReferences(
        tuple(arrays),
        {join(asset, path): value for path, value in attributes.items()},
        {target: info.checksum for target, info in targets.items()},
        {join(asset, path): reason for path, reason in omitted.items()},
    )
    notes = [join(asset, note) for note in notes + renamed]
    return ParsedFile(asset, url, manifests, registry, references, tuple(notes))


def _detect(url: str, reader: ReadableFile | None) -> FileFormat:
    """Return the format of what is at `url`, a file or a Zarr hierarchy."""
    if reader is not None:
        try:
            return detect_format(read_head(reader, HEAD))
        except IngestError:
            if not is_zarr(url):  # a server may answer for a folder with a page
                raise
    elif not is_zarr(url):
        if locate_repository(url) is not None:
            return ICECHUNK
        raise IngestError("there is no such file")
    elif is_kerchunk_parquet(url):
        return KERCHUNK_PARQUET
    return ZARR_ARRAY if is_zarr_array(url) else ZARR


def _quote_locations(array: ArrayReferences, source: str, url: str) -> ArrayReferences:
    """Return an array whose references to the parsed file are its URL, percent-encoded.

    Icechunk wants it so, and the parsers call it `source`.
    """
    if source == url:
        return array
    # The file that a DMR++ is of, too, and what lies below the file.
    stem, key = source.removesuffix(".dmrpp"), key_of(url).removesuffix(".dmrpp")
    locations = [
        f"{root_of(url)}/{quote(key + location[len(stem) :])}"
        if location in (source, stem) or location.startswith(f"{source}/")
        else location
        for location in array.locations
    ]
    return replace(array, locations=locations)


def _row(
    entry: Entry, options: ParseOptions, files: Sequence[ParsedFile]
) -> tuple[dict[str, Any], list[str]]:
    """Return a granule's fields, and notes on them.

    What each source says wins over those before it; the name of a file comes last.
    """
    record, notes = valid_fields(entry.fields)
    harvested, of_files = harvest_files(((file.group, file.url) for file in files), record)
    notes += of_files
    row: dict[str, Any] = {**harvested, **record, "href": entry.source, "id": entry.id}
    # A signed URL would give whoever reads the collection what its signature gives.
    for name, value in row.items():
        if name.startswith("asset_") and isinstance(value, str):
            row[name] = strip_credentials(value)
    if options.collection is not None:
        row["collection"] = options.collection
    as_parsed = row.get("bbox")
    if options.harvest is not None:
        for file in files:
            row.update(
                call_harvester(options.harvest, "harvest= (--harvest)", file.group, file.url)
            )
    row.update({name: v for name, v in options.defaults.items() if row.get(name) is None})
    for name in TIMES:
        row[name] = field_value(name, row.get(name))
    if row["datetime"] is None:
        row["datetime"] = row["start_datetime"]
    if row["datetime"] is None:
        names = [*(file.url for file in files), entry.id]
        spans = [span for name in names if (span := times_in_name(name))[0] is not None]
        if spans:
            start, end = spans[0]
            row["datetime"] = row["start_datetime"] = start
            row["end_datetime"] = row["end_datetime"] or end
            notes.append("its time is that in its file's name")
    if row["datetime"] is None:
        made = (image.attrs.get(DATE_TIME) for file in files for _, image in file.group.groups())
        row["datetime"] = next(filter(None, map(parse_time, made)), None)
        if row["datetime"] is not None:
            notes.append(f"its time is that of {DATE_TIME}, when its file may have been made")
    if not isinstance(row["id"], str) or not row["id"]:
        raise IngestError(f"its id is {row['id']!r}, and not a text")
    if row.get("bbox") is not None and row["bbox"] is not as_parsed:  # it is the caller's
        row["bbox"] = field_value("bbox", row["bbox"])
    return row, notes


def _check_paths(references: GranuleReferences) -> None:
    """Raise an `IngestError` where arrays' names are none of Zarr's, or those of others."""
    paths = [array.path for array in references.arrays]
    for path in [*paths, *references.groups]:
        if not path or resolve(path) != path:
            raise IngestError(f"it has an array or group called {path!r}, which Zarr can't hold")
    unique = set(paths)
    groups = {group for path in unique for group in parents(path)}.union(references.groups)
    if len(unique) != len(paths) or unique & groups:
        names = ", ".join(sorted(unique & groups)) or "some"
        raise IngestError(f"it has arrays called like other arrays or groups: {names}")
