"""A classifier's sensitivity as a job, a later job's rates from it, and what it leaves stored by a hash."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from secateur_wire.errors import InvalidRequest
from secateur_wire.weights.packed import unpack_folder
from tests.runner.conftest import Finish, artifact
from tests.runner.test_classifiers import body
from tests.worker.conftest import Queue

__all__ = ["body"]


@pytest.mark.usefixtures("body")
def test_rates_come_from_the_classifiers_own_curves_and_its_linear_layers_are_stored_by_a_hash(
    jobs: Queue, finish: Finish, tmp_path: Path
) -> None:
    evaluation = {"datasets": ["test"], "samples": 100}
    measuring = {
        "model": "vgg", "method": "sensitivity", "evaluation": evaluation, "parameters": {"rates": [0.5, 0.9]}
    }  # fmt: skip
    measured = finish(measuring)
    found = jobs.report(measured)["sensitivity"]
    assert found["task"] == "image-classification" and found["measured_on"] == {"dataset": "test", "images": 100}
    assert len(found["curves"]) > 2 and all(len(curve["points"]) == 2 for curve in found["curves"])
    assert jobs.artifact_names(measured) == {"README.md", "secateur.json", "sensitivity.json", "sensitivity.svg"}

    pruned = finish(
        {
            "model": "vgg", "method": "magnitude", "sparsity": 0.6, "evaluation": evaluation,
            "parameters": {"allocation": f"job:{measured}"}, "output": {"format": "hashed", "compression": 0.25},
        }
    )  # fmt: skip
    job, report = jobs.job(pruned), jobs.report(pruned)
    weights = [curve["weights"] for curve in found["curves"]]
    rates = job.parameters["allocation"]
    removed = sum(rate * size for rate, size in zip(rates, weights, strict=True))
    assert removed / sum(weights) == pytest.approx(0.6, abs=1e-9) and len(set(rates)) > 1
    hashed = report["hashed"]
    for row in hashed["layers"]:
        assert row["buckets"] == round(0.25 * row["weights"]) and row["survivors"] < row["weights"]
        assert 0 <= row["collision_rate"] <= 1 and 0 < row["relative_error"] < 1
    assert hashed["accuracy_before"].keys() == {"test"} and hashed["layers"]
    assert job.metrics is not None and job.metrics["bytes"]["hashed"] == hashed["bytes"]
    assert job.metrics["sparsity"]["prunable"] == pytest.approx(0.6, abs=0.01)
    folder = shutil.copytree(artifact(jobs, pruned), tmp_path / "unpacked")
    assert not (folder / "model.safetensors").exists()
    (restored,) = unpack_folder(folder)
    assert hashlib.sha256(restored.read_bytes()).hexdigest() == hashed["restores"]["model.safetensors"]["sha256"]
    used = jobs.submit({"model": f"job:{pruned}", "method": "magnitude", "sparsity": 0.7})
    assert jobs.row(used).sources["model"]["unpacked_bytes"] > 0


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        (
            {"method": "sensitivity", "recovery": None, "output": {"format": "hashed"}},
            "output.format",
            "makes no model",
        ),
        ({"output": {"compression": 0.5}}, "output.compression", "'hashed'"),
    ],
)
def test_what_weight_sharing_is_not_for_is_refused(
    jobs: Queue, body: dict[str, Any], change: dict[str, Any], param: str, words: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        jobs.submit(body | change)
    assert caught.value.param == param and words in caught.value.message
