"""Figures of the package's structure and language, each with a limit that it must not exceed.

    python tools/house.py [--names] [PACKAGE]

The limits only go down: whoever improves a figure lowers its limit in the same change. With
``--names`` what counts towards each figure is listed, too. Code is parsed, never imported.
"""

from __future__ import annotations

import argparse
import ast
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

LIMITS = {
    "modules in circles of imports": 0,
    "packages in circles of imports": 0,
    "imports of own modules inside functions": 12,
    "functions with more than 6 parameters, but for the faces": 0,
    "arguments passed as name=name in calls with more than 4 keywords": 30,
    "% of assignments to vague names": 3.0,
    "% of functions called by a participle or a vague word alone": 2.0,
    "% of public module-level names that several modules define": 5.0,
    "lines of the longest function": 100,
}

MAX_PARAMETERS = 6
MAX_KEYWORDS = 4

FACES = {"api.py", "collection.py", "view.py"}
"""Files of public signatures, which say each parameter; so does everything in ``cli/``."""

VAGUE_WORDS = """
again alike among apart asked began beside both each ends first found given gone held here kept
known last left made many near one other own part parts place places rest said several shown some
taken there thing things told used wanted what where which whole
"""
VAGUE = frozenset(VAGUE_WORDS.split())
IRREGULAR_PARTICIPLES = frozenset({"cut", "drawn", "split"})

type Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """A parsed file of the package."""

    name: str
    path: Path
    tree: ast.Module

    def __str__(self) -> str:
        return self.name

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def is_face(self) -> bool:
        return self.path.name in FACES or "cli" in self.path.parts

    def functions(self) -> Iterator[Function]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node

    def at(self, node: ast.expr | ast.stmt) -> str:
        return f"{self.path}:{node.lineno}"


@dataclass(frozen=True)
class Figure:
    """A number, and what counts towards it."""

    value: float
    offenders: list[str]


def parse(folder: Path) -> list[Module]:
    """Parse all files below a package's folder."""
    modules = []
    for path in sorted(folder.rglob("*.py")):
        parts = (folder.name, *path.relative_to(folder).with_suffix("").parts)
        name = ".".join(parts).removesuffix(".__init__")
        modules.append(Module(name, path, ast.parse(path.read_text(encoding="utf-8"))))
    return modules


def own_imports(module: Module, names: set[str]) -> Iterator[tuple[set[str], bool]]:
    """Yield the package's modules that each import names, and whether it is inside a function."""

    def visit(node: ast.AST, in_function: bool) -> Iterator[tuple[set[str], bool]]:
        targets = set[str]()
        if isinstance(node, ast.Import):
            targets = {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            targets = {name if name in names else node.module for name in submodules}
        if targets := targets & names - {module.name}:
            yield targets, in_function
        in_function = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, in_function)

    yield from visit(module.tree, in_function=False)


def in_circles(graph: Mapping[str, set[str]]) -> list[str]:
    """Return the nodes of a graph from which a path leads back to themselves."""

    def reachable(start: str) -> set[str]:
        seen, pending = set[str](), [start]
        while pending:
            new = graph.get(pending.pop(), set()) - seen
            seen |= new
            pending.extend(new)
        return seen

    return sorted(node for node in graph if node in reachable(node))


def package_of(module: str) -> str:
    """Return the package or module right below the top that a module belongs to."""
    return ".".join(module.split(".")[:2])


def import_figures(modules: list[Module]) -> Iterator[Figure]:
    """Yield the circles of modules and packages, and the imports inside functions."""
    names = {module.name for module in modules}
    packages = {module.name for module in modules if module.is_package}
    graph = dict[str, set[str]]()
    package_graph = defaultdict[str, set[str]](set)
    deferred = []
    for module in modules:
        imports = list(own_imports(module, names))
        deferred += [
            f"{module} imports {', '.join(sorted(targets))}"
            for targets, in_function in imports
            if in_function
        ]
        if module.is_package:
            continue  # it names what others define, and nothing comes back through it
        graph[module.name] = set().union(*(targets for targets, _ in imports)) - packages
        package = package_of(module.name)
        package_graph[package] |= {package_of(name) for name in graph[module.name]} - {package}
    for circle in (in_circles(graph), in_circles(package_graph)):
        yield Figure(len(circle), circle)
    yield Figure(len(deferred), deferred)


