"""Plans: what is chosen for a goal and a model, what is refused, and that a submit takes every job that is planned."""

import math
from importlib.util import find_spec
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
from tests.answers import compared
from tests.client.command_line import RunHere
from tests.plans.desk import BODY, METRICS, MODELS, Desk
from tests.plans.models import add_model, add_set
from worker.samples.first_job import first_job
from worker.samples.language import CALIBRATION, EVALUATION


def job_of(planned: Plan) -> Any:
    return planned.job


def choice(planned: Plan, field: str) -> Any:
    return next(each for each in planned.choices if each.field == field)


def test_the_goals_of_a_language_model(desk: Desk) -> None:
    desk.register("my-calibration", "my-articles")
    speed, size, sparsity, curves = (desk.plan("smol", goal) for goal in ("speed", "size", "sparsity", "sensitivity"))
    for planned in (speed, size, sparsity, curves):
        assert job_of(planned)["calibration"]["dataset"] == "my-calibration"
        assert job_of(planned)["evaluation"]["datasets"] == ["my-articles"]
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


def test_more_than_stays_close_is_recovered_where_parts_go_and_there_is_text(desk: Desk) -> None:
    assert "recovery" not in desk.plan("smol", "speed", amount=0.2).job
    desk.register("my-calibration", "my-articles")
    planned = desk.plan("smol", "speed", amount=0.2)
    assert planned.job["recovery"] == {"method": "distill", "minutes": 10}
    assert any(each.startswith("what training wins back") for each in planned.unknown)
    assert "recovery" not in desk.plan("smol", "sparsity", amount=0.6).job


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


def test_the_first_job_of_a_new_user_fits_the_sample_model(desk: Desk) -> None:
    desk.register(CALIBRATION, EVALUATION)
    body = JobBody.model_validate(first_job() | {"model": "smol"})
    with transaction(desk.sessions) as session:
        recipe = resolve_job(desk.context(session), body).recipe
    assert (recipe.method, recipe.pattern, recipe.output.dtype) == ("depth", "structured", "bfloat16")
    assert bool(recipe.output.exports) == (find_spec("llama_cpp_py_sync") is not None)


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
    assert job_of(speed)["recovery"]["method"] == "finetune"
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


def test_what_jobs_found_of_answers_is_expected_asked_again_and_bounds_the_amount(desk: Desk) -> None:
    desk.register("my-calibration", "my-articles")
    before = desk.plan("smol", "sparsity")
    assert before.answers is None and not any(each.startswith("answer_kl") for each in before.unknown)
    with transaction(desk.sessions) as session:
        add_set(session, desk.team, "chats", characters=1000, format="chat_jsonl")
    unknown = desk.plan("smol", "sparsity")
    assert unknown.answers is None and 'name "chats" in evaluation.answers' in unknown.unknown[0]

    asked = {"datasets": ["chats"], "samples": 8}
    body = BODY | {"evaluation": {"datasets": ["my-articles"], "answers": asked}}
    job = desk.ended_job(body, METRICS | {"answers": {"chats": compared(2.0)}})
    planned = desk.plan("smol", "sparsity", amount=0.4)
    figure = planned.figures["answer_kl"]
    assert (planned.answers, figure.source, figure.count) == ("no longer answers", "jobs", 1)
    assert figure.estimate == pytest.approx(2.0) and figure.low < 2.0 < figure.high
    assert "of this team on this model, at 40% of the weights, it no longer answers: KL 2 nats" in planned.summary
    assert job_of(planned)["evaluation"]["answers"] == asked
    assert job in choice(planned, "evaluation.answers.datasets").reason
    less = desk.plan("smol", "sparsity")
    assert less.answers == "answers change" and (less.amount or 0) < (before.amount or 0)
    assert "still answers" in choice(less, "amount").reason


