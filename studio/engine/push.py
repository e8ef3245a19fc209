"""The push job: python -m studio.engine.push RUN/push. The adapter or the merged model goes to the Hub in one commit.

Everything that can be refused is refused before a repository is made; the token is used and never written.
"""

import json
import sys
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from studio import card, events, seal
from studio.engine import adapter, hub
from studio.engine.worker import Desk, about, work
from studio.errors import StudioError
from studio.runs import Run
from studio.share import FILE, PushRequest

SHARED = ("*.safetensors", "*.safetensors.index.json", "adapter_config.json", "config.json", "generation_config.json",
          "chat_template.jinja", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
          "vocab.json", "merges.txt", "tokenizer.model", "spiece.model")
"""Files of a result that are published; whatever else lies beside them stays here."""


def push(desk: Desk) -> events.Event | None:
    """The whole job. Returns Stopped if it was asked to end before the commit."""
    run, asked = Run(desk.folder.parent), PushRequest.from_file(desk.folder / FILE)
    desk.enter("checking")
    folder = _result(run, asked, desk)
    api = HfApi(token=hub.token(desk))
    repo = hub.full_name(api, asked.repo)
    with about(repo):
        found = hub.existing(api, repo, "model")
        hub.refuse_to_disturb(found, asked)
        readme = card.render(run, asked.what, repo, _licence(api, run))
        additions = _additions(run, folder, readme)
        if desk.asked_to_stop:
            return events.Stopped(step=0)
        desk.enter("uploading")
        api.create_repo(repo, private=asked.private, exist_ok=True)
        if not hub.send_ahead(desk, api, repo, "model", additions):
            return events.Stopped(step=0)
        # An adapter that stays beside a merged model misleads every loader.
        made = api.create_commit(repo, additions + hub.deletions(found, additions, SHARED),
                                 commit_message=f"Upload the {asked.what} of {run.name} with ORPO Studio")
    desk.say(events.Pushed(repo, made.commit_url))
    return None


def _result(run: Run, asked: PushRequest, desk: Desk) -> Path:
    """The folder to publish. Raises StudioError if it does not exist yet or is not what the run has made."""
    folder = run.adapter if asked.what == "adapter" else run.merged
    if not folder.is_dir():
        raise StudioError("This run has no adapter yet. Let it train to the end, then push." if asked.what == "adapter" else
                          "This run has not been merged yet. Merge it first, or push the adapter.")
    if asked.what == "adapter":
        adapter.check(run, desk.token, fetch=False)
    if any(folder.glob("*.py")):
        raise StudioError("This model needs code of its own, which is others' and is not published here. Push the adapter.")
    seal.check(run, folder)
    adapter.refuse_what_is_not_finite(folder)
    return folder


def _licence(api: HfApi, run: Run) -> dict[str, str]:
    """The base's licence, as its own card states it; nothing when it cannot be asked."""
    base = card.hub_base(run)
    try:
        stated = api.model_info(base).card_data if base else None
    except HfHubHTTPError:
        stated = None
    found = {name: getattr(stated, name, None) for name in ("license", "license_name", "license_link")}
    return {name: value for name, value in found.items() if value}


def _additions(run: Run, folder: Path, readme: str) -> list[CommitOperationAdd]:
    """The card and the published files of the result; an adapter's configuration names its base for everyone."""
    additions = [CommitOperationAdd("README.md", readme.encode())]
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            raise StudioError(f"{path.name} in {folder.name} is a link to somewhere else, so nothing was published. "
                              "Put the file itself there.")
        if path.name == "adapter_config.json":
            additions.append(CommitOperationAdd(path.name, _adapter_config(run, path)))
        elif any(fnmatch(path.name, pattern) for pattern in SHARED):
            additions.append(CommitOperationAdd(path.name, path))
    return additions


def _adapter_config(run: Run, path: Path) -> bytes:
    """The configuration with the base's Hub id and commit, or a local base's name without its path."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = card.hub_base(run) or Path(run.settings.model.name).name
    config["revision"] = card.base_commit(run)
    return json.dumps(config, indent=2, sort_keys=True).encode()


if __name__ == "__main__":
    sys.exit(work(push))
