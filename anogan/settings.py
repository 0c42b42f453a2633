"""Settings described once: what each means, what it may be, and how its flag is typed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from anogan.errors import UserError


@dataclass(frozen=True)
class Setting:
    """The description of a dataclass's field, kept in the field's metadata."""

    help: str  # a sentence; {default} and {classic} stand for the presets' values
    span: tuple[float, float] | None = None  # lowest and highest value; the default may lie outside
    choices: tuple[Any, ...] = ()
    flag: str = ""  # where it is not the field's name
    argument: dict[str, Any] = field(default_factory=dict)  # more for argparse's add_argument

    def require(self, name: str, value: Any) -> None:
        """Raise UserError for a value that is not in the range."""
        if self.choices and value not in self.choices:
            allowed = ", ".join(map(str, self.choices))
            raise UserError(f"{name} must be one of {allowed}, not {value}")
        if self.span and not self.span[0] <= value <= self.span[1]:
            raise UserError(f"{name} must be from {self.span[0]} to {self.span[1]}, not {value}")


def setting(
    default: Any,
    help: str,
    span: tuple[float, float] | None = None,
    metavar: str | tuple[str, ...] | None = None,
    choices: tuple[Any, ...] = (),
    flag: str = "",
    **argument: Any,
) -> Any:
    """Return a dataclass field with its description."""
    described = Setting(help, span, choices, flag, {"metavar": metavar, **argument})
    return field(default=default, metadata={Setting: described})


def described(cls: type) -> dict[str, Setting]:
    """Return the descriptions of a dataclass's fields, by name."""
    found = {f.name: f.metadata.get(Setting) for f in dataclasses.fields(cls)}
    return {name: one for name, one in found.items() if one}
