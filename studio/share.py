"""What a person chooses when publishing a run; push/request.yaml holds it."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from huggingface_hub.utils import HFValidationError, validate_repo_id
from pydantic import Field, ValidationError, model_validator

from studio import plain_yaml
from studio.complaints import problems_of
from studio.errors import SettingsError
from studio.section import Section

FILE = "request.yaml"


class PushRequest(Section):
    """Share"""

    repo: Annotated[str, Field(min_length=1, title="Repository")]
    """Where on the Hub: a name of your choice, or owner/name for an organisation you may write to."""
    what: Annotated[Literal["adapter", "merged", "gguf"], Field(title="What")] = "adapter"
    """The adapter is small and needs its base; the merged model stands alone and is as large as the base in 16 bits; the GGUF file is
    for llama.cpp."""
    private: Annotated[bool, Field(title="Private")] = True
    """Only you, or your organisation, can see it. It can be made public on the Hub at any time."""
    overwrite: Annotated[bool, Field(title="Replace")] = False
    """Allows replacing the files of a repository that another tool made. Its history keeps them."""

    def __init__(self, /, **choices: Any):
        try:
            super().__init__(**choices)
        except ValidationError as error:
            raise SettingsError(problems_of(error)) from None

    @model_validator(mode="after")
    def _repo_can_be_a_name(self) -> Self:
        try:
            validate_repo_id(self.repo)
        except HFValidationError:
            raise ValueError(f"repo: {self.repo[:80]!r} cannot be a repository's name. Use letters, digits, single dots "
                             "and hyphens, at most 96 of them, such as my-model or owner/my-model.") from None
        return self

    @classmethod
    def from_yaml(cls, text: str) -> Self:
        """The request that `to_yaml` wrote. Raises SettingsError, also for a text that is not YAML."""
        return cls(**plain_yaml.mapping(text))

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """The request from a YAML file. Raises SettingsError."""
        return cls.from_yaml(plain_yaml.of_file(path))

    def to_yaml(self) -> str:
        """All choices as YAML; `from_yaml` gives the same request back."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True)
