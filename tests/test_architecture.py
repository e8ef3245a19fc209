"""The house rules, read from the code: who may import whom, how long a module may be, what may not be called."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
MODULES = sorted((PROJECT / "studio").rglob("*.py")) + [PROJECT / "app.py"]
HEAVY = {"torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "accelerate"}
WEB = {"gradio", "gradio_client", "plotly", "pandas"}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in the file it does."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def roots(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def place(path: Path) -> str:
    """flat, ui, engine or top. What the preferences are made of is flat as well: both sides import it."""
    parts = path.relative_to(PROJECT).parts
    return "top" if parts[0] != "studio" else parts[1] if len(parts) > 2 and parts[1] != "preferences" else "flat"


def is_a_preference(path: Path) -> bool:
    return "preferences" in path.relative_to(PROJECT).parts


def modules(where: str) -> list[Path]:
    return [path for path in MODULES if place(path) == where]


@pytest.mark.parametrize("path", modules("flat"), ids=lambda path: path.name)
def test_a_flat_module_imports_neither_folder_nor_torch_nor_gradio(path):
    assert not roots(path) & (HEAVY | WEB)
    assert not any(name.startswith(("studio.ui", "studio.engine")) for name in imports(path))


@pytest.mark.parametrize("path", filter(is_a_preference, MODULES), ids=lambda path: path.name)
def test_what_preferences_are_made_of_knows_nothing_of_runs_or_jobs(path):
    ours = {name for name in imports(path) if name.startswith("studio.")}
    assert all(name.startswith(("studio.preferences", "studio.errors")) for name in ours)


@pytest.mark.parametrize("path", modules("engine"), ids=lambda path: path.name)
def test_the_engine_does_not_know_the_page(path):
    assert not roots(path) & WEB
    assert not any(name.startswith("studio.ui") for name in imports(path))


@pytest.mark.parametrize("path", modules("ui") + modules("top"), ids=lambda path: path.name)
def test_the_page_does_not_import_the_engine(path):
    assert not roots(path) & HEAVY
    assert not any(name.startswith("studio.engine") for name in imports(path))


def test_the_reference_trainer_is_imported_in_one_file_only_and_not_by_the_studio():
    assert not [path for path in MODULES if "trl" in roots(path)]
    assert [path.name for path in (PROJECT / "tests").rglob("*.py") if "trl" in roots(path)] == ["reference.py"]


def test_tabs_do_not_import_each_other():
    tabs = {path.stem for path in modules("ui") if path.stem.endswith("_tab")}
    for path in modules("ui"):
        if path.stem in tabs:
            assert not {name.rsplit(".", 1)[-1] for name in imports(path)} & (tabs - {path.stem})


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_a_module_is_short_and_says_what_it_gives(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    assert ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_no_function_is_longer_than_a_screen(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        # A tab's build() holds its components and its nested wiring; everything else stays short.
        if isinstance(node, ast.FunctionDef) and node.name != "build":
            assert node.end_lineno - node.lineno < 50, f"{path.name}: {node.name}"


def test_no_module_is_named_for_what_nobody_could_place():
    assert not {path.stem for path in MODULES} & {"utils", "common", "core", "helpers", "manager", "base"}


def test_the_page_is_built_without_importing_torch(tmp_path):
    program = ("import sys, pathlib; from studio.jobs import Queue; from studio.ui.page import build; "
               "from studio.ui.studio import Studio; root = pathlib.Path(sys.argv[1]); build(Studio(root, Queue(root))); "
               "print(sorted(set(sys.argv[2].split()) & set(sys.modules)))")
    built = subprocess.run([sys.executable, "-c", program, str(tmp_path), " ".join(HEAVY)], cwd=PROJECT,
                           capture_output=True, text=True, check=True)
    assert built.stdout.strip().splitlines()[-1] == "[]"
