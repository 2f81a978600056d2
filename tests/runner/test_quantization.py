"""Jobs whose artifact is quantised, with the real runner: alone, while pruning, after training, and as a source."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core.settings import Settings
from core.signing import public_key
from secateur_wire.errors import ApiError
from tests.client.command_line import RunHere
from tests.client.test_verification import write_key
from tests.engine.tiny import make_model
from tests.runner.conftest import Finish, artifact, give_model
from tests.runner.models import register_layers, write_model
from tests.shown_ways import run_in_shell
from tests.worker.conftest import Queue

LAYERS = 3
COMPARE = """
import torch
from transformers import AutoModelForCausalLM
tokens = torch.arange(4, 16)[None]
with torch.inference_mode():
    one, other = [AutoModelForCausalLM.from_pretrained(folder)(tokens).logits for folder in {folders}]
print(torch.equal(one, other), bool(one.any()))
"""
"""Program of users that compares the logits of two models."""


@pytest.fixture(scope="module")
def settings(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return settings.model_copy(update={"signing_key": write_key(tmp_path_factory.mktemp("keys") / "signing-key")})


@pytest.fixture(scope="module")
def body(jobs: Queue) -> dict[str, Any]:
    layered = register_layers(jobs.sessions, jobs.settings, jobs.team, layers=LAYERS)
    folder = write_model(jobs.settings.models_root / "grouped", LAYERS)
    make_model(folder, num_hidden_layers=LAYERS, hidden_size=64, intermediate_size=96, dtype=torch.bfloat16)
    give_model(jobs, "grouped", folder)
    return layered | {"model": "grouped", "output": {"quantization": {"scheme": "int4"}}}


@pytest.fixture(scope="module")
def at_once(body: dict[str, Any], finish: Finish) -> str:
    """A finished job that pruned and rounded in one pass."""
    return finish(body)


@pytest.fixture(scope="module")
def stored_small(body: dict[str, Any], finish: Finish) -> str:
    """A finished job that did the same and packed the codes."""
    return finish(body | {"output": body["output"] | {"format": "packed"}})


def packed(folder: Path) -> set[str]:
    return {name for name in load_file(folder / "model.safetensors") if name.endswith("weight_packed")}


def test_packed_codes_are_restored_to_the_files_of_the_job_that_did_not_pack_them(
    jobs: Queue, at_once: str, stored_small: str, here: RunHere, tmp_path: Path
) -> None:
    plain, small = artifact(jobs, at_once), artifact(jobs, stored_small)
    assert jobs.settings.signing_key is not None
    key = tmp_path / "key.pem"
    key.write_text(public_key(jobs.settings.signing_key).pem)
    for folder in (plain, small):
        assert here("verify", str(folder), "--key", str(key)).code == 0
    job, report = jobs.job(stored_small), jobs.report(stored_small)
    sizes, size = job.measured.bytes, (small / "model.packed.safetensors").stat().st_size
    assert sizes is not None and sizes.packed == sizes.stored == report["equal_bytes"]["words"]["bytes"] == size
    assert sizes.artifact == jobs.job(at_once).measured.bytes.artifact  # type: ignore[union-attr]
    assert report["packed"]["bound_bytes"] < 0.9 * sizes.artifact  # type: ignore[operator]

    folder = tmp_path / "downloaded"
    done = here("download", stored_small, str(folder), "--unpack", "--json")
    assert done.code == 0 and done.json["unpacked"] == ["model.safetensors"], done.err
    for name in ("model.safetensors", "config.json"):
        assert (folder / name).read_bytes() == (plain / name).read_bytes()
    program = COMPARE.format(folders=[str(plain), str(folder)])
    assert run_in_shell(f"python - <<'END'\n{program}END", tmp_path) == "True True\n"
    card = (small / "README.md").read_text()
    assert "--unpack" in card and "pip install compressed-tensors" in card


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"model": "layered"}, "output.quantization"),
        ({"output": {"quantization": {"scheme": "int4"}, "format": "hashed"}}, "output.format"),
        ({"method": "none", "sparsity": None, "calibration": None,
          "output": {"quantization": {"scheme": "int4", "rounding": "gptq"}}}, "calibration"),
        ({"method": "l2-structured", "sparsity": 0.1, "parameters": {"round_to": 8}}, "output.quantization"),
        ({"method": "l2-structured", "sparsity": None, "target": {"bytes": 100_000}}, "target.bytes"),
    ],
)  # fmt: skip
def test_what_cannot_be_quantised_is_refused_at_submit(
    jobs: Queue, body: dict[str, Any], changed: dict[str, Any], param: str
) -> None:
    with pytest.raises(ApiError) as refused:
        jobs.submit(body | changed)
    assert refused.value.param == param
