"""Route of the catalogue of methods."""

from api.dependencies import Viewer
from api.http.problem_documents import problems
from api.http.routing import Router
from core.methods.registry import METHODS
from secateur_wire.errors import Unauthenticated
from secateur_wire.methods import Method, MethodList

router = Router(prefix="/v1/methods", tags=["methods"])


@router.get("", responses=problems(Unauthenticated))
def list_methods(caller: Viewer) -> MethodList:
    """List all pruning methods."""
    methods = [Method.model_validate(method.public()) for method in METHODS.values()]
    return MethodList(data=methods, has_more=False, next_after=None)
