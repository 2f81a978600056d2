"""Readers of references that several checks share. Each raises ValueError with the reason."""

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

_Model = TypeVar("_Model", bound=BaseModel)


def read_texts(reference: Any) -> tuple[str, ...]:
    """Return the texts of a reference that is one text or a list of texts; none of them is blank."""
    texts = [reference] if isinstance(reference, str) else reference
    if not isinstance(texts, list) or not texts or not all(isinstance(each, str) and each.strip() for each in texts):
        raise ValueError(f"a text or a list of texts, none of them empty, is needed, not {_shown(reference)}")
    return tuple(texts)


def read_model(model: type[_Model], reference: Any) -> _Model:
    """Return the reference as a pydantic model."""
    try:
        return model.model_validate(reference)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"])
        raise ValueError(f"{place + ': ' if place else ''}{first['msg']}") from error


def _shown(reference: Any) -> str:
    shown = repr(reference)
    return shown if len(shown) <= 60 else f"{shown[:60]}…"
