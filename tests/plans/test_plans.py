"""Plans: what is chosen for a goal and a model, what is refused, and that a submit takes every job that is planned."""

import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as budget
from hypothesis import strategies as st

from core.database import transaction
from core.service.jobs.estimates.history import estimate_that_fits
from core.service.jobs.queue import heartbeat
from core.service.jobs.resolution.context import RequestContext
from core.service.jobs.resolution.job import resolve_job
from core.service.jobs.schemas import JobBody
from core.service.jobs.service import submit
from core.service.plans.service import plan
from secateur_wire.errors import InvalidRequest
from secateur_wire.plans import Goal, Plan, PlanBody
from tests.client.command_line import RunHere
from tests.plans.desk import BODY, METRICS, MODELS, Desk, add_model, add_set


def choice(planned: Plan, field: str) -> Any:
    return next(each for each in planned.choices if each.field == field)


def test_the_goals_of_a_language_model(desk: Desk) -> None:
    desk.register("my-calibration", "my-articles")
    speed, size, sparsity, curves = (desk.plan("smol", goal) for goal in ("speed", "size", "sparsity", "sensitivity"))
    for planned in (speed, size, sparsity, curves):
        job: Any = planned.job
        assert job["calibration"]["dataset"] == "my-calibration" and job["evaluation"]["datasets"] == ["my-articles"]
        assert "seconds" not in planned.figures, "a formula alone is 5 times off either way"
        assert any(each.startswith("seconds: about ") and "formula alone" in each for each in planned.unknown)
    assert (speed.job["method"], speed.job["pattern"]) == ("frontier", "structured")
    assert (sparsity.job["method"], sparsity.job["pattern"]) == ("frontier", "unstructured")
    assert size.job["output"] == {"format": "packed"} and curves.job["method"] == "sensitivity"
    for planned in (speed, size, sparsity):
        ratio = planned.figures["perplexity_ratio"]
        assert planned.amount is not None and ratio.estimate <= 1.2 and ratio.source == "measurements"
        more = next(each for each in planned.points if each.amount > planned.amount + 0.01)
        assert more.figures["perplexity_ratio"].estimate > 1.2, "the largest amount that stays close"
        assert choice(planned, "amount").value == planned.amount
    assert size.figures["bytes_ratio"].estimate == pytest.approx(1 - (size.amount or 0), abs=1e-3)
    assert sparsity.figures["bytes_ratio"].estimate == 1
    for name in ("prefill_ratio", "decode_ratio"):
        assert speed.figures[name].source == "measurements" and speed.figures[name].high < 1
    large = desk.plan("large", "speed")
    assert any(each.startswith("prefill_ratio and decode_ratio: no job") for each in large.unknown)
    assert curves.amount is None and not curves.points and "perplexity_ratio" not in curves.figures


def test_quality_is_kept_by_the_whole_band_and_by_a_gate(desk: Desk) -> None:
    desk.register("my-calibration", "my-articles")
    kept = desk.plan("smol", "sparsity", keep_quality=1.3)
    assert kept.figures["perplexity_ratio"].high <= 1.3 < kept.figures["perplexity_ratio"].high * 1.05
    assert kept.job["gates"] == {"max_perplexity_ratio": 1.3}
    refused = desk.refusal("smol", "sparsity", keep_quality=1.5, pattern="2:4")
    assert refused.param == "keep_quality" and "cannot be reached: the nearest is 10.8" in refused.message
    unknown = desk.refusal("narrow", "sparsity", keep_quality=1.5)
    assert (unknown.param, unknown.status) == ("keep_quality", 422) and "give amount" in unknown.message


