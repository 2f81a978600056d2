"""Operations of the server: a method for each call, and a file for each group of nouns.

`AsyncClient` is this class over a transport that awaits. `Client` runs the same coroutines to their end in the calling
thread.
"""

from secateur.operations.jobs import JobOperations
from secateur.operations.planning import PlanningOperations
from secateur.operations.registry import RegistryOperations
from secateur.operations.retention import RetentionOperations
from secateur.operations.sweeps import SweepOperations
from secateur.operations.team import TeamOperations
from secateur.operations.triggers import TriggerOperations
from secateur.operations.webhooks import WebhookOperations

__all__ = ["Operations"]


class Operations(
    RegistryOperations,
    PlanningOperations,
    JobOperations,
    SweepOperations,
    TriggerOperations,
    WebhookOperations,
    RetentionOperations,
    TeamOperations,
):
    """Operations of the server.

    Every method raises `secateur.errors`; lists are fetched page by page while they are iterated.
    """
