"""What all settings are made of: sections that refuse unknown keys and name what is wrong."""

import difflib
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]


class Section(BaseModel):
    """A group of settings; refuses keys it does not know and says which it does."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _name_unknown_keys(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        for key in data:
            if key not in cls.model_fields:
                near = difflib.get_close_matches(str(key), cls.model_fields, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                allowed = ", ".join(cls.model_fields)
                raise ValueError(f"unknown key {key!r}; allowed keys: {allowed}.{hint}")
        return data


class Root(Section):
    """What a config's `args` or `user_config` are checked with."""

    @model_validator(mode="wrap")
    @classmethod
    def _say_what_is_wrong(cls, data: Any, check: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return check(data)
        except ValidationError as exc:
            raise ValueError("; ".join(_complaint(error) for error in exc.errors())) from None


def complaint(error: ValidationError) -> str:
    """What ``Root`` says, without pydantic's own words around it."""
    return "; ".join(each["msg"].removeprefix("Value error, ") for each in error.errors())


def _complaint(error: ErrorDetails) -> str:
    where = ".".join(str(part) for part in error["loc"])
    text = error["msg"].removeprefix("Value error, ")
    given = error["input"]
    if {"storage", "alerts"} & set(error["loc"]) or not isinstance(given, str | int | float | bool):
        return f"{where}: {text}" if where else text
    return f"{where}: {text}, not {given!r}"
