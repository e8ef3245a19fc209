"""Files of a model as readers of several versions know them: what transformers 5 renamed stands under its older names as well.

transformers 4 passes over a name that it does not know, without a word: positions would be scaled otherwise, or not at all.
"""

from typing import Any

OF_THIS_MACHINE = ("backend", "device_map", "files_loaded", "is_local", "local_files_only", "name_or_path", "slow_tokenizer_class",
                   "special_tokens_map_file", "tokenizer_file")
"""What transformers 5 writes of a tokenizer about itself and about where it was read."""
CLASSES = {"TokenizersBackend": "PreTrainedTokenizerFast"}
"""Names of classes that only transformers 5 has: the names under which both know them."""
GLOBAL, LOCAL = "full_attention", "sliding_attention"


def of_tokenizer(described: dict[str, Any]) -> dict[str, Any]:
    """tokenizer_config.json in words that transformers 4 and 5 read alike."""
    kept = {name: value for name, value in described.items() if name not in OF_THIS_MACHINE}
    if kept.get("tokenizer_class") in CLASSES:
        kept["tokenizer_class"] = CLASSES[kept["tokenizer_class"]]
    if isinstance(kept.get("extra_special_tokens"), list):  # transformers 4 knows it as a mapping only
        kept["additional_special_tokens"] = kept.pop("extra_special_tokens")
    return kept


def of_config(config: dict[str, Any]) -> dict[str, Any]:
    """config.json with the newer and the older name of each thing, in its parts for text or pictures as well."""
    told = {name: of_config(value) if name.endswith("_config") and isinstance(value, dict) else value for name, value in config.items()}
    told.pop("_name_or_path", None)
    if dtype := told.get("dtype") or told.get("torch_dtype"):
        told |= {"dtype": dtype, "torch_dtype": dtype}
    rope = told.get("rope_parameters")
    if isinstance(rope, dict) and rope:
        nested = {kind: part for kind, part in rope.items() if isinstance(part, dict)}
        older = _older(nested.get(GLOBAL, rope))
        if "rope_theta" in nested.get(LOCAL, {}):
            older["rope_local_base_freq"] = nested[LOCAL]["rope_theta"]
        told = older | {name: value for name, value in told.items() if value is not None or name not in older}
    return told


def _older(rope: dict[str, Any]) -> dict[str, Any]:
    """rope_parameters as rope_theta, rope_scaling and partial_rotary_factor."""
    apart = {name: rope[name] for name in ("rope_theta", "partial_rotary_factor") if name in rope}
    scaling = {name: value for name, value in rope.items() if name not in apart and not isinstance(value, dict)}
    if apart.get("partial_rotary_factor") == 1.0:  # all of a head's numbers, as where nothing is said
        del apart["partial_rotary_factor"]
    if scaling.get("rope_type") == "longrope":  # Phi-3's config in transformers 4 refuses any other names
        scaling = {"type": "longrope", **{name: scaling[name] for name in ("short_factor", "long_factor") if name in scaling}}
    is_default = scaling.get("rope_type", "default") == "default" and not set(scaling) - {"rope_type", "type"}
    return apart | {"rope_scaling": None if is_default else scaling}