def test_what_is_not_known_is_named_and_not_guessed(desk: Desk) -> None:
    small = desk.plan("narrow", "sparsity")
    assert small.amount == 0.5 and "usual amount" in choice(small, "amount").reason
    assert "perplexity_ratio" not in small.figures and small.unknown[0].startswith("perplexity_ratio: no job")
    far = desk.plan("smol", "sparsity", amount=0.93)
    assert "perplexity_ratio" not in far.figures
    other = desk.plan("smol", "sparsity", pattern="4:8")
    assert other.amount == 0.5 and "perplexity_ratio" not in other.figures
    large, own = desk.plan("large", "sparsity", amount=0.5), desk.plan("smol", "sparsity", amount=0.5)
    bands = [each.figures["perplexity_ratio"] for each in (large, own)]
    assert bands[0].high / bands[0].low > 2 * bands[1].high / bands[1].low and "times smaller" in bands[0].basis


REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("smol", {"goal": "sensitivity", "amount": 0.5}, "amount", "removes nothing"),
    ("smol", {"goal": "speed", "pattern": "2:4"}, "pattern", "is only for goal 'sparsity'"),
    ("smol", {"goal": "sparsity", "pattern": "structured"}, "pattern", "use goal 'speed'"),
    ("smol", {"goal": "sparsity", "pattern": "two of four"}, "pattern", "use 'unstructured'"),
    ("smol", {"goal": "sparsity", "pattern": "2:4", "amount": 0.6}, "amount", "removes 0.5"),
    ("smol", {"goal": "sparsity", "dataset": "nowhere"}, "dataset", "there is no dataset 'nowhere'"),
    ("smol", {"goal": "speed", "amount": 0.95}, "amount", "at most"),
    ("smol", {"goal": "size", "amount": 0.9}, "amount", "at most"),
    ("odd", {"goal": "sparsity", "pattern": "2:4"}, "pattern", "which 4 does not divide"),
    ("layers", {"goal": "speed"}, "model", "cannot lose channels: they are shared"),
    ("weights", {"goal": "sparsity"}, "model", "cannot lose weights"),
    ("images", {"goal": "sparsity", "keep_quality": 1.1}, "keep_quality", "max_accuracy_drop"),
    ("images", {"goal": "speed"}, "calibration", "labelled images"),
    ("images", {"goal": "sparsity", "dataset": "self"}, "dataset", "leave it out"),
    ("nobody", {"goal": "speed"}, "model", "there is no model 'nobody'"),
]


def test_what_cannot_be_is_refused_by_name(desk: Desk) -> None:
    for model, asked, param, said in REFUSED:
        error = desk.refusal(model, **asked)
        assert error.param == param and said in error.message and error.status == 422, (model, asked, error.message)


def test_the_next_candidate_is_taken_where_the_first_cannot_be(desk: Desk) -> None:
    channels, gradients = desk.plan("channels", "speed"), desk.plan("gradients", "sparsity")
    assert channels.job["method"] == "depth"
    assert "frontier was not taken: LlamaForCausalLM cannot lose channels" in choice(channels, "method").reason
    assert gradients.job["parameters"] == {"budget": "quick", "allocation": "uniform"}
    first = desk.plan("smol", "sparsity", amount=0.5)
    with transaction(desk.sessions) as session:
        resolved = resolve_job(desk.context(session), JobBody.model_validate(first.job))
        estimate = estimate_that_fits(session, desk.team, resolved, desk.settings).estimate
        facts: Any = {"queue": "default", "device": "cpu", "hostname": "bed", "pid": 1}
        heartbeat(session, "worker_1", **facts, disk_free_bytes=estimate.disk_bytes - 1)
    smaller = desk.plan("smol", "sparsity", amount=0.5)
    assert (first.job["method"], smaller.job["method"]) == ("frontier", "sparsegpt")
    assert "frontier was not taken: no worker of queue 'default' can hold" in choice(smaller, "method").reason