def test_a_measured_recovery_and_written_files_are_known_to_later_plans(desk: Desk) -> None:
    desk.register("my-calibration", "my-articles")
    figures = {"dense": 20.0, "before_recovery": 44.0, "pruned": 26.0, "ratio": 1.3}
    body = {
        **BODY,
        "pattern": "structured",
        "sparsity": 0.2,
        "calibration": {"dataset": "my-calibration", "samples": 128, "sequence_length": 512},
        "recovery": {"method": "distill", "minutes": 10},
    }
    removed = {"dense": 134_515_008, "nonzero": round(0.8 * 134_515_008)}
    latency = {"dense_ms": 100.0, "pruned_ms": 82.0, "decode_dense_ms": 10.0, "decode_pruned_ms": 8.0, "spread": 0.02}
    desk.ended_job(
        body,
        {
            "perplexity": {"my-articles": figures},
            "parameters": removed,
            "latency": latency,
            "exports": [{"file": "model-Q8_0.gguf", "format": "gguf", "type": "Q8_0", "bytes": 1}],
        },
    )
    trained = desk.plan("smol", "speed", amount=0.2)
    ratio = trained.figures["perplexity_ratio"]
    assert (ratio.source, round(ratio.estimate, 2)) == ("jobs", 1.3) and trained.job["recovery"]
    assert trained.figures["prefill_ratio"].estimate == pytest.approx(0.82, abs=1e-3)
    assert trained.figures["decode_ratio"].estimate == pytest.approx(0.8, abs=1e-3) and len(trained.unknown) == 1
    less = desk.plan("smol", "speed", amount=0.1).figures
    assert less["perplexity_ratio"].estimate > 1.1, "before recovery it was 2.2"
    size = desk.plan("smol", "size", amount=0.2)
    assert size.job["output"] == {"format": "packed", "exports": [{"format": "gguf", "types": ["Q8_0"]}]}
    assert "53% of the bytes" in str(choice(size, "output.exports").value)
    assert "exports" not in str(desk.plan("gradients", "size", amount=0.2).job["output"]), "llama.cpp has it not"


def test_what_needs_no_pruning_is_set_beside_and_offered_where_it_is_smaller(desk: Desk) -> None:
    desk.register("my-calibration", "my-articles")
    counted = {"dense in bfloat16": 269_030_016, "dense as gguf Q8_0": 143_025_408}
    for goal in ("speed", "size", "sparsity"):
        planned = desk.plan("wide", goal)
        assert {each.name: each.bytes for each in planned.alternatives} == counted
    size, speed = desk.plan("wide", "size"), desk.plan("wide", "speed", keep_quality=1.1)
    assert (
        size.job["output"] == {"format": "packed", "dtype": "bfloat16"} and size.figures["bytes_ratio"].estimate < 0.4
    )
    assert "Not worth pruning for size: take the dense model as gguf Q8_0, which has 26.6 %" in size.summary
    assert size.instead is not None and size.instead["output"] == {"dtype": "bfloat16"}, (
        "no worker is known to write it"
    )
    assert speed.amount is not None and speed.amount < 0.05 and "less than 5 % goes" in speed.summary
    assert "10 minutes" in choice(speed, "recovery").reason and speed.instead is None
    assert desk.plan("wide", "size", amount=0.3).job["output"] == {"format": "packed"}, "bfloat16 alone removes more"

    file = {
        "file": "model-Q8_0.gguf",
        "format": "gguf",
        "type": "Q8_0",
        "bytes": 144_811_712,
        "kl": 4e-4,
        "top_1": 0.99,
    }
    body = {"model": "wide", "method": "none", "output": {"exports": [{"format": "gguf", "types": ["Q8_0"]}]}}
    stored = desk.ended_job(body, {"exports": [file]})
    size = desk.plan("wide", "size")
    assert size.job["pattern"] == "structured" and size.instead is None
    assert size.job["output"] == {"dtype": "bfloat16", "exports": body["output"]["exports"]}
    assert size.amount is not None and size.figures["bytes_ratio"].estimate == pytest.approx(1 - size.amount, abs=0.01)
    assert size.figures["bytes_ratio"].estimate < 0.25 and "and write gguf Q8_0" in size.summary
    measured = next(each for each in size.alternatives if each.name == "dense as gguf Q8_0")
    assert (measured.bytes, measured.kl, measured.basis) == (file["bytes"], 4e-4, f"measured by {stored}")
    kept = desk.plan("wide", "size", keep_quality=1.1)
    assert kept.instead is not None and "KL 0.0004" in kept.summary
    assert kept.instead["output"] == {"exports": [{"format": "gguf", "types": ["Q8_0", "Q4_K_M"]}]}, "not yet measured"
    with transaction(desk.sessions) as session:
        assert submit(desk.context(session), JobBody.model_validate(kept.instead)).method == "none"


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


def test_few_bits_that_no_worker_can_pack_are_refused_with_the_command_that_installs_the_library(desk: Desk) -> None:
    desk.register("my-calibration", "my-articles")
    _worker(desk, 1, "llama.cpp")
    body = {"model": "wide", "method": "none", "output": {"quantization": {"scheme": "int4"}}}
    with (
        pytest.raises(InvalidRequest, match=r"has compressed-tensors, .*pip install .*whl\[worker\]'"),
        transaction(desk.sessions) as session,
    ):
        submit(desk.context(session), JobBody.model_validate(body))


