"""The base in the precision that was asked for, and a fresh adapter.

Training, chat and merge all come through here, so that the three can never disagree on precision or vocabulary.
"""

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from studio.engine import snapshot
from studio.engine.vocabulary import where
from studio.engine.worker import about
from studio.errors import StudioError
from studio.settings import AdapterSettings, ModelSettings, Settings

FUSED_MAMBA = {"falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"}
"""Families whose kernels read some weights past their layers, so that an adapter on these would do nothing; PEFT refuses it."""

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def device(settings: ModelSettings) -> torch.device:
    """What to compute on. Raises StudioError if a GPU is asked for and there is none."""
    if settings.device == "gpu" and not torch.cuda.is_available():
        raise StudioError("A GPU was asked for and this machine has none that torch can use. "
                          "Set Device to auto or cpu, or start the studio on a machine with a GPU.")
    return torch.device("cuda" if settings.device != "cpu" and torch.cuda.is_available() else "cpu")


def compute_dtype(settings: ModelSettings) -> torch.dtype:
    """The precision of the arithmetic; auto as its caption says."""
    if settings.compute_dtype != "auto":
        return DTYPES[settings.compute_dtype]
    if device(settings).type == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


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
              quantized: bool = True, on: torch.device | str | None = None) -> PreTrainedModel:
    """The frozen base, which knows its `origin`. `quantized=False` reloads it in 16 bits for a merge; `on` overrules the device.

    Raises StudioError for files that do not hold a whole model, or ask to run code.
    """
    quantization, folder = quantization_config(settings) if quantized else None, snapshot.of(settings, token)
    origin = snapshot.origin(settings, folder)
    with about(settings.name):
        model, found = AutoModelForCausalLM.from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False, output_loading_info=True,
            dtype=compute_dtype(settings) if quantized else merge_dtype(settings),
            quantization_config=quantization, device_map={"": str(on or device(settings))})
    if missing := sorted(found["missing_keys"]):
        raise StudioError(f"{settings.name} lacks {len(missing)} of the weights that its config asks for, such as {missing[0]}. "
                          "Fetch it again, or choose another model.")
    model.origin = origin
    model.name_or_path = model.config._name_or_path = str(where(settings))  # an adapter names its base as the settings do
    _keep_layout(model)
    honour_softcap(model)
    grow_vocabulary(model, len(tokenizer))
    return model


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
    """The base, frozen, with a fresh adapter whose first weights the training seed decides."""
    base.requires_grad_(False)
    set_seed(settings.training.seed)
    config = lora_config(settings.adapter)
    if config.target_modules == "all-linear" and base.config.get_text_config().model_type in FUSED_MAMBA:
        config.exclude_modules = ["out_proj", "conv1d"]
    return get_peft_model(base, config)


def merge_dtype(settings: ModelSettings) -> torch.dtype:
    """16 bits for a merged model: float16 where it was trained so, else bfloat16."""
    return torch.float16 if settings.compute_dtype == "float16" else torch.bfloat16


def grow_vocabulary(model: PreTrainedModel, size: int) -> None:
    """Rows for tokens the base does not know, the same on every machine.

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
