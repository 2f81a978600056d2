"""A place in the sources that breaks a rule of style."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """The rule, the place, and the text there that breaks it."""

    rule: str
    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}  {self.text}"
