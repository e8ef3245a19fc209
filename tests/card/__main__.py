"""One stage of what only a card can show: python -m tests.card STAGE --out FOLDER [--device cpu --tiny].

Every finding is one line of FOLDER/results.jsonl, written as soon as it is known; the last lines of the output are a table.
"""

import argparse
import os
import sys
from contextlib import nullcontext
from pathlib import Path

import torch

if __name__ == "__main__":  # before the libraries below read it; an import changes nobody's environment
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"} | os.environ

from safetensors.torch import save_file  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

from studio.practice import MODEL  # noqa: E402
from tests.benchmarks.contenders import PACKED, PADDED, TRL  # noqa: E402
from tests.card.contenders import LIGER, LIGER_LOSS, UNFUSED  # noqa: E402
from tests.card.endtoend import end_to_end  # noqa: E402
from tests.card.exact import exact  # noqa: E402
from tests.card.findings import Say  # noqa: E402
from tests.card.models import SHAPES, model_of  # noqa: E402
from tests.card.probe import probe  # noqa: E402
from tests.card.speed import speed  # noqa: E402
from tests.card.tune import tune  # noqa: E402
from tests.card.unsloth_steps import ADAPTER  # noqa: E402


def save(asked, say, device) -> None:
    """The model of a shape, its tokenizer and its adapter's weights in a folder, as unsloth_steps.py reads them."""
    with say.tried("model saved", shape=asked.shape):
        asked.folder.mkdir(parents=True, exist_ok=True)
        model = model_of("tiny" if asked.tiny else asked.shape, "none", device)
        model.get_base_model().config.architectures = ["LlamaForCausalLM"]
        save_file({name: weight.detach().contiguous().cpu() for name, weight in model.named_parameters() if weight.requires_grad},
                  asked.folder / ADAPTER)
        model.unload().save_pretrained(asked.folder)
        AutoTokenizer.from_pretrained(MODEL).save_pretrained(asked.folder)


STAGES = {"probe": probe, "end-to-end": end_to_end, "exact": exact, "speed": speed, "tune": tune, "save": save}


def main() -> int:
    """Run the stage. Returns the exit code: 1 if any of its parts failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shape", choices=SHAPES, default="8b")
    parser.add_argument("--base", choices=("none", "nf4"), default="nf4")
    parser.add_argument("--sets", default="log-normal,full length,fixed")
    parser.add_argument("--contenders", default=f"{PACKED};{UNFUSED};{PADDED};{TRL};{LIGER};{LIGER_LOSS}")
    parser.add_argument("--checkpointing", choices=("none", "full", "both"), default="both")
    parser.add_argument("--timed", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=100)
    parser.add_argument("--folder", type=Path, help="for save")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small enough for a CPU: shows that the script runs")
    asked = parser.parse_args()
    asked.seconds *= float(os.environ.get("SLACK", 1))
    device = torch.device(asked.device, 0) if asked.device == "cuda" else torch.device("cpu")
    say = Say(asked.out)
    with torch.cuda.device(0) if asked.device == "cuda" and asked.stage != "end-to-end" else nullcontext():
        STAGES[asked.stage](asked, say, device)
    return 1 if say.failures else 0


if __name__ == "__main__":
    sys.exit(main())
