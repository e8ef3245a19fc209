"""The base in the precision that was asked for, with a fresh adapter or one that was trained before.

Training, chat and merge all come through here, so that the three can never disagree on precision or vocabulary.
"""

import re
from collections.abc import Callable
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase, set_seed
from transformers.pytorch_utils import Conv1D

from studio.engine import adapter, remote_code, snapshot, vocabulary, weights
from studio.engine.adapter import WEIGHTS
from studio.engine.checkpoints import Checkpoint
from studio.engine.precision import compute_dtype, device, merge_dtype
from studio.engine.worker import about
from studio.errors import StudioError
from studio.runs import Run
from studio.settings import AdapterSettings, ModelSettings, Settings

ADAPTABLE = (torch.nn.Linear, torch.nn.Embedding, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d, Conv1D)
"""Layers that PEFT puts a LoRA on; those of bitsandbytes are kinds of the first."""

FUSED_MAMBA = {"falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"}
"""Families whose kernels read some weights past their layers, so that an adapter on these would do nothing; PEFT refuses it."""


def quantization_config(settings: ModelSettings) -> BitsAndBytesConfig | None:
    """What bitsandbytes is told, or None for a base that is not quantized."""
    if settings.quantization == "none":
        return None
    if settings.quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4",
                              bnb_4bit_use_double_quant=settings.double_quantization,
                              bnb_4bit_compute_dtype=compute_dtype(settings))


def lora_config(settings: AdapterSettings) -> LoraConfig:
    """What PEFT is told."""
    named = [name.strip() for name in settings.target_modules.split(",") if name.strip()]
    targets = "all-linear" if named == ["all-linear"] else named
    return LoraConfig(r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout,
                      target_modules=targets, bias=settings.bias, task_type="CAUSAL_LM")


def load_base(settings: ModelSettings, tokenizer: PreTrainedTokenizerBase, token: str | None = None, *,
              quantized: bool = True, on: torch.device | str | None = None, consent: frozenset[str] = frozenset(),
              remark: Callable[[str], None] = lambda words: None) -> PreTrainedModel:
    """The frozen base, which knows its `origin`. `quantized=False` reloads it in 16 bits for a merge; `on` overrules the device.
    `consent` holds the hashes of the code that a person has looked at and allowed to run; `remark` is told which tensors are not used.

    Raises StudioError for files that do not hold a whole model, hold more than has a place in it, come quantized, or need code that
    nobody has allowed.
    """
    quantization, folder = quantization_config(settings) if quantized else None, snapshot.of(settings, token, code=bool(consent))
    code = remote_code.needed(settings, folder)
    remote_code.refuse_unless_allowed(code, consent)
    origin = snapshot.origin(settings, folder)
    with about(settings.name):
        weights.refuse_odd_scales(folder, settings.name)
        model, found = AutoModelForCausalLM.from_pretrained(
            folder, use_safetensors=True, trust_remote_code=remote_code.is_allowed(code, consent), output_loading_info=True,
            dtype=compute_dtype(settings) if quantized else merge_dtype(settings),
            quantization_config=quantization, device_map={"": str(on or device(settings))})
    if words := weights.account_for(found, model, settings.name):
        remark(words)
    weights.refuse_other_types(model, settings.name, quantized=quantization is not None)
    model.origin = origin
    model.name_or_path = model.config._name_or_path = str(vocabulary.where(settings))  # an adapter names its base as the settings do
    _keep_layout(model)
    honour_softcap(model)
    if _lacks_tokens(model, folder, tokenizer):
        grow_vocabulary(model, len(tokenizer))
    return model


