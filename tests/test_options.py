"""The options of the faces reach the values that are made of them, each under its own name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import shapely
import typer
from builders import write_collection
from zarr.storage import MemoryStore

import l2view
from l2view import api
from l2view import collection as collection_module
from l2view.cli import options
from l2view.search.query import Query, as_query
from l2view.stores.open import SourceOptions
from l2view.virtual.search import CollectionSearch

QUERY = [field.name for field in fields(Query)]
SOURCE = [field.name for field in fields(SourceOptions)]


class CapturedError(Exception):
    """Carries the options that were passed."""


def capture(names: list[str]) -> Callable[..., Any]:
    def take(*values: Any) -> Any:
        raise CapturedError(dict(zip(names, values, strict=False)))

    return take


def captured(function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """Call a function with the name of each of its options as the option's value."""
    named = {
        name: name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    with pytest.raises(CapturedError) as error:
        function(*arguments, **named)
    return error.value.args[0]


@pytest.mark.parametrize("name", ["open", "search"])
def test_functions_of_the_package_make_queries(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "SourceOptions", lambda *_: None)
    monkeypatch.setattr(api, "as_query", capture(QUERY))
    found = captured(getattr(api, name), "store", "where")
    assert found == {option: option for option in QUERY[:8]}


@pytest.mark.parametrize(("name", "arguments"), [("open", ()), ("search", ()), ("sql", ("q",))])
def test_functions_of_the_package_open_stores(
    name: str, arguments: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "SourceOptions", capture(SOURCE))
    found = captured(getattr(api, name), "store", *arguments)
    assert found == {option: option for option in SOURCE}


@pytest.mark.parametrize("name", ["open", "search", "explain", "delete"])
def test_methods_of_collections_make_queries(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    write_collection(store)
    collection = l2view.Collection(store)
    monkeypatch.setattr(collection_module, "as_query", capture(QUERY))
    monkeypatch.setattr(collection_module, "JoinOptions", type("J", (), {"of": lambda *_: None}))
    monkeypatch.setattr(CollectionSearch, "select_fields", lambda self, names: [])
    found = captured(getattr(collection, name), "where")
    assert found == {option: option for option in QUERY[:8]}


@pytest.mark.parametrize("record", [None, [], "a"])
def test_a_recorded_query_is_a_mapping(record: Any) -> None:
    with pytest.raises(l2view.QueryError, match="a recorded query is a mapping, not"):
        Query.from_json(record)


def test_a_query_is_passed_alone() -> None:
    query = Query("id = 'a'", limit=1)
    assert as_query(query, None, None) is query
    with pytest.raises(l2view.QueryError, match="pass it alone"):
        as_query(query, {"a": 1})
    store = MemoryStore()
    write_collection(store)
    collection = l2view.Collection(store)
    asked = Query("orbit > $n", {"n": 2}, bbox=(-180, -90, 180, 90), order_by="id DESC", limit=4)
    found = collection.search(asked, fields=["id"])
    assert found == collection.search(
        "orbit > $n",
        params={"n": 2},
        bbox=(-180, -90, 180, 90),
        order_by="id DESC",
        limit=4,
        fields=["id"],
    )
    view = l2view.open(store, asked)
    again = Query.from_json(view.attrs["l2view"]["query"])
    assert l2view.search(store, again, fields=["id"]) == found


def test_options_of_the_command_line_are_those_of_the_library() -> None:
    given = {name: name for name in SOURCE} | {"authorize": ["authorize"]}
    source = options.StoreOptions("store", **given).source
    with pytest.raises(l2view.StoreError, match="pass one of branch, tag and snapshot"):
        source()
    del given["tag"], given["snapshot"]
    assert options.StoreOptions("store", **given).source() == SourceOptions(**given)
    search = options.SearchOptions(
        "where", ["a=1"], "1,2,3,4", "POINT (1 2)", "2025", ["x"], "orbit", 3
    )
    query = search.query()
    assert query == Query(
        where="where",
        params={"a": 1},
        bbox=(1, 2, 3, 4),
        intersects="POINT (1 2)",
        datetime="2025",
        ids=["x"],
        order_by="orbit",
        limit=3,
    )


@pytest.mark.parametrize("command", ["info", "search", "tree", "verify", "delete", "mosaic"])
def test_every_command_takes_the_same_options(command: str) -> None:
    from l2view.cli import load_command

    flags = {flag for parameter in load_command(command).params for flag in parameter.opts}
    for option in [*SOURCE, "where", "param", "bbox", "intersects", "datetime", "id", "order_by"]:
        assert f"--{option.replace('_', '-')}" in flags


def test_options_that_cannot_be_parsed() -> None:
    with pytest.raises(typer.BadParameter, match="is not NAME=VALUE"):
        options.parse_assignments(["a"])
    with pytest.raises(typer.BadParameter, match="is not W,S,E,N"):
        options.parse_numbers("a,b", "--bbox", "W,S,E,N in degrees")


def test_queries_are_compared_by_what_they_ask() -> None:
    query = Query("idx IN $rows", {"rows": np.arange(3)}, intersects="POINT (1 2)")
    same = Query("idx IN $rows", {"rows": [0, 1, 2]}, intersects=shapely.Point(1, 2))
    assert query == same
    assert len({query, same, Query("idx IN $rows", {"rows": np.arange(4)})}) == 2
    assert query != "idx IN $rows"


def test_bounds_that_are_none() -> None:
    with pytest.raises(typer.BadParameter, match="is not .west, south, east, north"):
        options.SearchOptions(bbox="1,2").query()


def test_only_public_names_are_listed() -> None:
    assert set(dir(l2view)) == {*l2view.__all__, "__version__"}
