"""Accuracy of one model on tasks."""

from importlib.metadata import version

from core.pipeline.stages.inputs import open_place
from core.pipeline.stages.run import StageContext
from core.pipeline.stages.tasks.spec import TasksOutput, TasksSpec


def run(spec: TasksSpec, context: StageContext) -> TasksOutput:
    """Measure the accuracy of one model."""
    from core.engine.evaluation.zero_shot import measure_tasks  # slow to load, and only this stage needs it

    measured = measure_tasks(
        open_place(spec.model),
        {each.name: each.path for each in spec.questions},
        limit=spec.limit,
        examples=spec.num_fewshot,
        work=spec.work,
        device=context.device,
        on_progress=context.progress.advance,
    )
    return TasksOutput(tasks=measured, lm_eval=version("lm_eval"), peak_memory=context.peak_memory())
