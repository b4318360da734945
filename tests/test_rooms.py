"""The floor plan: imports between rooms go down, none goes round, and what is slow to import is imported late.

Messages keep to it too: flags of the command are named in its room alone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
import functools
import graphlib
import re

import pytest

from tests.support.competition import REPOSITORY

PACKAGE = "landmark_triplets_tfds"

_BOTTOM = {"errors"}
_COMPETITION = {"common", *_BOTTOM}
_TRIPLETS = {"competition", *_COMPETITION}
_BUILD = {"triplets", "thumbnails", *_TRIPLETS}
_TRAINING = {"triplets", *_TRIPLETS}
_DATASETS = {"build", "training", *_BUILD}

# Which rooms (folders, and modules at the top) each room may import, beside itself.
BELOW = {
    "errors": set(),
    "common": _BOTTOM,
    "competition": _COMPETITION,
    "triplets": _TRIPLETS,
    "thumbnails": _TRIPLETS,
    "build": _BUILD,
    "training": _TRAINING,
    "mining": {"training", *_TRAINING},
    "landmark_triplets": _DATASETS,
    "landmark_images": _DATASETS,
    "__init__": {"landmark_triplets", "landmark_images", "mining", *_DATASETS},
    "commands": {"landmark_triplets", "landmark_images", "mining", *_DATASETS},
    "__main__": {"commands"},
}
SLOW = {"tensorflow", "pandas", "apache_beam", "pyarrow", "faiss", "array_record", "matplotlib"}


@functools.cache
def modules() -> dict[str, ast.Module]:
    """The parsed modules by name, such as ``competition.tables``; a package is named ``competition.__init__``."""
    root = REPOSITORY / PACKAGE
    return {
        ".".join(path.relative_to(root).with_suffix("").parts): ast.parse(path.read_text())
        for path in sorted(root.rglob("*.py"))
    }


def room_of(module: str) -> str:
    return module.partition(".")[0]


def imported(tree: ast.AST) -> Iterator[str]:
    """The full names in all import statements, at the top or within functions; ``from a import b`` gives ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(module: str) -> set[str]:
    """Which modules of the package a module imports anywhere."""
    found = set()
    for name in imported(modules()[module]):
        if not name.startswith(f"{PACKAGE}."):
            continue
        inner = name.removeprefix(f"{PACKAGE}.")
        while inner and inner not in modules() and f"{inner}.__init__" not in modules():
            inner = inner.rpartition(".")[0]
        found.add(inner if inner in modules() else f"{inner}.__init__".lstrip("."))
    return found - {module}


@pytest.mark.parametrize("module", modules())
def test_imports_go_down(module: str) -> None:
    room = room_of(module)
    assert {room_of(other) for other in own_imports(module)} - {room} <= BELOW[room]


def test_no_import_goes_round() -> None:
    graph = {module: own_imports(module) - {"__init__"} for module in modules() if module != "__init__"}
    assert list(graphlib.TopologicalSorter(graph).static_order())


def at_the_top(tree: ast.Module) -> set[str]:
    """The packages that are imported when the module is."""
    statements = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return {name.partition(".")[0] for node in statements for name in imported(node)}


@pytest.mark.parametrize("module", [module for module in modules() if room_of(module) != "commands"])
def test_slow_packages_are_imported_late(module: str) -> None:
    allowed = {"apache_beam"} if module == "build.beam_pipeline" else set()
    assert at_the_top(modules()[module]) & SLOW <= allowed


def test_only_the_pipeline_knows_beam() -> None:
    users = {module for module, tree in modules().items() for name in imported(tree) if name.startswith("apache_beam")}
    assert users == {"build.beam_pipeline"}


@pytest.mark.parametrize("room", ["competition", "triplets", "thumbnails"])
def test_what_needs_no_tfds_imports_none(room: str) -> None:
    for module, tree in modules().items():
        if room_of(module) == room:
            assert not [name for name in imported(tree) if name.startswith("tensorflow_datasets")], module


def flags_in(module: str) -> set[str]:
    """The command-line flags in the texts of a module; docstrings, which are for readers of the code, left out."""
    tree = modules()[module]
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    literals = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return {flag for node in literals if id(node) not in docstrings for flag in re.findall(r"--\w+", node.value)}


@pytest.mark.parametrize("module", [module for module in modules() if room_of(module) != "commands"])
def test_only_commands_know_their_flags(module: str) -> None:
    """What they share with `tfds build`, such as --manual_dir, belongs to that."""
    of_tfds = {"--manual_dir", "--data_dir", "--config"}
    assert not flags_in(module) & (flags_in("commands.cli") - of_tfds)


def test_every_room_has_a_rule() -> None:
    assert {room_of(module) for module in modules()} == set(BELOW)


@pytest.mark.parametrize("module", modules())
def test_every_module_has_its_tests(module: str) -> None:
    """In tests/<room>/test_<module>.py; what is at the top of the package in tests/test_<module>.py."""
    *rooms, name = module.split(".")
    if name in ("__init__", "__main__"):
        return
    assert REPOSITORY.joinpath("tests", *rooms, f"test_{name}.py").exists()
