"""The Python SDK and command line of the Secateur pruning service.

`client.py` is what one calls: `Client`, and `AsyncClient` for event loops, both over the one list of what the server
offers in `operations/`. `types.py` and the files `…_types.py` are what comes back, `errors.py` what goes wrong.
`summary.py` says how a job ended, as JSON, Markdown and JUnit XML, from the rows of `metrics_table.py`, written as
`formatting.py` does. `transport/` speaks HTTP, waiting in a thread or an event loop. `events.py`, `downloads.py` and
`uploads.py` carry on over connections that break, `configuration.py` finds the server, and `cli/` is the command line.
What the server and this share, such as the forms in which weights travel, is in `secateur_wire`. Nothing here imports
the server.
"""

from secateur import errors
from secateur.client import AsyncClient, Client
from secateur.keeping_types import (
    Publication,
    Retention,
    RetentionPolicy,
    RetentionPreview,
)
from secateur.report_types import GateResult, Report
from secateur.summary import Summary, summarise
from secateur.sweep_types import Sweep, SweepResults
from secateur.team_types import Attempt, AuditEntry, CreatedKey, HubToken, Key, Queue, Role, Team, Worker
from secateur.trigger_types import Firing, IssuedTrigger, Trigger, TriggerPreview
from secateur.types import (
    ArtifactFile,
    Dataset,
    Event,
    Inspection,
    Job,
    JobStatus,
    Method,
    Metrics,
    Model,
    Upload,
)
from secateur.uploads import UploadProgress
from secateur.webhook_types import CreatedWebhook, Delivery, DeliveryDetail, Webhook

__all__ = [
    "ArtifactFile",
    "AsyncClient",
    "Attempt",
    "AuditEntry",
    "Client",
    "CreatedKey",
    "CreatedWebhook",
    "Dataset",
    "Delivery",
    "DeliveryDetail",
    "Event",
    "Firing",
    "GateResult",
    "HubToken",
    "Inspection",
    "IssuedTrigger",
    "Job",
    "JobStatus",
    "Key",
    "Method",
    "Metrics",
    "Model",
    "Publication",
    "Queue",
    "Report",
    "Retention",
    "RetentionPolicy",
    "RetentionPreview",
    "Role",
    "Summary",
    "Sweep",
    "SweepResults",
    "Team",
    "Trigger",
    "TriggerPreview",
    "Upload",
    "UploadProgress",
    "Webhook",
    "Worker",
    "errors",
    "summarise",
]
