"""The rooms: imports point one way, files stay short, optional packages stay out."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "safeladder"
FILES = sorted(SOURCE.rglob("*.py"))

# Imports go from a later line to an earlier one, never back; within a line only as the pairs below.
ORDER = (
    ("types", "arguments", "atomic", "kernels"),
    ("algorithms", "config", "recipe_file"),
    ("data", "world", "models", "search"),
    ("rollout", "verifiers"),
    ("training", "steering", "evaluation", "analysis"),
    ("cluster",),
    ("ladder", "serving"),
    ("doctor",),
    ("cli", "__main__"),
)
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
NEIGHBOURS = {
    ("kernels", "atomic"): "a compiled library is written like any other file",
    ("config", "recipe_file"): "the recipe is read from a file",
    ("__main__", "cli"): "another name for the command",
    ("verifiers", "rollout"): "a generative judge answers through the in-process engine",
}
# Packages that only some files may import, and where.
OPTIONAL = {
    "inspect_ai": ("evaluation/",),
    "ray": ("cluster/",),
    "vllm": ("rollout/vllm",),
    "peft": ("models/lora.py",),
    "math_verify": ("verifiers/",),
    "sklearn": ("world/",),
    "matplotlib": ("analysis/", "world/show.py"),
    "deepspeed": (),
    "sglang": (),
    "trl": (),
    "verl": (),
    "flash_attn": (),
}
PLUGINS = (
    "evaluation/_registry.py",
    "evaluation/endpoint.py",
    "evaluation/inspect_log.py",
    "evaluation/provider.py",
    "evaluation/scorers.py",
)
"""Nothing but uses of inspect_ai's classes: imported late, they import it at the top."""
NO_TORCH = {"types", "arguments", "atomic", "config", "recipe_file", "cli", "doctor"}
LONG_FILES: dict[str, str] = {
    "serving/api.py": "the JSON of the server, declarations only, in one place as a client needs it",
}
"""File -> why it may exceed the limit."""


def name_of(file: Path) -> str:
    return file.relative_to(SOURCE).as_posix()


def module_of(file: Path) -> str:
    return ".".join(["safeladder", *Path(name_of(file)).with_suffix("").parts]).removesuffix(".__init__")


def room_of(file: Path) -> str:
    return Path(name_of(file)).parts[0].removesuffix(".py")


def imports(file: Path, *, top_level_only: bool = False) -> Iterator[str]:
    """Dotted names that a file imports, inside functions too; what only type checkers see is left out."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            skipped.update(inner for statement in node.body for inner in ast.walk(statement))
        if top_level_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            skipped.update(inner for statement in node.body for inner in ast.walk(statement))
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(file)}: relative import"
            assert node.module is not None
            if node.module == "safeladder":
                yield from (f"safeladder.{alias.name}" for alias in node.names)
            else:
                yield node.module


def wrong_way(source: str, target: str) -> bool:
    if source == target or target == "__version__":
        return False
    if LEVEL[source] == LEVEL[target]:
        return (source, target) not in NEIGHBOURS
    return LEVEL[source] < LEVEL[target]


def test_the_rule_itself():
    assert wrong_way("types", "config")
    assert wrong_way("algorithms", "training")
    assert wrong_way("world", "verifiers")
    assert wrong_way("training", "evaluation")
    assert not wrong_way("ladder", "training")
    assert not wrong_way("config", "recipe_file")


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_point_one_way(file: Path):
    room = room_of(file)
    if room == "__init__":
        assert list(imports(file)) == ["__future__"]
        return
    assert room in LEVEL, f"{name_of(file)} is in no room; rooms: {', '.join(LEVEL)}"
    targets = [name.split(".")[1] for name in imports(file) if name.startswith("safeladder.")]
    wrong = sorted({t for t in targets if wrong_way(room, t)})
    assert wrong == [], f"{name_of(file)} imports {wrong}"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_B17_optional_packages_stay_where_they_belong(file: Path):
    for name in imports(file):
        places = OPTIONAL.get(name.split(".")[0])
        if places is not None:
            assert name_of(file).startswith(places or "nowhere"), f"{name_of(file)} imports {name}"


@pytest.mark.parametrize("file", [f for f in FILES if name_of(f) not in PLUGINS], ids=name_of)
def test_B17_optional_packages_are_imported_late(file: Path):
    """Inside a function, so that every module but the plug-ins can be imported on a bare CPU installation."""
    names = list(imports(file, top_level_only=True))
    assert {name.split(".")[0] for name in names} & OPTIONAL.keys() == set()
    assert set(names) & {module_of(SOURCE / plugin) for plugin in PLUGINS} == set()


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_files_can_be_held_in_mind(file: Path):
    limit = 150 if room_of(file) == "algorithms" else 400
    lines = len(file.read_text(encoding="utf-8").splitlines())
    assert lines <= limit or name_of(file) in LONG_FILES, f"{name_of(file)} has {lines} lines, limit {limit}"


def test_the_list_of_long_files_is_not_stale():
    for name in LONG_FILES:
        assert len((SOURCE / name).read_text(encoding="utf-8").splitlines()) > 150, f"{name} is short now"


@pytest.mark.parametrize("file", [f for f in FILES if room_of(f) in NO_TORCH], ids=name_of)
def test_light_modules_do_not_import_torch_at_the_top(file: Path):
    assert "torch" not in {name.split(".")[0] for name in imports(file, top_level_only=True)}


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_every_module_can_be_imported(file: Path):
    importlib.import_module(module_of(file))


def test_B17_the_package_imports_without_optional_packages():
    """Every module but the plug-ins, in a fresh process where importing an optional package fails."""
    modules = [module_of(f) for f in FILES if name_of(f) not in PLUGINS]
    code = f"""
import importlib, sys
for name in {sorted(OPTIONAL)!r}:
    sys.modules[name] = None
for module in {modules!r}:
    importlib.import_module(module)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-600:]
