"""Whether a user may read a repository on the Hub now, asked before anything of it is taken from this machine's cache.

The cache is the machine's: what one user fetched with their token lies there for everybody, and the Hub's client takes it where the
Hub answers that a repository is private, too. The person at a machine without users is not asked; the cache is theirs.
"""

import os
from typing import Literal

from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from studio.errors import StudioError, explain

ASKS = "ORPO_STUDIO_ASKS_THE_HUB"
"""In the environment of a worker that works for a user."""
SECONDS = 10
"""Longest wait for the answer."""


def is_asked() -> bool:
    """Whether this process works for a user."""
    return bool(os.environ.get(ASKS))


def refuse_without(repo: str, kind: Literal["model", "dataset"], token: str | None = None) -> None:
    """Raises StudioError for a repository that whoever has this token, or nobody's, may not read now.

    With a token that the Hub does not accept, what is public stays open.
    """
    try:
        try:
            _ask(repo, kind, token)
        except HfHubHTTPError as error:
            if not token or error.response.status_code != 401:
                raise
            _ask(repo, kind, None)
    except (RepositoryNotFoundError, GatedRepoError) as error:
        raise StudioError(explain(error, repo)) from error
    except Exception as error:  # not reached, limited, too slow: whether it is open to them is not known
        raise StudioError(f"The Hub cannot be asked now whether {repo} is open to you, so what this machine has of it is not used. "
                          "Try again in a few minutes; without a network, take a model from a folder that the studio's owner names "
                          "with --models, and upload the pairs.") from error


def _ask(repo: str, kind: str, token: str | None) -> None:
    answer = get_session().get(f"{constants.ENDPOINT}/api/{kind}s/{repo}/auth-check", headers=build_hf_headers(token=token or False),
                               timeout=SECONDS)
    hf_raise_for_status(answer)
