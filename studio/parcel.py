"""What of a run leaves this machine: the files of its adapter, merged model or GGUF file, the same whether pushed or downloaded.

A card goes with them, and an adapter's configuration names its base for everyone, not by a path of this machine.
"""

import json
from fnmatch import fnmatch
from pathlib import Path

from studio import card, gguf_file, lineage, spellings, usage
from studio.errors import StudioError
from studio.runs import Run
from studio.usage import What

FILES = ("*.safetensors", "*.safetensors.index.json", "adapter_config.json", "config.json", "generation_config.json",
         "chat_template.jinja", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
         "vocab.json", "merges.txt", "tokenizer.model", "spiece.model", "preprocessor_config.json", "processor_config.json",
         "video_preprocessor_config.json", "*.gguf")
"""What is handed on; whatever else lies beside it stays here."""


MISSING = {"adapter": "This run has no adapter yet. Let it train to the end, or stop it.",
           "merged": "This run has not been merged yet. Merge it first, or take the adapter.",
           "gguf": "No GGUF file was written of this run yet. Write it first, or take the merged model or the adapter."}


NEEDS_STUDIO = ("This adapter was trained by an older version with two tokens that its base does not have, and it works in this "
                "studio only. Merge it: the merged model has these tokens.")


def folder(run: Run, what: What) -> Path:
    """Where an adapter, merged model or GGUF file lies. Raises StudioError if it is not there."""
    found = {"adapter": run.adapter, "merged": run.merged, "gguf": run.job("gguf")}[what]
    if not (gguf_file.of(run) if what == "gguf" else found.is_dir()):
        raise StudioError(MISSING[what])
    return found


def paths(run: Run, what: What) -> list[Path]:
    """The files that are handed on. Raises StudioError if there are none, or some that nobody should be handed."""
    there = folder(run, what)
    found = [gguf_file.of(run)] if what == "gguf" else sorted(there.iterdir())
    if any(path.suffix == ".py" for path in found):
        raise StudioError("This model needs code of its own, which is others' and is not handed on. Take the adapter.")
    for path in found:
        if path.is_symlink():
            raise StudioError(f"{path.name} in {path.parent.name} is a link to somewhere else, so nothing was handed on. "
                              "Put the file itself there.")
    if what == "adapter" and usage.needs_studio(run):
        raise StudioError(NEEDS_STUDIO)
    return [path for path in found if any(fnmatch(path.name, pattern) for pattern in FILES)]


def size(run: Run, what: What) -> int | None:
    """Bytes of what is handed on, or None where nothing can be."""
    try:
        return sum(path.stat().st_size for path in paths(run, what))
    except (StudioError, OSError):
        return None


def contents(run: Run, what: What, name: str, licence: dict[str, str] | None = None) -> dict[str, bytes | Path]:
    """All that is handed on, by file name: bytes, or where they lie. Raises StudioError.

    `name` is that of the repository or folder they are put into; `licence` the base's, see `card.render`.
    """
    files = {path.name: _rewritten(run, path) for path in paths(run, what)}
    return {"README.md": card.render(run, what, name, licence).encode()} | card.files(run, licence) | files


def _rewritten(run: Run, path: Path) -> bytes | Path:
    """A file as it is, or where it names something of this machine or of one library's version alone, in other words."""
    spelled = {"tokenizer_config.json": spellings.of_tokenizer, "config.json": spellings.of_config,
               "adapter_config.json": lambda config: config | _of_everyone(run)}.get(path.name)
    if spelled is None:
        return path
    try:
        content = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        raise StudioError(f"{path.name} of {run.name} cannot be read, so nothing was handed on. Resume the run, or train again.") from None
    return json.dumps(spelled(content), indent=2, sort_keys=True, ensure_ascii=False).encode()


def _of_everyone(run: Run) -> dict[str, str | None]:
    """The base's Hub id and commit, or a local base's name without its path."""
    return {"base_model_name_or_path": lineage.hub_base(run) or Path(run.settings.model.name).name, "revision": lineage.base_commit(run)}
