"""Installation that a command acts on: the teams of this machine, and whether its server is elsewhere."""

import os
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from pydantic import BaseModel

from secateur.configuration import embedded_url

Answer = TypeVar("Answer", bound=BaseModel)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from worker.embedded.instance import EmbeddedInstance


def is_elsewhere() -> bool:
    """Return whether the environment names another server than this home's; files cannot be copied to another one."""
    return "SECATEUR_URL" in os.environ and os.environ["SECATEUR_URL"].rstrip("/") != embedded_url()


def as_client_sees(answer: BaseModel, kind: type[Answer]) -> Answer:
    return kind.model_validate(answer.model_dump(mode="json"))


TeamOption = Annotated[str | None, typer.Option(help="The team; unset: the first one.")]


def team_id_of(session: "Session", instance: "EmbeddedInstance", name: str | None) -> str:
    from core.service.teams.administration import team_named

    return instance.team_id if name is None else team_named(session, name)
