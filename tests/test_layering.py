"""The structure holds: imports point one way, Ray Data and DeepSpeed keep to one module each, rooms stay small."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = (
    ("vaal",),
    ("engine.errors",),
    ("engine.config",),
    ("engine.storage",),
    ("engine.cluster", "engine.tables"),
    ("engine.pool",),
    ("engine.campaign",),
    ("engine.models", "engine.packing"),
    ("engine.training", "engine.scoring", "engine.datasets"),
    ("engine.selection", "engine.handoff", "engine.report"),
    ("engine.planning", "engine.simulation"),
    ("jobs",),
)
"""A package imports those in the lines above its own: so no two of a line, and no pair both ways."""
SOURCES = sorted(path for top in ("vaal", "engine", "jobs") for path in (ROOT / top).rglob("*.py"))
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60
MAX_VENDOR_LINES = 90
VAAL_MAY_IMPORT = {"torch", "numpy"}


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text())))


def imports(path: Path) -> Iterator[str]:
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield f"{node.module}"


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def package_of(module: str) -> str | None:
    """The package of ORDER that a module is in; None for one that is not ours."""
    packages = [package for line in ORDER for package in line]
    return next((package for package in packages if f"{module}.".startswith(f"{package}.")), None)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    own = package_of(name_of(path).removesuffix(".py").replace("/", "."))
    if own is None:
        assert path == ROOT / "engine/__init__.py"
        return
    below = {package for line in ORDER[: next(n for n, line in enumerate(ORDER) if own in line)] for package in line}
    modules = [module for module in imports(path) if module.split(".")[0] in ("vaal", "engine", "jobs", "tests")]
    assert not [module for module in modules if package_of(module) not in below | {own}]


@pytest.mark.parametrize("path", [p for p in SOURCES if p.is_relative_to(ROOT / "vaal")], ids=name_of)
def test_the_mathematics_knows_nothing_but_torch_and_numpy(path: Path) -> None:
    standard = {"collections", "contextlib", "dataclasses", "functools", "math", "pkgutil", "typing"}
    foreign = {module.split(".")[0] for module in imports(path)} - VAAL_MAY_IMPORT - standard - {"vaal"}
    assert not foreign
    assert not [node for node in nodes_of(path) if isinstance(node, ast.Name) and node.id in {"open", "print"}]


@pytest.mark.parametrize(
    ("fenced", "only"), [("ray.data", "engine/scoring/stream.py"), ("deepspeed", "engine/training/zero.py")]
)
def test_fenced_library_is_touched_in_one_module(fenced: str, only: str) -> None:
    users = set()
    for path in SOURCES:
        attributes = {ast.unparse(n) for n in nodes_of(path) if isinstance(n, ast.Attribute)}
        if any(text == fenced or text.startswith(fenced + ".") for text in [*imports(path), *attributes]):
            users.add(name_of(path))
    assert users == {only}


@pytest.mark.parametrize("path", sorted([*SOURCES, *(ROOT / "tests").rglob("*.py")]), ids=name_of)
def test_rooms_stay_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_FILE_LINES
    functions = [n for n in nodes_of(path) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = [f.name for f in functions if (f.end_lineno or 0) - f.lineno + 1 > MAX_FUNCTION_LINES]
    assert not long


@pytest.mark.parametrize("path", sorted((ROOT / "engine/handoff/vendors").glob("[a-z]*.py")), ids=name_of)
def test_a_vendor_is_a_short_module_of_three_functions(path: Path) -> None:
    """What else it needs is in formats/, which knows no vendor's module."""
    assert len(path.read_text().splitlines()) <= MAX_VENDOR_LINES
    body = ast.parse(path.read_text()).body
    functions = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert {name for name in functions if not name.startswith("_")} == {"write_tasks", "read_answers", "is_mine"}
    assert not [module for module in imports(path) if module.startswith("engine.handoff.vendors")]


@pytest.mark.parametrize("path", sorted((ROOT / "engine/handoff/formats").glob("*.py")), ids=name_of)
def test_parts_of_formats_know_neither_vendors_nor_campaigns(path: Path) -> None:
    own = {module for module in imports(path) if module.startswith("engine.")}
    allowed = ("engine.errors", "engine.tables.", "engine.handoff.exchange", "engine.handoff.formats.")
    assert not [module for module in own if not module.startswith(allowed)]


def test_base_names_are_unique() -> None:
    names = [path.name for path in SOURCES if path.name not in {"__init__.py", "__main__.py"}]
    twice = {name for name in names if names.count(name) > 1}
    # A page of the command line is named after the engine's module that it opens.
    assert twice <= {path.name for path in (ROOT / "jobs").glob("*.py")}


NEED_NO_TORCH = ("jobs.cli", "jobs.status", "engine.scoring.score", "engine.selection.select", "engine.handoff.ingest")


@pytest.mark.heavy
@pytest.mark.parametrize("module", NEED_NO_TORCH)
def test_what_needs_no_network_loads_no_torch(module: str) -> None:
    """Torch takes two seconds and 300 MB."""
    loaded = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], cwd=ROOT, check=False).returncode == 0
