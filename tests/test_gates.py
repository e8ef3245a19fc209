"""What may not stand in the code at all, read from the code. Each gate is shown to close on a line that it must not let pass."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import faults

PROJECT = Path(__file__).resolve().parent.parent
MODULES = sorted((PROJECT / "studio").rglob("*.py")) + [PROJECT / "app.py"]

RUNNING_CODE = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput",
                "torch.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "runpy.run_path", "tempfile.mktemp"}
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "jsonpickle"}
CLIENTS = {"requests", "httpx", "aiohttp", "urllib.request", "urllib3", "http.client", "ftplib", "telnetlib"}
THE_ONE_WAY = "remote_code.is_allowed(code, consent)"
"""Where a model's own code may be run after all: its files are those that a person was shown and has allowed."""
NEVER_TRUE = {"shell", "trust_remote_code", "share", "allow_pickle", "allowed_paths", "weights_only"}


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every call with the name that is called, such as os.system."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def keywords(call: ast.Call) -> dict[str, str]:
    return {keyword.arg or "**": ast.unparse(keyword.value) for keyword in call.keywords}


def texts_run_as_code(tree: ast.AST) -> Iterator[str]:
    yield from (name for name, call in calls(tree) if name in RUNNING_CODE and keywords(call).get("Loader") != "yaml.BaseLoader")


def pickles(tree: ast.AST) -> Iterator[str]:
    yield from (name for name in imported(tree) if name.split(".")[0] in PICKLES)


def clients_of_our_own(tree: ast.AST) -> Iterator[str]:
    """Whoever asks the Hub's client asks the Hub; with another one an address could come from anywhere."""
    yield from (name for name in imported(tree) if name in CLIENTS or name.split(".")[0] in CLIENTS)
    for name, call in calls(tree):
        if name.startswith("get_session()") and not ast.unparse(call.args[0]).startswith("f'{constants.ENDPOINT}"):
            yield name


def switches_that_stay_off(tree: ast.AST) -> Iterator[str]:
    for name, call in calls(tree):
        for word, value in keywords(call).items():
            if word in NEVER_TRUE and value not in ("False", "None", THE_ONE_WAY):
                yield f"{name}({word}={value})"


def code_of_a_repository(tree: ast.AST) -> Iterator[str]:
    """What transformers loads by itself is told each time that it may run nothing; left to itself it would ask on standard input."""
    for name, call in calls(tree):
        loads = name.endswith((".from_pretrained", ".from_config")) and name.split(".")[0].startswith("Auto")
        if loads and keywords(call).get("trust_remote_code") not in ("False", THE_ONE_WAY):
            yield name


def addresses_of_everybody(tree: ast.AST) -> Iterator[str]:
    """0.0.0.0 may be compared with, or stand behind a condition; it is nobody's default."""
    guarded = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.Compare | ast.IfExp) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in ("0.0.0.0", "::") and id(node) not in guarded:
            yield node.value


def texts_without_an_encoding(tree: ast.AST) -> Iterator[str]:
    for name, call in calls(tree):
        given, positional = keywords(call), [ast.unparse(value) for value in call.args]
        if "encoding" in given:
            continue
        if name in ("open", "os.fdopen") or name.endswith(".open") and name.split(".")[0] not in ("os", "self"):
            mode = given.get("mode", positional[1] if name in ("open", "os.fdopen") and len(positional) > 1 else "'r'")
            if mode.startswith("'") and "b" not in mode and (name in ("open", "os.fdopen") or positional):
                yield ast.unparse(call)
        elif name.endswith(".read_text") or name.endswith(".write_text") or given.get("text") == "True":
            yield ast.unparse(call)


def paths_compared_as_texts(tree: ast.AST) -> Iterator[str]:
    """/runs/../x begins with /runs: what lies below a folder is asked of the resolved path."""
    for name, call in calls(tree):
        prefixes = [ast.unparse(arg) for arg in call.args] if name.endswith(".startswith") else []
        if any(prefix.startswith("str(") or "sep" in prefix or name.startswith("str(") and prefix.startswith("'/") for prefix in prefixes):
            yield ast.unparse(call)


