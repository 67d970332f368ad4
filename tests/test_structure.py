"""The plan of the house: imports go down, each room knows only its libraries, files and functions stay small."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.conftest import ROOT

# From the ground up. A module imports from rooms below its own and from its own room, and from nothing else here.
FLOORS = (
    ("errors", "option", "positions", "snippet", "stop_strings"),
    ("variable", "answer_forms"),
    ("config",),
    ("strategies", "shaping_settings"),
    ("settings",),
    ("messages",),
    ("events",),
    ("models",),
    ("generation",),
    ("engines",),
    ("serving",),
    ("api",),
    ("ui",),
)
HEIGHT = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
DATA = ("budgie", "")  # files beside the rooms: the bundled weights, and the package itself
# Where a library may be imported.
LIBRARIES = {
    "gradio": {"api", "ui"},
    "spaces": {"serving"},
    "openvino": {"engines"},
    "torch": {"strategies", "models", "generation", "engines", "serving"},
}
MAX_LINES, MAX_FUNCTION_LINES, MAX_MODULES = 350, 60, 12
PACKAGE = sorted((ROOT / "parley").rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """The dotted names that a file imports, anywhere in it."""
    yield from names(ast.walk(ast.parse(path.read_text())))


def names(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """The dotted names that these nodes import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(path: Path) -> str:
    return path.relative_to(ROOT / "parley").with_suffix("").parts[0].replace("__init__", "")


def test_every_import_goes_down():
    arrows = [(path, name.split(".")) for path in PACKAGE if room(path) not in DATA for name in imported(path)]
    inside = [(path, name[1]) for path, name in arrows if name[0] == "parley" and len(name) > 1]
    assert len(inside) > 100
    up = [
        (str(path.relative_to(ROOT)), other)
        for path, other in inside
        if other not in DATA and other != room(path) and HEIGHT[other] >= HEIGHT[room(path)]
    ]
    assert up == []
    assert [name for path, name in arrows if name[0] in ("tests", "tools", "training", "benchmarks", "app")] == []


def test_each_room_knows_only_its_libraries():
    known = [(path, name.split(".")[0]) for path in PACKAGE for name in imported(path)]
    wrong = [(str(path), lib) for path, lib in known if lib in LIBRARIES and room(path) not in LIBRARIES[lib]]
    assert wrong == []


def test_the_page_is_imported_without_torch():
    heavy = "print([name for name in ('torch', 'transformers', 'openvino') if name in sys.modules])"
    run = [sys.executable, "-c", f"import sys, parley.ui.page; {heavy}"]
    assert subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_no_test_imports_the_app_while_it_is_collected():
    """The page would be made before a fixture sets its models, for all tests of the process."""
    at_once = {path: set(names(ast.parse(path.read_text()).body)) for path in (ROOT / "tests").rglob("*.py")}
    assert [str(path) for path, found in at_once.items() if any(name.split(".")[0] == "app" for name in found)] == []


def test_folders_files_and_functions_can_be_held_in_mind():
    sizes = {path: len(path.read_text().splitlines()) for path in PACKAGE}
    assert {str(path): lines for path, lines in sizes.items() if lines > MAX_LINES} == {}
    functions = [
        (str(path), node.name)
        for path in PACKAGE
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno >= MAX_FUNCTION_LINES
    ]
    assert functions == []
    counts = Counter(str(path.parent) for path in PACKAGE if path.name != "__init__.py")
    assert {folder: count for folder, count in counts.items() if count > MAX_MODULES} == {}
