"""What a worker is handed and what it is not: the token of whoever asked, through a pipe, and an environment without anybody's secrets.

The login of this machine belongs to the person who sits at it: their runs may use it where no other token was entered. With
HF_HUB_DISABLE_IMPLICIT_TOKEN, which a studio with users sets for itself, it is lent to nobody.
"""

import os
import re

from studio import hub_access, pasted

NOT_LENT = "HF_HUB_DISABLE_IMPLICIT_TOKEN"
OURS = {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_API_TOKEN", "OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET",
        "ORPO_STUDIO_PASSWORD", "ORPO_STUDIO_KEY"}
"""What no worker needs: the page hands over the one token that is meant."""
NOBODY = "-"
"""As an owner: a process that asks nobody for anything."""
SECRET = re.compile(r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|KEY|AUTH|COOKIE)(?:_|$)")
"""Names of variables that hold a secret, such as WANDB_API_KEY: it is for the person at this machine alone."""
FOR_USERS = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|TZ|TERM|TMPDIR|TMP|TEMP|SYSTEM|ACCELERATOR|CPU_CORES|MEMORY|VIRTUAL_ENV|ORPO_STUDIO_KERNELS|(?:HTTPS?|ALL|NO)_PROXY|https?_proxy"
    r"|no_proxy|all_proxy|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|HF_\w+|(?:LC|XDG|SSL|LD|DYLD|PYTHON|TORCH|TORCHINDUCTOR|PYTORCH|TOKENIZERS|TRANSFORMERS|DATASETS"
    r"|HUGGINGFACE|CUDA|CUDNN|CUBLAS|NVIDIA|NCCL|HIP|HSA|ROCM|ROCR|ROCBLAS|GPU|ONEAPI|SYCL|ZE|OMP|GOMP|KMP|MKL|OPENBLAS|BLIS|NUMEXPR|VECLIB|MALLOC|GLIBC"
    r"|TRITON|BNB|ACCELERATE|SAFETENSORS|ARROW|CONDA|SPACE|WANDB|TRACKIO|TENSORBOARD)_?\w*", re.ASCII)
"""Names of variables that a user's worker may need: libraries, paths, this machine. Of all others nobody knows what they hold."""
UNCOMPILED = {"TORCHDYNAMO_DISABLE": "1"}
"""Nothing here is compiled by torch, and loading the compiler, as bitsandbytes does, takes a second of every worker's start."""


def environment(owner: str) -> dict[str, str]:
    """The environment of a worker that works for a user, or without a name for the person at this machine."""
    kept = {name: value for name, value in os.environ.items() if name not in OURS and not (owner and _is_private(name, value))}
    alone = {"NETRC": os.devnull} if owner else {}  # trackers look there for this machine's logins
    asks = {hub_access.ASKS: "1"} if owner not in ("", NOBODY) else {}
    return UNCOMPILED | kept | alone | asks | {NOT_LENT: "1"}


def _is_private(name: str, value: str) -> bool:
    """Whether a variable of this machine is none for its users' workers: a secret by its name or value, or nobody knows what."""
    return not FOR_USERS.fullmatch(name) or bool(SECRET.search(name)) or pasted.is_token(value)


def handed_over(owner: str, given: dict[str, str]) -> dict[str, str]:
    """The secrets for a worker: those that were entered, else this machine's own login where it may be used."""
    if given.get("token") or owner or os.environ.get(NOT_LENT, "").upper() in ("1", "TRUE", "YES", "ON"):
        return given
    token = login()
    return given | {"token": token} if token else given


def login() -> str | None:
    """The Hub token that this machine is logged in with."""
    from huggingface_hub import get_token

    return get_token()
