"""Models, adapters and checkpoints made by somebody who means harm: whatever of them is run touches a canary."""

import json
import pickle
from pathlib import Path

CODE = "import pathlib; pathlib.Path({canary!r}).touch()\n"
MODULES = ("configuration_trap.py", "modeling_trap.py", "tokenization_trap.py", "custom_generate/generate.py", "__init__.py", "setup.py", "trap/__init__.py")
PICKLES = ("pytorch_model.bin", "adapter_model.bin", "training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt", "model.pkl")
AUTO_MAP = {"AutoConfig": "configuration_trap.TrapConfig", "AutoModelForCausalLM": "modeling_trap.TrapForCausalLM",
            "AutoTokenizer": ["tokenization_trap.TrapTokenizer", "tokenization_trap.TrapTokenizer"]}


class Touches:
    """Unpickled, it touches the canary."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return Path.touch, (self.canary,)


def lay(folder: Path, canary: Path) -> Path:
    """Put pickles and modules that touch the canary into a folder, beside whatever it holds. Returns the folder."""
    for name in PICKLES:
        (folder / name).write_bytes(pickle.dumps({"state": Touches(canary)}))
    for name in MODULES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(CODE.format(canary=str(canary)), encoding="utf-8")
    return folder


def change(path: Path, **values) -> None:
    """Change some values of a JSON file; None takes one out."""
    told = json.loads(path.read_text(encoding="utf-8")) | values
    path.write_text(json.dumps({name: value for name, value in told.items() if value is not None}), encoding="utf-8")


def asks_for_its_code(folder: Path) -> Path:
    """Let config and tokenizer point to the folder's own modules. Returns the folder."""
    change(folder / "config.json", auto_map=AUTO_MAP, custom_pipelines={"text-generation": {"impl": "trap.Trap", "pt": ["AutoModelForCausalLM"]}})
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": AUTO_MAP["AutoTokenizer"]})
    return folder


CONFIGURATION = """
from transformers import LlamaConfig
class OwnConfig(LlamaConfig):
    model_type = "own_llama"
"""
MODELING = """
import pathlib
from transformers import LlamaForCausalLM
from .configuration_own import OwnConfig
pathlib.Path({canary!r}).touch()
class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


def with_code_of_its_own(folder: Path, canary: Path) -> Path:
    """Make the model in a folder one of a kind that only its own modules know; they touch the canary when they are run. Returns the folder."""
    change(folder / "config.json", model_type="own_llama", architectures=["OwnForCausalLM"],
           auto_map={"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"})
    (folder / "configuration_own.py").write_text(CONFIGURATION, encoding="utf-8")
    (folder / "modeling_own.py").write_text(MODELING.format(canary=str(canary)), encoding="utf-8")
    return folder