def long_parameter_lists(modules: list[Module]) -> Figure:
    long = [
        f"{module.at(function)} {function.name}"
        for module in modules
        if not module.is_face
        for function in module.functions()
        if len(parameters(function)) > MAX_PARAMETERS
    ]
    return Figure(len(long), long)


def parameters(function: Function) -> list[str]:
    """Return the names of a function's parameters, but for ``self``, ``*args`` and ``**kwargs``."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [argument.arg for argument in named if argument.arg not in ("self", "cls")]


def repeated_arguments(modules: list[Module]) -> Figure:
    repeated = [
        f"{module.at(keyword.value)} {keyword.arg}"
        for module in modules
        for call in ast.walk(module.tree)
        if isinstance(call, ast.Call) and len(call.keywords) > MAX_KEYWORDS
        for keyword in call.keywords
        if isinstance(keyword.value, ast.Name) and keyword.value.id == keyword.arg
    ]
    return Figure(len(repeated), repeated)


def vague_assignments(modules: list[Module]) -> Figure:
    assigned = [
        (module.at(node), node.id)
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    ]
    vague = [f"{place} {name}" for place, name in assigned if name in VAGUE]
    return Figure(percent(len(vague), len(assigned)), vague)


def participle_functions(modules: list[Module]) -> Figure:
    functions = [
        (module.at(function), function.name.strip("_"))
        for module in modules
        for function in module.functions()
        if not function.name.startswith("__")
    ]
    bare = [f"{place} {name}" for place, name in functions if is_participle(name)]
    return Figure(percent(len(bare), len(functions)), bare)


def is_participle(name: str) -> bool:
    """Return whether a name is one word that says neither what is done nor what comes back."""
    known = VAGUE | IRREGULAR_PARTICIPLES
    return "_" not in name and (name.endswith("ed") or name in known)


def shared_names(modules: list[Module]) -> Figure:
    """Return how many of the public functions and classes have a namesake in another module."""
    counts = Counter(name for module in modules for name in public_names(module))
    shared = {name: count for name, count in counts.items() if count > 1}
    listed = [f"{name} in {count} modules" for name, count in sorted(shared.items())]
    return Figure(percent(sum(shared.values()), counts.total()), listed)


def public_names(module: Module) -> set[str]:
    """Return the public functions and classes that a module defines."""
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    names = {node.name for node in module.tree.body if isinstance(node, definitions)}
    return {name for name in names if not name.startswith("_")}


def longest_function(modules: list[Module]) -> Figure:
    lengths = [
        ((function.end_lineno or function.lineno) - function.lineno + 1, module.at(function))
        for module in modules
        for function in module.functions()
    ]
    longest, place = max(lengths, default=(0, ""))
    return Figure(longest, [place])


def percent(part: int, total: int) -> float:
    return round(100 * part / total, 1) if total else 0.0


def figures(folder: Path) -> dict[str, Figure]:
    """Measure a package; the keys are those of `LIMITS`."""
    modules = parse(folder)
    measured = (
        *import_figures(modules),
        long_parameter_lists(modules),
        repeated_arguments(modules),
        vague_assignments(modules),
        participle_functions(modules),
        shared_names(modules),
        longest_function(modules),
    )
    return dict(zip(LIMITS, measured, strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("package", nargs="?", type=Path, default=Path("l2view"))
    parser.add_argument("--names", action="store_true", help="list what counts towards each figure")
    arguments = parser.parse_args()
    measured = figures(arguments.package)
    for label, figure in measured.items():
        limit = LIMITS[label]
        mark = (
            "exceeds" if figure.value > limit else "is below" if figure.value < limit else "is at"
        )
        print(f"{label:66}{figure.value:>6} {mark} its limit {limit}")
        if arguments.names:
            print(*(f"    {offender}" for offender in figure.offenders), sep="\n")
    return int(any(figure.value > LIMITS[label] for label, figure in measured.items()))


if __name__ == "__main__":
    raise SystemExit(main())
