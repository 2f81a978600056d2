"""The Python SDK and command line of the Secateur pruning service.

`client.py` is what one calls: `Client`, and `AsyncClient` for event loops, both over the one list of what the server
offers in `operations.py`. `types.py`, `keeping_types.py` and `team_types.py` are what comes back, `errors.py` and
`refusals.py` what goes wrong. `transport.py` speaks HTTP, waiting in a thread or an event loop, and repeats calls as
`patience.py` says. `events.py`, `downloads.py` and `uploads.py` carry on over connections that break, `packed.py`
unpacks artifacts, `configuration.py` finds the server, and `cli/` is the command line. Nothing here imports the
server.
"""

from secateur import errors
from secateur.client import AsyncClient, Client
from secateur.keeping_types import (
    Publication,
    Retention,
    RetentionPolicy,
    RetentionPreview,
)
from secateur.team_types import Attempt, AuditEntry, CreatedKey, Key, Queue, Role, Team, Worker
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
    Report,
    Upload,
)
from secateur.uploads import UploadProgress

__all__ = [
    "ArtifactFile",
    "AsyncClient",
    "Attempt",
    "AuditEntry",
    "Client",
    "CreatedKey",
    "Dataset",
    "Event",
    "Inspection",
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
    "Team",
    "Upload",
    "UploadProgress",
    "Worker",
    "errors",
]
