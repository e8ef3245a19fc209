"""What a Space, a container and a newcomer read: the README's header and tree, the Dockerfile, the pins."""

import re
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).resolve().parent.parent
README = (PROJECT / "README.md").read_text(encoding="utf-8")
PINS = dict(re.findall(r"^([\w-]+)==([\w.]+)$", (PROJECT / "requirements.txt").read_text(encoding="utf-8"), re.M))


def instructions() -> list[tuple[str, str]]:
    text = (PROJECT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip() and not line.startswith("#")]


def test_the_readme_begins_with_a_space_header_that_starts_the_studio():
    header = yaml.safe_load(README.split("---\n")[1])
    assert header["sdk"] == "gradio" and header["app_file"] == "app.py" and (PROJECT / header["app_file"]).is_file()
    assert header["sdk_version"] == PINS["gradio"]
    assert header["python_version"] == "3.12"
    assert header["suggested_hardware"] in {"t4-small", "t4-medium", "l4x1", "l40sx1", "a10g-small", "a10g-large", "a100-large"}
    assert header["license"] == "apache-2.0" and len(header["short_description"]) <= 60
    assert header["colorFrom"] in (colours := {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"})
    assert header["colorTo"] in colours


def test_the_readme_has_its_picture():
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (PROJECT / path).is_file(), path


def test_every_module_is_in_the_readmes_tree_and_every_name_there_exists():
    tree = README.split("```text\n")[1].split("```")[0]
    named = set(re.findall(r"\b([\w]+\.py)\b", tree))
    there = {path.name for path in (PROJECT / "studio").rglob("*.py") if path.name != "__init__.py"} | {"app.py"}
    assert named == there


def test_the_commands_of_the_readme_are_targets():
    targets = set(re.findall(r"^(\w+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert set(re.findall(r"`?make (\w+)`?", README)) - {"it"} <= targets


def test_every_requirement_is_pinned_to_one_version():
    lines = [line for line in (PROJECT / "requirements.txt").read_text(encoding="utf-8").splitlines()
             if line and not line.startswith("#")]
    assert len(lines) == len(PINS)
    assert {"gradio", "torch", "transformers", "datasets", "peft", "bitsandbytes", "accelerate", "plotly",
            "huggingface_hub"} <= set(PINS)


def test_the_container_runs_as_user_1000_on_port_7860():
    told = instructions()
    assert told[0][0] == "FROM" and re.fullmatch(r"python:3\.12(-slim)?", told[0][1])
    assert any(name == "RUN" and "--uid 1000" in text for name, text in told)
    assert ("USER", "user") in told and ("EXPOSE", "7860") in told
    environment = " ".join(text for name, text in told if name == "ENV")
    assert "GRADIO_SERVER_NAME=0.0.0.0" in environment and "GRADIO_SERVER_PORT=7860" in environment
    assert told[-1] == ("CMD", '["python", "app.py"]')


def test_the_container_installs_before_it_copies_so_that_a_change_does_not_install_anew():
    names = [f"{name} {text}" for name, text in instructions()]
    assert next(i for i, line in enumerate(names) if "pip install" in line) < next(
        i for i, line in enumerate(names) if line.endswith("user . ."))


@pytest.mark.parametrize("word", ["token", "secret", "password", "hf_"])
def test_no_secret_is_in_a_layer(word):
    for name, text in instructions():
        assert name not in ("ARG", "ENV", "RUN") or word not in text.lower()


def test_what_the_container_copies_leaves_out_runs_and_the_environment():
    ignored = (PROJECT / ".dockerignore").read_text(encoding="utf-8").split()
    assert {".git", ".venv", "runs"} <= set(ignored)