def test_classifiers_get_filters_and_training_or_zeros(desk: Desk) -> None:
    desk.register("a-text", images=5000, classes=10)
    speed = desk.plan("images", "speed")
    assert (speed.job["method"], speed.amount) == ("filter-l1", 0.2)
    assert speed.job["calibration"] == {"dataset": "photos-train", "samples": 1024}
    assert "finetune" in str(speed.job["recovery"])
    assert any(each.startswith("accuracy:") for each in speed.unknown)
    size = desk.plan("images", "size", amount=0.3)
    assert size.job["method"] == "magnitude" and "calibration" not in size.job
    assert size.figures["bytes_ratio"].estimate == pytest.approx(0.7, abs=0.01)
    assert desk.plan("images", "sensitivity").job["evaluation"] == {"datasets": ["photos-train"]}
    assert desk.refusal("other-images", "speed").param == "calibration", "the set has other classes"


def test_jobs_of_the_team_come_first_and_an_artifact_goes_on_where_it_stands(desk: Desk, other_team: str) -> None:
    desk.register("my-calibration", "my-articles")
    before = desk.plan("smol", "sparsity", amount=0.4)
    shipped = before.figures["perplexity_ratio"]
    assert "bits_per_byte_ratio" not in before.figures, "no job measured the dense model"
    assert any(each.startswith("bits_per_byte_ratio: ") for each in before.unknown)
    job = desk.ended_job(BODY, METRICS)
    after = desk.plan("smol", "sparsity", amount=0.4)
    own, bits = after.figures["perplexity_ratio"], after.figures["bits_per_byte_ratio"]
    assert bits.estimate == pytest.approx(math.log(20 * own.estimate) / math.log(20))
    assert bits.high == pytest.approx(math.log(20 * own.high) / math.log(20)) and bits.source == "jobs"
    assert bits.basis.endswith("the dense perplexity of 20 was measured on my-articles")
    assert all("bits_per_byte_ratio" in each.figures for each in after.points if "perplexity_ratio" in each.figures)
    assert (shipped.source, own.source, own.count) == ("measurements", "jobs", 1)
    assert own.estimate == pytest.approx(1.15, abs=0.005) and own.high / own.low < shipped.high / shipped.low
    again = desk.plan(f"job:{job}", "sparsity", amount=0.5)
    fresh = desk.plan("smol", "sparsity", amount=0.5)
    ratios = [each.figures["perplexity_ratio"].estimate for each in (again, fresh)]
    assert ratios[0] == pytest.approx(ratios[1] / 1.15, rel=0.01), "that much was lost before"
    assert desk.plan(f"job:{job}", "sparsity", amount=0.3).figures["perplexity_ratio"].estimate == 1
    cut = desk.plan(f"job:{job}", "speed", amount=0.1).figures["perplexity_ratio"]
    plain = desk.plan("smol", "speed", amount=0.1).figures["perplexity_ratio"]
    assert cut.high / cut.low > plain.high / plain.low, "parts of another kind went before"
    with transaction(desk.sessions) as session:
        add_model(session, other_team, "smol", MODELS["smol"])
        body = PlanBody(model="smol", goal="sparsity", amount=0.4)
        theirs = plan(RequestContext(session, other_team, desk.store, desk.settings), body)
    assert theirs.figures["perplexity_ratio"].source == "measurements"


def test_a_dense_model_that_is_smaller_is_offered_in_place_of_pruning(desk: Desk) -> None:
    desk.register("my-calibration", "my-articles")
    size = desk.plan("wide", "size")
    counted = {"dense in bfloat16": 269_030_016, "dense as gguf Q8_0": 143_025_408}
    assert {each.name: each.bytes for each in size.alternatives} == counted
    assert "Not worth pruning for size: take the dense model as gguf Q8_0, which has 26.6 %" in size.summary
    assert size.instead is not None and size.instead["output"] == {"dtype": "bfloat16"}, "no worker writes the other"


def _worker(desk: Desk, number: int, *runtimes: str) -> None:
    with transaction(desk.sessions) as session:
        facts: Any = {"queue": "default", "device": "cpu", "hostname": "bed", "pid": 1}
        heartbeat(session, f"worker_{number}", **facts, runtimes=list(runtimes))


