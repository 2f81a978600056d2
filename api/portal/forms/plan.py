"""A new job as three answers: which model, what for, how much; and what the planner makes of them."""

import math
from dataclasses import dataclass
from typing import Final, get_args

from pydantic import ValidationError

from api.portal.session import Form
from api.state import ApiState
from core.database import transaction
from core.engine.architectures.describe import Description
from core.errors import ApiError, InvalidRequest, NotDiscovered
from core.service.discoveries.asking import ask_for
from core.service.jobs.resolution.model import resolve_model
from core.service.plans.service import looked_up, plan
from core.service.teams.principal import Principal
from core.validation import describe_error
from secateur_wire.discoveries import Discovery
from secateur_wire.plans import Goal, Plan, PlanBody

MODEL: Final = "model"
GOAL: Final = "for"
AMOUNT: Final = "amount"
SHOWN: Final = "shown"
"""Goal and model for which the page showed the amount: for others it is not meant."""
SEARCH: Final = "search"
FIELDS: Final = frozenset({MODEL, GOAL, AMOUNT, SHOWN, SEARCH})
GOALS: Final[dict[Goal, tuple[str, str]]] = {
    "speed": (
        "Faster and smaller on ordinary hardware",
        "Whole heads, channels or layers go. It needs no special runtime.",
    ),
    "size": ("Smaller to store and ship", "The same model in fewer bytes: zeros packed away, or as a GGUF file."),
    "sparsity": ("Sparse for a runtime of mine", "Weights become zero. Your runtime has to make use of that."),
    "sensitivity": ("Find out what it can lose", "Removes nothing: tries each layer alone, and reports."),
}
"""Goals by the words that people choose them by, and what each means."""


@dataclass(frozen=True)
class Answers:
    """Answers as they were given; `amount` is None where the planner is to choose."""

    model: str
    goal: Goal
    amount: float | None = None

    @property
    def shown(self) -> str:
        """Return the text by which the page remembers for which answers it shows an amount."""
        return f"{self.goal} {self.model}"


@dataclass
class PlannedJob:
    """A job on its way from answers to a plan.

    `description` is of the model, `discovery` what has to end before there is one, `plan` what the planner would do,
    `error` why it cannot.
    """

    answers: Answers
    description: Description | None = None
    discovery: Discovery | None = None
    plan: Plan | None = None
    error: str | None = None


def read_answers(form: Form, first_model: str) -> Answers:
    """Return the answers of a form, with the defaults of the page; raises InvalidRequest for an amount that is none."""
    given = form.get(GOAL)
    goal: Goal = next((each for each in get_args(Goal) if each == given), "speed")
    answers = Answers(form.get(MODEL) or first_model, goal)
    is_shown_for_these = form.get(SHOWN, answers.shown) == answers.shown
    if not form.get(AMOUNT) or not is_shown_for_these or goal == "sensitivity":
        return answers
    return Answers(answers.model, goal, _amount(form.get(AMOUNT)))


def _amount(text: str) -> float:
    try:
        amount = float(text)
    except ValueError:
        amount = math.nan
    if not 0 < amount < 1:
        raise InvalidRequest(f"{text[:40]!r} is no share: give one above 0 and below 1, such as 0.3", param=AMOUNT)
    return amount


def plan_job(state: ApiState, caller: Principal, answers: Answers) -> PlannedJob:
    """Ask the planner; a model whose architecture nobody knows yet is discovered first."""
    planned = PlannedJob(answers)
    if not answers.model:
        return planned
    team_id = caller.team_id
    try:
        wanted = PlanBody(model=answers.model, goal=answers.goal, amount=answers.amount)
        findings = state.hub.of(team_id, looked_up(wanted))
        with transaction(state.sessions) as session:
            planned.description = resolve_model(state.request(session, team_id, findings), answers.model).description
        with transaction(state.sessions) as session:
            planned.plan = plan(state.request(session, team_id, findings), wanted)
    except NotDiscovered as missing:
        _have_discovered(planned, state, caller, missing)
    except ApiError as error:
        planned.error = error.message
    except ValidationError as error:
        planned.error = describe_error(error.errors(include_url=False)[0])[1]
    return planned


def _have_discovered(planned: PlannedJob, state: ApiState, caller: Principal, missing: NotDiscovered) -> None:
    try:
        with transaction(state.sessions) as session:
            planned.discovery = ask_for(session, caller, missing, state.settings)
    except ApiError as error:
        planned.error = error.message
