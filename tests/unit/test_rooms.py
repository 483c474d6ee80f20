"""The order of rooms in ARCHITECTURE.md is what the imports say."""

import ast
import graphlib
import itertools
import re

from tests_config import ROOT

PACKAGE = ROOT / "spare_jax"
FILES = {file.relative_to(PACKAGE).as_posix(): file for file in PACKAGE.rglob("*.py")}
TREES = {name: ast.parse(file.read_text(encoding="utf-8")) for name, file in FILES.items()}

NAMED_TUPLE = {"_replace", "_asdict", "_fields"}

# Imports that break the law today, as (importer, imported). The list may only shrink.
BREACHES: set[tuple[str, str]] = set()


def rooms() -> list[str]:
    """Files and folders of the package in the order of the table, whose first column names them."""
    table = (PACKAGE.parent / "ARCHITECTURE.md").read_text(encoding="utf-8").split("| room |")[1].split("\n\n")[0]
    named = itertools.chain.from_iterable(re.findall(r"`([^`]+)`", row.split("|")[1]) for row in table.split("\n")[2:])
    return [room for room in named if (PACKAGE / room).exists()]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name not in NAMED_TUPLE


def room_of(name: str) -> str:
    return f"{name.partition('/')[0]}/" if "/" in name else name


def imported(tree: ast.AST) -> set[str]:
    """The files of the package that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports name their room"
            names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    paths = {name.removeprefix("spare_jax.").replace(".", "/") for name in names if name.startswith("spare_jax.")}
    return {file for path in paths for file in (f"{path}.py", f"{path}/__init__.py") if file in FILES}


IMPORTS = {name: imported(tree) for name, tree in TREES.items()}


def reaches(start: str, goal: str) -> bool:
    seen, left = set(), [start]
    while left:
        seen.add(name := left.pop())
        left += IMPORTS[name] - seen
    return goal in seen


def test_every_file_is_in_a_room():
    assert {room_of(name) for name in FILES} - {"__init__.py"} == set(rooms())


def test_imports_run_to_rooms_above():
    place = {room: i for i, room in enumerate(rooms())}
    arrows = {(name, other) for name, others in IMPORTS.items() for other in others}
    climbing = {(a, b) for a, b in arrows if place[room_of(a)] < place[room_of(b)]}
    in_circles = {(a, b) for a, b in BREACHES & arrows if reaches(b, a)}
    assert climbing | in_circles == BREACHES


def test_no_file_is_in_a_circle():
    left = {name: {other for other in others if (name, other) not in BREACHES} for name, others in IMPORTS.items()}
    graphlib.TopologicalSorter(left).prepare()


def test_private_names_of_engines_are_used_by_engines_alone():
    nodes = {name: [*ast.walk(tree)] for name, tree in TREES.items()}
    engines = [node for name in nodes if name.startswith("engines/") for node in nodes[name]]
    private = {n.name for n in engines if isinstance(n, ast.FunctionDef | ast.ClassDef) and is_private(n.name)}
    private |= {n.attr for n in engines if isinstance(n, ast.Attribute) and is_private(n.attr)}
    used = {
        (name, node.attr)
        for name in nodes
        if not name.startswith("engines/")
        for node in nodes[name]
        if isinstance(node, ast.Attribute) and node.attr in private and ast.unparse(node.value) not in ("self", "cls")
    }
    used |= {
        (name, alias.name)
        for name in nodes
        for node in nodes[name]
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("spare_jax.engines")
        for alias in node.names
        if is_private(alias.name)
    }
    assert not used
