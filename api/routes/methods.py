"""The catalogue of methods."""

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel

from api.dependencies import Viewer
from api.http.problem_documents import problems
from core.catalogue.method_info import Needs, Paper
from core.catalogue.methods import METHODS
from core.errors import Unauthenticated

router = APIRouter(prefix="/v1/methods", tags=["methods"])


class Method(BaseModel):
    """A method: where it comes from, what it needs, and the JSON schema of its parameters. `description` is a paragraph
    for whoever has to choose, `gains` what hardware makes of the result.
    """

    id: str
    title: str
    summary: str
    description: str
    gains: str
    paper: Paper | None
    task_families: list[str]
    patterns: list[str]
    needs: Needs
    parameters: dict[str, Any]


class MethodList(BaseModel):
    data: list[Method]
    has_more: Literal[False]
    next_after: None


@router.get("", responses=problems(Unauthenticated))
def list_methods(caller: Viewer) -> MethodList:
    """Every method there is."""
    methods = [Method.model_validate(method.public()) for method in METHODS.values()]
    return MethodList(data=methods, has_more=False, next_after=None)
