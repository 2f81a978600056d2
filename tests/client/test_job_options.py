"""The table of a job body's fields, and the options of the command line that come from it."""

import pytest

from secateur_wire.body_fields import body_fields
from secateur_wire.job_body import JobBody, JobFields
from secateur_wire.job_fields import ENTRIES
from secateur_wire.job_options import body_of, job_options, option_for


def test_every_field_of_a_job_body_is_asked_for() -> None:
    fields = body_fields(JobBody)
    objects = {path for path in ENTRIES if path not in fields}
    assert objects == {"target", "parameters", "recovery", "vocabulary"} <= JobBody.model_fields.keys()
    assert not [path for path in fields if path not in ENTRIES and path.partition(".")[0] not in objects]


def test_what_an_entry_refers_to_is_there() -> None:
    for entry in ENTRIES.values():
        assert {entry.needed, entry.also.partition(".")[0]} <= {"", *ENTRIES}, entry
        assert not entry.needed or ENTRIES[entry.needed].option, entry


def test_a_parameter_keeps_its_own_seed() -> None:
    given = {"--parameter": ["seed=5"], "--seed": 7, "--calibration": "a"}
    assert body_of(given) == {"parameters": {"seed": 5}, "calibration": {"dataset": "a", "seed": 7}}


def test_a_refused_object_is_told_the_options_that_write_it() -> None:
    assert option_for("evaluation") == "--evaluation NAME"
    assert option_for("gates") == "--max-perplexity-ratio, --max-bits-per-byte-ratio, --max-accuracy-drop and the like"
    assert option_for("queue") is None and option_for(None) is None
    assert all(option_for(each.path) for each in job_options().values() if each.field is None)


def test_the_arguments_of_submit_are_the_fields_of_a_body() -> None:
    fields = JobBody.model_fields
    assert JobFields.__annotations__.keys() == fields.keys()
    assert JobFields.__required_keys__ == {name for name, field in fields.items() if field.is_required()}


def test_questions_to_answer_are_an_object_within_the_evaluation() -> None:
    given = {"--answers": ["a", "b"], "--answer-samples": "all", "--answer-tokens": 64, "--answer-check": "number"}
    answers = {"datasets": ["a", "b"], "samples": None, "max_new_tokens": 64, "check": "number"}
    assert body_of(given) == {"evaluation": {"answers": answers}}
    with pytest.raises(ValueError, match="--answer-tokens needs --answers NAME"):
        body_of({"--answer-tokens": 4})