def errors_of_any_kind(tree: ast.AST) -> Iterator[str]:
    yield from ("except:" for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.type is None)


def processes_with_all_secrets(tree: ast.AST) -> Iterator[str]:
    """What the page starts gets an environment that was gone through."""
    for name, call in calls(tree):
        if name in ("subprocess.run", "subprocess.Popen") and "sys.executable" in ast.unparse(call) and "env" not in keywords(call):
            yield ast.unparse(call)


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


GATES: dict[Callable, tuple[str, ...]] = {
    texts_run_as_code: ("eval(text)", "os.system(f'rm {name}')", "torch.load(path)", "yaml.load(text, Loader=yaml.Loader)", "exec(text)"),
    pickles: ("import pickle", "from joblib import load", "import dill as p"),
    clients_of_our_own: ("import requests", "from urllib.request import urlopen", "import httpx", "get_session().get(url)"),
    switches_that_stay_off: ("run(command, shell=True)", "load(name, trust_remote_code=True)", "load(name, trust_remote_code=settings.trust)",
                             "page.launch(share=True)", "mount(app, allowed_paths=['/'])", "np.load(path, allow_pickle=True)"),
    code_of_a_repository: ("AutoModelForCausalLM.from_pretrained(name)", "AutoConfig.from_pretrained(name, trust_remote_code=None)"),
    addresses_of_everybody: ("parser.add_argument('--host', default='0.0.0.0')", "run(host='::')"),
    texts_without_an_encoding: ("open(path)", "open(path, 'w')", "path.read_text()", "path.write_text(text)", "run(command, text=True)",
                                "os.fdopen(number, 'w')", "path.open('w')"),
    paths_compared_as_texts: ("str(path).startswith(str(root))", "name.startswith(str(root))", "str(path).startswith('/data/')", "name.startswith(root + os.sep)"),
    processes_with_all_secrets: ("subprocess.Popen([sys.executable, '-m', 'studio.engine.train'])",),
    errors_of_any_kind: ("try:\n    go()\nexcept:\n    pass",),
}


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.__name__)
@pytest.mark.fault("T74", "T62")
def test_no_module_holds(gate, tries):
    found = [f"{path.relative_to(PROJECT)}: {what}" for path in MODULES for what in gate(ast.parse(path.read_text(encoding="utf-8")))]
    tries(len(MODULES))
    assert not found


@pytest.mark.fault("T62")
def test_one_line_of_all_can_run_a_model_s_own_code():
    found = [path.name for path in MODULES for _ in range(path.read_text(encoding="utf-8").count(THE_ONE_WAY))]
    assert found == ["model.py"]


@pytest.mark.parametrize(("gate", "line"), [(gate, line) for gate, lines in GATES.items() for line in lines],
                         ids=lambda part: part.splitlines()[0] if isinstance(part, str) else part.__name__)
def test_the_gate_closes_on(gate, line):
    assert list(gate(ast.parse(line)))


@pytest.mark.parametrize("line", [
    "yaml.safe_load(text)", "open(path, 'rb')", "open(path, encoding='utf-8')", "path.read_bytes()", "run(command, shell=False)",
    "AutoTokenizer.from_pretrained(folder, trust_remote_code=False)", "host = '0.0.0.0' if SPACE else '127.0.0.1'",
    "name.startswith('hf_')", "path.is_relative_to(root)", "os.open(path, os.O_RDONLY)", "inbox.open()"])
def test_no_gate_closes_on_what_is_sound(line):
    assert not [gate.__name__ for gate in GATES if list(gate(ast.parse(line)))]


def test_the_table_of_faults_holds_every_case_that_a_test_names_and_every_case_has_a_test():
    marks = [call for path in (PROJECT / "tests").rglob("test_*.py") for name, call in calls(ast.parse(path.read_text(encoding="utf-8")))
             if name == "pytest.mark.fault"]
    assert {arg.value for call in marks for arg in call.args} == set(faults.CASES)
    assert set(faults.CASES) >= faults.STARRED


def test_every_folder_of_tests_is_a_package_so_that_two_files_of_one_name_can_be_run_together():
    assert all((path.parent / "__init__.py").is_file() for path in (PROJECT / "tests").rglob("test_*.py"))
