"""A group of choices that is declared once: what is unknown, or holds a token, is refused for every one of them."""

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from studio import pasted


class Section(BaseModel):
    """A group of settings; its fields' docstrings are the captions in the form."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True,
                              allow_inf_nan=False, str_strip_whitespace=True, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _holds_no_token(cls, value: Any, info: ValidationInfo) -> Any:
        if pasted.is_token(value, or_hex="revision" not in str(info.field_name)):
            raise ValueError(pasted.WORDS)
        return value