def test_files_that_every_worker_can_write_are_offered_before_any_job_wrote_one(desk: Desk) -> None:
    desk.register("my-calibration", "my-articles")
    q8 = {"format": "gguf", "types": ["Q8_0"]}
    assert "exports" not in str(desk.plan("wide", "size").job), "no worker told what it has"
    _worker(desk, 1, "llama.cpp", "onnxruntime")
    kept = desk.plan("wide", "size", keep_quality=1.1)
    assert kept.job["output"] == {"format": "packed", "dtype": "bfloat16", "exports": [q8]}
    assert kept.instead is not None and kept.instead["method"] == "none"
    assert kept.instead["output"] == {"exports": [{"format": "gguf", "types": ["Q8_0", "Q4_K_M"]}]}, "measured once"
    assert "take the dense model as gguf Q8_0" in kept.summary
    with transaction(desk.sessions) as session:
        resolve_job(desk.context(session), JobBody.model_validate(kept.instead))
    _worker(desk, 2)
    assert "exports" not in str(desk.plan("wide", "size").job), "any worker may take the job, and one has no llama.cpp"
    assert "no worker here has llama.cpp" in choice(desk.plan("wide", "size"), "output.exports").reason


def test_what_jobs_measured_of_the_dense_model_is_kept_and_joined(desk: Desk) -> None:
    desk.register("my-calibration", "my-articles")
    rate = {"dense": 40.0, "pruned": 50.0, "spread": 0.02, "noise": 0.03}
    speed = {"prefill": {**rate, "dense": 300.0}, "decode": rate, "prompt_tokens": 128, "decoded_tokens": 32}
    speed |= {"rounds": 3, "threads": 1, "dense_bytes": 105_000_000}
    export = {"file": "model-Q4_K_M.gguf", "format": "gguf", "type": "Q4_K_M", "bytes": 80_000_000, "speed": speed}
    body = {**BODY, "model": "wide", "pattern": "structured", "sparsity": 0.2, "output": {"dtype": "bfloat16"}}
    rounded = {"name": "dense in bfloat16", "output": {"dtype": "bfloat16"}, "bytes": 269_030_016, "ratio": 0.5}
    rounded |= {"basis": "counted", "kl": 2e-4, "perplexity_ratio": 1.0007}
    first = desk.ended_job(body, {"exports": [export], "alternatives": [rounded]})
    known = {each.name: each for each in desk.plan("wide", "size").alternatives}
    mixed, narrow = known["dense as gguf Q4_K_M"], known["dense in bfloat16"]
    assert (mixed.bytes, mixed.prefill, mixed.decode, mixed.kl) == (105_000_000, 300.0, 40.0, None)
    assert (narrow.kl, narrow.bytes) == (2e-4, 269_030_016) and first in narrow.basis
    assert mixed.words == "quality not measured yet, 40 tokens/s written ± 3.0%"
    none = {"model": "wide", "method": "none", "output": {"exports": [{"format": "gguf", "types": ["Q4_K_M"]}]}}
    own = {"prefill": 310.0, "decode": 41.0, "prompt_tokens": 128, "decoded_tokens": 32, "rounds": 3, "threads": 1}
    quality = {"kl": 0.03, "top_1": 0.9, "perplexity": 21.0, "artifact_perplexity": 20.0}
    dense = {name: value for name, value in export.items() if name != "speed"} | {"bytes": 105_400_000}
    desk.ended_job(none, {"exports": [{**dense, **quality, "own_speed": own}]})
    (mixed,) = (each for each in desk.plan("wide", "size").alternatives if each.name.endswith("Q4_K_M"))
    assert (mixed.bytes, mixed.decode, mixed.kl) == (105_400_000, 41.0, 0.03)
    assert mixed.bits_per_byte_ratio == pytest.approx(math.log(21) / math.log(20))


def test_a_classifier_in_float16_is_set_beside_its_plan_and_no_job_is_offered_for_it(desk: Desk) -> None:
    size = desk.plan("images", "size", amount=0.3)
    (half,) = size.alternatives
    assert (half.name, half.ratio) == ("dense in float16", 0.5) and size.instead is None
    assert "take the dense model in float16, which has 50 % of the bytes" in size.summary


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
