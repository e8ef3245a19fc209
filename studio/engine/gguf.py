"""The GGUF job: python -m studio.engine.gguf RUN/gguf. A run's merged model becomes one file for llama.cpp.

The file is read back by transformers, whose reader is not ours, and must say what the merged model says before it is kept.
"""

import os
import sys
from pathlib import Path

import gguf
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, PretrainedConfig, PreTrainedTokenizerBase

from studio import events, gguf_file, seal, unfinished
from studio.engine import proof, snapshot, space, vocabulary
from studio.engine.ggml import shape, tensors
from studio.engine.ggml import vocabulary as words
from studio.engine.stopping import StopRequested
from studio.engine.worker import Desk, work
from studio.errors import StudioError
from studio.gguf_file import GGUFRequest
from studio.runs import Run

MARGIN = 64 * 2**20
"""Bytes for what a file holds beside its tensors."""
TOLERANCE = {"16": 1e-6, "q8_0": 0.1}
"""Of the mean Kullback-Leibler divergence from what the merged model expects to come next, in nats. In 16 bits the file holds the
same numbers. With 8 bits the practice model comes to 0.0003, untrained networks of two layers to 0.008, one of these with a matrix
in a wrong order to 2.6."""


def write(desk: Desk) -> events.Event | None:
    """The whole job. Returns Stopped if it was asked to end; then nothing of it is left."""
    run, asked = Run(desk.folder.parent), GGUFRequest.from_file(desk.folder / gguf_file.REQUEST)
    desk.enter("reading")
    if not run.merged.is_dir():
        raise StudioError("This run has not been merged yet. Merge it first: the merged model is what is written as GGUF.")
    seal.check(run, run.merged)
    shape.refuse_unknown(snapshot.mapping(run.merged / "config.json", run.name).get("model_type"))
    config, tokenizer = AutoConfig.from_pretrained(run.merged, trust_remote_code=False), vocabulary.read(run.merged, run.name)
    sixteen = tensors.Type.F16 if config.dtype == torch.float16 else tensors.Type.BF16
    wanted = tensors.Type.Q8_0 if asked.precision == "q8_0" else sixteen
    there = tensors.listed(run.merged, config, wanted)
    refuse_if_short(sum(tensor.bytes for tensor in there) + MARGIN, desk.folder)
    target = desk.folder / f"{run.name}-{wanted.name}.gguf"
    draft = unfinished.named(desk.folder, target.name)
    try:
        if not _write(desk, run, config, tokenizer, there, draft, wanted) or desk.asked_to_stop:
            return events.Stopped(step=0)
        desk.enter("checking")
        desk.say(events.Noted(_proven(run, config, tokenizer, draft, asked.precision)))
        with desk.stopping.undisturbed():
            os.replace(draft, target)  # first: whenever the job is killed, there is a whole file
            for old in desk.folder.glob("*.gguf"):
                if old != target:
                    old.unlink()
            desk.say(events.Saved(step=0, path=target.name))
    except StopRequested:
        return events.Stopped(step=0)
    finally:
        draft.unlink(missing_ok=True)
    return None


def refuse_if_short(needed: int, folder: Path) -> None:
    """Raises NoSpaceError if the disk under `folder` has fewer free bytes than `needed`."""
    space.refuse_if_short(needed, folder, "The GGUF file", "write it again; the merged model is untouched")


def _write(desk: Desk, run: Run, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, there: list[tensors.Tensor],
           draft: Path, wanted: tensors.Type) -> bool:
    """Write the file. Returns whether it is whole: not if the job was asked to stop."""
    desk.enter("writing")
    writer = gguf.GGUFWriter(draft, gguf.MODEL_ARCH_NAMES[shape.kind(config)])
    try:
        writer.add_name(run.name)
        writer.add_file_type({tensors.Type.Q8_0: gguf.LlamaFileType.MOSTLY_Q8_0, tensors.Type.F16: gguf.LlamaFileType.MOSTLY_F16,
                              tensors.Type.BF16: gguf.LlamaFileType.MOSTLY_BF16}[wanted])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        shape.write(writer, config)
        words.write(writer, tokenizer, words.described(run.merged), config.vocab_size)
        tensors.announce(writer, there)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for done, numbers in enumerate(tensors.read(there, config)):
            if desk.asked_to_stop:
                return False
            desk.progress(done, len(there), "tensors")
            writer.write_tensor_data(numbers)
    finally:
        writer.close()
    return True


def _proven(run: Run, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, file: Path, precision: str) -> str:
    """How near the file comes to the merged model, in words. Raises StudioError where it says something else."""
    asked = proof.prompts(run, tokenizer)
    merged = AutoModelForCausalLM.from_pretrained(run.merged, dtype=config.dtype, use_safetensors=True, trust_remote_code=False)
    expected = proof.hear(merged.eval(), asked)
    del merged  # two of them may not fit
    read = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, config=_as_it_is_read(config), dtype=config.dtype, trust_remote_code=False)
    heard = proof.hear(read.eval(), asked)
    apart = torch.nn.functional.kl_div(heard, expected, reduction="batchmean", log_target=True).item()
    if not apart <= TOLERANCE[precision]:
        raise StudioError(f"The GGUF file does not say what the merged model says: what they expect to come next is {apart:.3f} nats "
                          f"apart, more than {TOLERANCE[precision]}. Nothing was kept; "
                          f"{'choose 16 bits, or ' if precision == 'q8_0' else ''}take the merged model.")
    difference, alike = proof.difference(heard, expected), (heard.argmax(-1) == expected.argmax(-1)).sum().item()
    return (f"The file says what the merged model says: after {len(asked)} prompts the log-probabilities of the likeliest next tokens "
            f"differ by at most {difference:.4f}, and the likeliest one is the same {alike} of {len(asked)} times.")


def _as_it_is_read(config: PretrainedConfig) -> PretrainedConfig:
    """The sizes for transformers' reader, which would read scaled positions without their scaling, and knows Mistral as a Llama only."""
    return LlamaConfig.from_dict(config.to_dict() | {"model_type": "llama"}) if config.model_type == "mistral" else config


if __name__ == "__main__":
    sys.exit(work(write, computes_on=lambda desk: "cpu"))