def _lacks_tokens(model: PreTrainedModel, folder: Path, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether an adapter's tokenizer has tokens that neither its base nor the base's tokenizer has, as those of older versions do.

    Tokens that a base's own tokenizer has and its matrix has no rows for stay without: in the softmax they would take part
    in training and nowhere else.
    """
    if len(tokenizer) <= model.get_input_embeddings().weight.shape[0]:
        return False
    return len(vocabulary.read(folder, folder.name)) < len(tokenizer)


def honour_softcap(model: PreTrainedModel) -> None:
    """Let Gemma 2 attend as it was trained: torch's fused attention passes over its softcap, and older transformers choose it."""
    if getattr(model.config.get_text_config(), "attn_logit_softcapping", None):
        model.set_attn_implementation("eager")


def _keep_layout(model: PreTrainedModel) -> None:
    """Forbid bitsandbytes to rearrange 4-bit weights for inference on a CPU.

    On processors with AVX512-BF16 one forward pass in eval mode would do so for good, and what comes through such
    weights afterwards has no gradient: training would go on with half of it missing.
    """
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False


def add_adapter(base: PreTrainedModel, settings: Settings) -> PeftModel:
    """The base, frozen, with a fresh adapter whose first weights the training seed decides.

    Raises StudioError for a target module that the base does not have: PEFT passes over one among others without a word.
    """
    config = lora_config(settings.adapter)
    if isinstance(config.target_modules, set | list):
        _refuse_missing(base, sorted(config.target_modules))
    base.requires_grad_(False)
    set_seed(settings.training.seed)
    if config.target_modules == "all-linear" and base.config.get_text_config().model_type in FUSED_MAMBA:
        config.exclude_modules = ["out_proj", "conv1d"]
    return get_peft_model(base, config)


def _refuse_missing(base: PreTrainedModel, targets: list[str]) -> None:
    """Raises StudioError naming targets that match no layer on which LoRA can stand, by PEFT's rule: a path's end."""
    layers = [name for name, module in base.named_modules() if isinstance(module, ADAPTABLE)]
    missing = [target for target in targets if not any(name == target or name.endswith(f".{target}") for name in layers)]
    if missing:
        has = sorted({name.rsplit(".", 1)[-1] for name in layers if re.search(r"\.\d+\.", name)})
        named = " and ".join(f"“{target}”" for target in missing)
        raise StudioError(f"{named} {'is no layer' if len(missing) == 1 else 'are no layers'} of this model that LoRA can adapt; it has "
                          f"{', '.join(has[:20])}. Correct Target modules, or set it to all-linear.")


def grow_vocabulary(model: PreTrainedModel, size: int) -> None:
    """Rows for tokens the base does not know, the same on every machine. Adapters of older versions were trained with such.

    The rows scatter around the mean of the known ones, from a generator of their own: no adapter has to store them,
    and chat and merge rebuild them exactly. All equal to the mean, no softmax could tell one new token from another.
    """
    known = model.get_input_embeddings().weight.shape[0]
    if size <= known:
        return
    model.resize_token_embeddings(size, mean_resizing=False)
    generator = torch.Generator().manual_seed(0)
    heads = {id(layer.weight): layer.weight for layer in (model.get_input_embeddings(), model.get_output_embeddings())}
    for weight in heads.values():
        old = weight.data[:known].float().cpu()
        noise = torch.randn(size - known, old.shape[1], generator=generator)
        weight.data[known:] = (old.mean(0) + old.std(0) * noise).to(weight)


def worn(base: PreTrainedModel | PeftModel, folder: Path, name: str = "default", **options) -> PeftModel:
    """The base with the adapter in a folder, every part of it in its place; one that has others has it as well, by that name.

    Raises StudioError where a part has no place.
    """
    try:
        if isinstance(base, PeftModel):
            tuned = base
            tuned.load_adapter(folder, adapter_name=name, **options)
        else:
            tuned = PeftModel.from_pretrained(base, folder, adapter_name=name, **options)
    except RuntimeError as error:  # torch's for other sizes
        raise StudioError(f"The adapter in {folder.parent.name} does not fit {_called(base)}: its parts have other sizes. "
                          "Use the base that it was trained on.") from error
    has, needs = _keys(folder), set(get_peft_model_state_dict(tuned, adapter_name=name, save_embedding_layers=False))
    if odd := sorted(has ^ needs):
        what = "parts that have no place there" if has - needs else "only some of the parts that belong there"
        raise StudioError(f"The adapter in {folder.parent.name} does not fit {_called(base)}: it has {what}, such as {odd[0]}. "
                          "Use the base that it was trained on.")
    return tuned


def set_back(tuned: PeftModel, checkpoint: Checkpoint, name: str = "default") -> None:
    """Give an adapter of that name the weights that it had at a checkpoint of its run. Raises StudioError where they do not fit."""
    was = {key.replace(".default.", f".{name}."): weight for key, weight in checkpoint.tensors("weights").items()}
    now = dict(tuned.named_parameters())
    if any(key not in now or now[key].shape != weight.shape or not torch.isfinite(weight).all() for key, weight in was.items()):
        raise StudioError(f"Checkpoint {checkpoint.folder.name} does not fit the run's adapter. Choose another step of this run.")
    with torch.no_grad():
        for key, weight in was.items():
            now[key].copy_(weight)


def begin_with(tuned: PeftModel, earlier: Run) -> None:
    """Give a fresh adapter the weights of an earlier run's. Raises StudioError where they are not sound or do not belong there."""
    if not earlier.adapter.is_dir():
        raise StudioError(f"Run {earlier.name} has no adapter to begin with. Let it finish or stop it first.")
    adapter.refuse_other_than_lora(earlier)
    adapter.refuse_what_is_not_finite(earlier.adapter)
    adapter.refuse_other_base(earlier, tuned.get_base_model().origin, "Choose that base, or begin with a fresh adapter.")
    learned, fresh = load_file(earlier.adapter / WEIGHTS), get_peft_model_state_dict(tuned, save_embedding_layers=False)
    if {name: weight.shape for name, weight in learned.items()} != {name: weight.shape for name, weight in fresh.items()}:
        raise StudioError(f"The adapter of run {earlier.name} has another rank or stands on other modules. "
                          "Set rank, target modules and bias as they were there, or begin with a fresh adapter.")
    set_peft_model_state_dict(tuned, learned)


def _called(base: PreTrainedModel) -> str:
    return f"this base of {base.config.get_text_config().num_hidden_layers} layers"


def _keys(folder: Path) -> set[str]:
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        return set(file.keys())