def test_files_whose_engine_no_worker_has_are_refused_before_a_job_is_queued(desk: Desk) -> None:
    desk.register("my-calibration", "my-articles")
    body = {"model": "wide", "method": "none", "output": {"exports": [{"format": "openvino", "types": ["INT8"]}]}}

    def queue() -> None:
        with transaction(desk.sessions) as session:
            submit(desk.context(session), JobBody.model_validate(body))

    queue()  # nothing is known of workers yet
    _worker(desk, 1, "llama.cpp", "onnxruntime")
    with pytest.raises(InvalidRequest, match=r"no worker of queue 'default' has OpenVINO.*leave openvino out"):
        queue()
    _worker(desk, 2, "OpenVINO")
    queue()


PATTERNS = st.sampled_from([None, "unstructured", "2:4", "1:4", "4:8"])
AMOUNTS = st.one_of(st.none(), st.floats(0.001, 0.999))
QUALITIES = st.one_of(st.none(), st.floats(1.001, 20))
GOALS: list[Goal] = ["speed", "size", "sparsity", "sensitivity"]


@budget(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.sampled_from(list(MODELS)), st.sampled_from(GOALS), AMOUNTS, QUALITIES, PATTERNS, st.booleans())
def test_a_submit_takes_every_job_that_is_planned(
    desk: Desk, model: str, goal: Goal, amount: float | None, keep: float | None, pattern: str | None, has_text: bool
) -> None:
    with desk.sessions() as session:
        if has_text:
            add_set(session, desk.team, "my-calibration", characters=3000)
            add_set(session, desk.team, "photos-train", images=50, classes=10)
        body = PlanBody(model=model, goal=goal, amount=amount, keep_quality=None if amount else keep, pattern=pattern)
        refused: InvalidRequest | None = None
        try:
            planned = plan(desk.context(session), body)
        except InvalidRequest as error:
            refused = error
        if refused is not None:
            assert refused.message and refused.param, refused
        else:
            job = JobBody.model_validate(planned.job)
            resolved = resolve_job(desk.context(session), job)
            estimate_that_fits(session, desk.team, resolved, desk.settings)
            assert planned.summary and planned.choices and (planned.amount is None) == (goal == "sensitivity")
            for each in [*planned.points, planned]:
                assert all(figure.low <= figure.estimate <= figure.high for figure in each.figures.values())
            ratios = [
                point.figures["perplexity_ratio"] for point in planned.points if "perplexity_ratio" in point.figures
            ]
            assert [each.estimate for each in ratios] == sorted(each.estimate for each in ratios)
            assert not keep or amount or goal == "sensitivity" or planned.figures["perplexity_ratio"].high <= keep
        session.rollback()


def test_the_command_plans_submits_and_says_what_is_unclear(here: RunHere, model: str, dataset: str) -> None:
    ended = here("plan", model, "--for", "sparsity", "--amount", "0.5")
    assert ended.code == 0 and "Set to zero 50 % of the prunable weights of tiny with Frontier" in ended.out
    assert "calibration.dataset" in ended.out and "Not known: perplexity_ratio" in ended.out
    planned = here("plan", model, "--for", "sparsity", "--amount", "0.5", "--json").json
    assert planned["object"] == "plan" and planned["job"]["calibration"]["dataset"] == dataset
    job = here("plan", model, "--for", "sparsity", "--amount", "0.5", "--submit", "--json").json
    assert (job["status"], job["sparsity"]) == ("queued", 0.5)
    assert "Follow it with" in here("plan", model, "--for", "sparsity", "--submit").out
    refused = here("plan", model, "--for", "sparsity", "--keep-quality", "1.1")
    assert refused.code == 2 and "--keep-quality: no measurement says yet" in refused.err
    both = here("plan", model, "--for", "speed", "--keep-quality", "1.1", "--amount", "0.1")
    assert both.code == 2 and "not both" in both.err
