"""The Python SDK and command line of the Secateur pruning service.

`client.py` has `Client`, with the operations of the server in `operations/`. Answers have the types of `secateur_wire`,
the package that the server and the client share. `jobs.py` has the class of a job, and `errors.py` the errors.
`summary.py` writes the result of a job as JSON, Markdown and JUnit XML, from the rows of `metrics_table.py` and the
formats of `formatting.py`. `transport/` sends HTTP requests. `events.py`, `downloads.py` and `uploads.py` continue over
interrupted connections. `configuration.py` finds the server, and `cli/` is the command line. Nothing here imports the
server.
"""

from typing import NoReturn

from secateur import errors
from secateur.client import Client
from secateur.jobs import Job
from secateur.summary import Summary, summarise
from secateur.uploads import UploadProgress
from secateur_wire import gone
from secateur_wire.datasets import Dataset
from secateur_wire.fleet import Queue, Worker
from secateur_wire.jobs import ArtifactFile, Inspection
from secateur_wire.jobs import JobAttempt as Attempt
from secateur_wire.jobs import JobEvent as Event
from secateur_wire.methods import Method
from secateur_wire.metrics import Metrics
from secateur_wire.models import Model
from secateur_wire.plans import Plan
from secateur_wire.publications import Publication
from secateur_wire.reports import GateResult, Report
from secateur_wire.retention import Retention, RetentionPolicy, RetentionPreview
from secateur_wire.samples import SampleRequest
from secateur_wire.states import JobStatus
from secateur_wire.sweeps import Sweep, SweepResults
from secateur_wire.teams import AuditEntry, CreatedKey, HubToken, Key, Role, Team
from secateur_wire.triggers import Firing, IssuedTrigger, Trigger, TriggerPreview
from secateur_wire.uploads import Upload
from secateur_wire.webhooks import CreatedWebhook, Delivery, DeliveryDetail, Webhook

__all__ = [
    "ArtifactFile",
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
    "Plan",
    "Publication",
    "Queue",
    "Report",
    "Retention",
    "RetentionPolicy",
    "RetentionPreview",
    "Role",
    "SampleRequest",
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


def __getattr__(name: str) -> NoReturn:
    if name in gone.OF_THE_SDK:
        raise AttributeError(f"{name} has left secateur: {gone.OF_THE_SDK[name]}")
    raise AttributeError(f"module 'secateur' has no attribute {name!r}")
