"""The push job: python -m studio.engine.push RUN/push. The adapter or the merged model goes to the Hub in one commit.

Everything that can be refused is refused before a repository is made; the token is used and never written.
"""

import json
import sys
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelInfo
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from studio import card, events
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
    folder = _result(run, asked)
    api = HfApi(token=_token(desk))
    repo = _full_name(api, asked.repo)
    with about(repo):
        found = _existing(api, repo)
        _refuse_to_disturb(found, asked)
        readme = card.render(run, asked.what, repo, _licence(api, run))
        additions = _additions(run, folder, readme)
        if desk.asked_to_stop:
            return events.Stopped(step=0)
        desk.enter("uploading")
        api.create_repo(repo, private=asked.private, exist_ok=True)
        if not _upload_weights(desk, api, repo, additions):
            return events.Stopped(step=0)
        made = api.create_commit(repo, additions + _deletions(found, additions),
                                 commit_message=f"Upload the {asked.what} of {run.name} with ORPO Studio")
    desk.say(events.Pushed(repo, made.commit_url))
    return None


def _result(run: Run, asked: PushRequest) -> Path:
    """The folder to publish. Raises StudioError if it does not exist yet."""
    folder = run.adapter if asked.what == "adapter" else run.merged
    if not folder.is_dir():
        raise StudioError("This run has no adapter yet. Let it train to the end, then push." if asked.what == "adapter" else
                          "This run has not been merged yet. Merge it first, or push the adapter.")
    return folder


def _token(desk: Desk) -> str:
    if not desk.token:
        raise StudioError("No token was entered. Create one with write access at huggingface.co/settings/tokens and enter it.")
    return desk.token


def _full_name(api: HfApi, name: str) -> str:
    """owner/name, in the token's own account where no owner was given. Raises StudioError where it may not write."""
    me = api.whoami()
    if me.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise StudioError("This token can only read. "
                          "Create one with write access at huggingface.co/settings/tokens and enter it.")
    owner, _, rest = name.rpartition("/")
    mine = [me["name"], *(organisation["name"] for organisation in me.get("orgs", []))]
    if owner and owner.lower() not in (account.lower() for account in mine):
        raise StudioError(f"The token belongs to {me['name']}, who may not write to {owner}. "
                          f"Use one of {', '.join(mine)}, or a token of {owner}.")
    return f"{owner or me['name']}/{rest}"


def _existing(api: HfApi, repo: str) -> ModelInfo | None:
    try:
        return api.model_info(repo)
    except RepositoryNotFoundError:
        return None


def _refuse_to_disturb(found: ModelInfo | None, asked: PushRequest) -> None:
    """Raises StudioError for a repository that is not ours to fill, or that the public can see unasked."""
    if found is None:
        return
    if asked.private and not found.private:
        raise StudioError(f"{found.id} exists and is public, and this push was to be private. "
                          "Choose another name, make that repository private on the Hub, or allow a public push.")
    empty = all(file.rfilename == ".gitattributes" for file in found.siblings or [])
    if not (asked.overwrite or empty or card.TAG in (found.tags or [])):
        raise StudioError(f"{found.id} exists and was not made by this studio, so it was left as it is. "
                          f"Choose another name, such as {found.id.split('/')[-1]}-orpo, or allow replacing its files.")


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


def _deletions(found: ModelInfo | None, additions: list[CommitOperationAdd]) -> list[CommitOperationDelete]:
    """What an earlier push left that this one does not bring: an adapter beside a merged model misleads every loader."""
    kept = {addition.path_in_repo for addition in additions}
    there = [file.rfilename for file in (found.siblings if found else None) or []]
    return [CommitOperationDelete(name) for name in there
            if name not in kept and any(fnmatch(name, pattern) for pattern in SHARED)]


def _upload_weights(desk: Desk, api: HfApi, repo: str, additions: list[CommitOperationAdd]) -> bool:
    """Send the large files one by one, saying bytes after each; nothing shows on the Hub until the commit.

    Returns False if the job was asked to stop.
    """
    large = [addition for addition in additions if addition.path_in_repo.endswith(".safetensors")]
    total, done = sum(addition.upload_info.size for addition in large), 0
    for addition in large:
        if desk.asked_to_stop:
            return False
        api.preupload_lfs_files(repo, [addition], free_memory=False)
        done += addition.upload_info.size
        desk.progress(done, total, "bytes")
    return not desk.asked_to_stop


if __name__ == "__main__":
    sys.exit(work(push))
