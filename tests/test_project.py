"""What the repository promises: commands that exist, flags that are documented, one licence, no secrets."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import safeladder
from safeladder import cli
from safeladder.config import Recipe

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tracked_files() -> list[Path]:
    """What is in the repository, or would be with the next commit."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    done = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def code_of(page: Path) -> Iterator[str]:
    """Lines of shell blocks and inline code."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:bash|sh|console)\n(.*?)```", text, re.DOTALL)
    for block in blocks:
        yield from (line.split("  #")[0].strip() for line in block.replace("\\\n", " ").splitlines())
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def commands(program: str) -> list[tuple[str, list[str]]]:
    """(page, words) of every documented call of a program."""
    found = []
    for page in PAGES:
        for line in code_of(page):
            words = shlex.split(line, comments=True) if line.startswith(f"{program} ") else []
            if words:
                found.append((page.name, words[1:]))
    return found


def parser_flags(parser: argparse.ArgumentParser) -> set[str]:
    flags = set()
    for action in parser._actions:
        flags |= {option for option in action.option_strings if option.startswith("--")}
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                flags |= parser_flags(inner)
    return flags


def test_A12_every_documented_flag_exists():
    flags = parser_flags(cli._parser())
    pattern = re.compile(r"(?<![\w-])--([a-z][\w.-]*)")
    calls = commands("safeladder")
    assert len(calls) > 10
    for page, words in calls:
        for name in (m for word in words for m in pattern.findall(word.strip("[]"))):
            known = f"--{name}" in flags or name.split(".")[0] in Recipe.model_fields or name.startswith("any.")
            assert known, f"{page} documents --{name}"


def test_A12_every_flag_is_documented():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    for flag in parser_flags(cli._parser()) - {"--help"}:
        assert flag in text, f"{flag} is not in README or docs"


def test_B04_every_documented_dotted_key_is_a_key():
    """A recipe key that is documented but not read is an advertisement."""
    from safeladder.config import load_recipe

    recipe = str(ROOT / "recipes" / "qwen2.5-vl-7b.yaml")
    for page, words in commands("safeladder"):
        if words[0] != "climb" or "[" in " ".join(words):
            continue
        _, overrides = cli._split_overrides(words)
        named = ROOT / words[1]
        assert load_recipe(named if named.is_file() else recipe, overrides), page


def test_B04_every_algorithm_in_the_docs_is_a_preset():
    from safeladder.algorithms.presets import PRESETS

    for page in PAGES:
        for name in re.findall(r"(?:\bpreset:|algorithm\.preset) ([a-z][a-z+-]+)", page.read_text(encoding="utf-8")):
            assert name in PRESETS, f"{page.name} names the preset {name}"


def test_H03_documented_commands_parse_and_their_files_exist():
    for page, words in commands("safeladder"):
        if "[" in " ".join(words) or words[0].isupper():
            continue
        rest, _ = cli._split_overrides(words) if words[0] == "climb" else (words, {})
        if "--version" in rest or "--help" in rest:
            continue
        options = cli._parser().parse_args(rest)
        recipe = getattr(options, "recipe", None)
        if recipe and recipe.startswith("recipes/"):
            assert (ROOT / recipe).is_file(), f"{page} names {recipe}"


def test_H03_documented_make_targets_and_links_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert targets >= {"venv", "demo", "test", "test-slow", "lint", "bench", "clean"}
    for page, words in commands("make"):
        assert words[0] in targets, f"{page}: make {words[0]}"
    for page in PAGES:
        for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_files_named_by_the_makefile_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for name in re.findall(r"\b(?:recipes|docs|benchmarks)/[\w./-]+\.(?:yaml|py)", makefile):
        assert (ROOT / name).is_file(), name


def test_the_table_of_keys_and_the_schema_are_up_to_date():
    reference = script(ROOT / "docs" / "make_reference.py")
    again = "run: make reference"
    assert reference.SCHEMA.read_text(encoding="utf-8") == reference.schema_text(), again
    page = reference.DOC.read_text(encoding="utf-8")
    assert page == reference.doc_text(page), again
    for section in ("### Rl Rung", "| `micro_batch_tokens` |", "integer > 0"):
        assert section in page


def test_A13_H01_no_secrets_no_machine_paths_no_large_files():
    files = tracked_files()
    assert len(files) > 50
    found = script(ROOT / ".ci" / "check_files.py").problems(files)
    assert [line.replace(f"{ROOT}/", "") for line in found] == []


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("WANDB_API_KEY=" + "'" + "a1" * 20 + "'", "key or password"),
        ("wandb login " + "0f" * 20, "W&B key"),
        ("token: '" + "hf_" + "a" * 34 + "'", "Hugging Face token"),
        ("-----BEGIN RSA PRIVATE" + " KEY-----", "private key"),
        ("model_path = '/" + "mnt/petrel/share/model'", "machine path"),
        ("see /" + "home/someone/x", "machine path"),
        ("host: 10." + "1.2.3", "private address"),
        ("pip install --extra-index" + "-url file:x", "package index"),
    ],
)
def test_A13_the_scan_finds_what_it_is_for(tmp_path: Path, text: str, what: str):
    file = tmp_path / "file.txt"
    file.write_text(f"fine\n{text}\n")
    assert any(line.endswith(f":2: {what}") for line in script(ROOT / ".ci" / "check_files.py").problems([file]))


def test_A13_the_scan_leaves_ordinary_text_alone(tmp_path: Path):
    scan = script(ROOT / ".ci" / "check_files.py").problems
    file = tmp_path / "file.txt"
    file.write_text(
        "runs/demo/report.html\nhttps://example.org/home/page\ntoken = tokenizer.eos_token\n10.5 % of 10.2\n"
    )
    assert scan([file]) == []
    file.write_bytes(b"\x89PNG\xff" * 10)
    assert scan([file]) == []
    file.write_bytes(b"x" * 500_001)
    assert len(scan([file])) == 1


def test_I01_one_licence_everywhere():
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in licence
    assert "Version 2.0, January 2004" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
    assert PYPROJECT["project"]["license"] == "Apache-2.0"
    assert "Apache-2.0" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert importlib.metadata.metadata("safeladder")["License-Expression"] == "Apache-2.0"


def test_one_version_everywhere():
    assert PYPROJECT["project"]["version"] == safeladder.__version__
    assert f"[{safeladder.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_constraints_pin_what_is_installed_and_name_no_path():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert pins["torch"] == "2.13.0"
    for name, version in pins.items():
        assert re.fullmatch(r"[0-9][0-9a-zA-Z.]*", version), f"{name}=={version}"
    groups = PYPROJECT["project"]["optional-dependencies"].values()
    for requirement in [*PYPROJECT["project"]["dependencies"], *(line for group in groups for line in group)]:
        name = re.split(r"[\[<>=]", requirement)[0]
        assert name == "safeladder" or name.lower().replace("-", "_") in {
            pin.lower().replace("-", "_") for pin in pins
        }, f"{name} is not pinned"


def test_H02_no_requirement_is_a_file_or_an_address():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8") + (ROOT / "constraints.txt").read_text(
        encoding="utf-8"
    )
    assert "file:" not in text
    assert " @ " not in text


def test_README_extras_are_the_projects():
    table = re.findall(r"^\| `(\w+)` \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert table == list(PYPROJECT["project"]["optional-dependencies"])


@pytest.mark.slow
def test_H02_the_wheel_builds_and_holds_the_package(tmp_path: Path):
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)], check=True
    )
    (wheel,) = tmp_path.glob("safeladder-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("safeladder/py.typed", "safeladder/cli.py", "safeladder/algorithms/presets.py"):
        assert name in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.startswith(("tests/", "recipes/")) for name in names)
