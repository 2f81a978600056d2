"""Operations of the server, one method each, written once, one file per group of nouns.

`AsyncClient` is this over a transport that awaits, and `Client` drives the same coroutines to their end in the calling
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
    """Every method raises `secateur.errors`. Lists are fetched page by page as their iteration reaches them."""
