"""Resolution of zero-shot tasks: tasks of the catalogue, with the commit of the hub dataset of their questions."""

from collections.abc import Sequence

from core.engine.evaluation.zero_shot_tasks import TASKS
from core.errors import InvalidRequest
from core.service.jobs.resolution.hub_lookup import HubFindings
from core.service.sources.hub_datasets import HubDataset
from core.service.sources.references import HubText, TaskReference


def resolve_tasks(asked: Sequence[str], hub: HubFindings) -> list[TaskReference]:
    """Return the tasks of these names; raises InvalidRequest for one unknown or repeated, and errors of its look-up.

    A task that was not looked up on the hub has a local copy in this service's home.
    """
    for index, name in enumerate(asked):
        param = f"evaluation.tasks.{index}"
        if name not in TASKS:
            raise InvalidRequest(f"{param}: there is no task {name!r}; there is {', '.join(TASKS)}", param=param)
        if name in asked[:index]:
            raise InvalidRequest(f"{param}: {name!r} is named twice", param=param)
    return [_reference(name, hub.task(name, f"evaluation.tasks.{index}")) for index, name in enumerate(asked)]


def _reference(name: str, found: HubDataset | None) -> TaskReference:
    hub = found and HubText(
        name=name,
        repository=found.repository,
        revision=found.revision,
        config=found.config,
        split=found.split,
        use="evaluation",
        characters=None,
        is_public=found.is_public,
    )
    return TaskReference(name=name, hub=hub)
