"""Registry of stages: every folder of this package, by its task. It does not load torch."""

import json
from typing import cast

from core.discovery import find_class, folders, require_class
from core.pipeline import stages
from core.pipeline.messages import JobSpec, Spec
from core.pipeline.stages.stage import JobStage

_MODULE = "spec"

SPECS = {task: cast(type[Spec], require_class(stages, task, _MODULE, Spec)) for task in folders(stages)}
STAGES = {task: stage() for task in SPECS if (stage := find_class(stages, task, _MODULE, JobStage))}


def stages_of(spec: JobSpec) -> list[JobStage]:
    """Return the stages of a job, in their order."""
    return sorted((each for each in STAGES.values() if each.applies(spec)), key=lambda stage: stage.rank)


def parse_spec(message: bytes) -> Spec:
    """Parse a message to a runner; raises pydantic's ValidationError if it does not fit the task's spec."""
    return SPECS[json.loads(message)["task"]].model_validate_json(message)


def run_module(task: str) -> str:
    """Return the name of the module that runs a task; the module needs torch."""
    return f"{stages.__name__}.{task}.run"
