"""Which trackers a run can report to, whether they are installed, and the key for Weights & Biases."""

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from studio import account
from studio.errors import StudioError

WORDS = {"wandb": "Weights & Biases", "tensorboard": "TensorBoard", "trackio": "Trackio"}
KEY = "wandb"
"""The name under which a worker is handed the key."""


def is_installed(package: str) -> bool:
    """Whether a tracker is installed: a package with code of its own and with a record of its installation.

    A folder of its name in the working directory, such as wandb leaves behind, can be imported too, and holds nothing.
    """
    try:
        version(package)
        spec = find_spec(package)
    except (PackageNotFoundError, ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None


def refuse_one_that_is_missing(report_to: str) -> None:
    """Raises StudioError for a tracker that is asked for and not installed."""
    if report_to != "none" and not is_installed(report_to):
        raise StudioError(f"{WORDS[report_to]} is not installed. Run pip install {report_to}, or set Report to to none.")


def entered(text: str | None, report_to: str) -> dict[str, str]:
    """What a run is handed for the key that was entered; nothing for another tracker. Raises StudioError for what can be no key."""
    if report_to != "wandb":
        return {}
    if words := account.complaint(text):
        raise StudioError(f"W&B key: {words.replace('token', 'key')}")
    key = (text or "").strip()
    return {KEY: key} if key else {}


def without_key(secrets: dict[str, str]) -> dict[str, str]:
    """The secrets for a job that reports to nobody."""
    return {name: secret for name, secret in secrets.items() if name != KEY}
