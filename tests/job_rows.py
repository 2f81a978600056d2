"""Jobs as rows of the database, without what a submission checks."""

from typing import Any

from core.database import new_id
from core.service.jobs.tables import JobRow


def job_row(team: str, **columns: Any) -> JobRow:
    """Return a job of a team, which is not in the database yet, with these columns in place of the usual ones."""
    model = {"kind": "folder", "name": "tiny", "path": "/models/tiny", "revision": "sha256:0"}
    usual = {
        "id": new_id("job"), "team_id": team, "attempts_allowed": 3, "body": {},
        "sources": {"model": model, "calibration": None, "evaluation": []}, "model": "tiny",
        "model_revision": "sha256:0", "method": "magnitude", "queue": "default", "priority": 0, "labels": {},
    }  # fmt: skip
    return JobRow(**usual | columns)
