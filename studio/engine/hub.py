"""What every push to the Hub has in common: whose token it is, which repository, and what may not be disturbed there."""

from collections.abc import Sequence
from fnmatch import fnmatch
from typing import Literal

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, DatasetInfo, HfApi, ModelInfo
from huggingface_hub.errors import RepositoryNotFoundError

from studio.card import TAG
from studio.engine.worker import Desk
from studio.errors import StudioError
from studio.export import ExportRequest
from studio.share import PushRequest

Kind = Literal["model", "dataset"]
PATIENCE = 10
"""Seconds to wait for what can be done without."""
LARGE = (".safetensors", ".parquet")
"""Endings of the files that are sent ahead of the commit."""


def token(desk: Desk) -> str:
    """The token that was entered or that this machine has. Raises StudioError where there is none."""
    if not desk.token:
        raise StudioError("No token was entered. Create one with write access at huggingface.co/settings/tokens and enter it.")
    return desk.token


def full_name(api: HfApi, name: str) -> str:
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


def existing(api: HfApi, repo: str, kind: Kind) -> ModelInfo | DatasetInfo | None:
    """The repository as it stands, or None if there is none yet."""
    try:
        return api.repo_info(repo, repo_type=kind)
    except RepositoryNotFoundError:
        return None


def refuse_to_disturb(found: ModelInfo | DatasetInfo | None, asked: PushRequest | ExportRequest) -> None:
    """Raises StudioError for a repository that is not ours to fill, or that the public can see unasked."""
    if found is None:
        return
    if asked.private and not found.private:
        raise StudioError(f"{found.id} exists and is public, and this push was to be private. "
                          "Choose another name, make that repository private on the Hub, or allow a public push.")
    empty = all(file.rfilename == ".gitattributes" for file in found.siblings or [])
    if not (asked.overwrite or empty or TAG in (found.tags or [])):
        raise StudioError(f"{found.id} exists and was not made by this studio, so it was left as it is. "
                          f"Choose another name, such as {found.id.split('/')[-1]}-orpo, or allow replacing its files.")


def deletions(found: ModelInfo | DatasetInfo | None, additions: list[CommitOperationAdd],
              patterns: Sequence[str]) -> list[CommitOperationDelete]:
    """What an earlier push left of these kinds of file that this one does not bring."""
    kept = {addition.path_in_repo for addition in additions}
    there = [file.rfilename for file in (found.siblings if found else None) or []]
    return [CommitOperationDelete(name) for name in there
            if name not in kept and any(fnmatch(name, pattern) for pattern in patterns)]


def send_ahead(desk: Desk, api: HfApi, repo: str, kind: Kind, additions: list[CommitOperationAdd]) -> bool:
    """Send the large files one by one, saying bytes after each; nothing shows on the Hub until the commit.

    Returns False if the job was asked to stop.
    """
    large = [addition for addition in additions if addition.path_in_repo.endswith(LARGE)]
    total, done = sum(addition.upload_info.size for addition in large), 0
    for addition in large:
        if desk.asked_to_stop:
            return False
        api.preupload_lfs_files(repo, [addition], repo_type=kind, free_memory=False)
        done += addition.upload_info.size
        desk.progress(done, total, "bytes")
    return not desk.asked_to_stop


def licence(api: HfApi, base: str | None) -> dict[str, str]:
    """The licence that a model's card on the Hub states, as license, license_name, license_link; nothing when it cannot be asked."""
    try:
        stated = api.model_info(base, timeout=PATIENCE).card_data if base else None
    except Exception:  # whatever the Hub's client raises: neither a run nor a push fails of it
        stated = None
    found = {name: getattr(stated, name, None) for name in ("license", "license_name", "license_link")}
    return {name: str(value) for name, value in found.items() if value}
