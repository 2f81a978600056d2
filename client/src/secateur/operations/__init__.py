"""Operations of the server: a method for each call, and a file for each group of nouns."""

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
