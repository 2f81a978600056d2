"""A recovery is one folder: written somewhere else on its package's path it is found, offered, costed, and trains."""

import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

RECOVERY_INFO = '''
    """Training of the norms alone: its description."""

    from core.engine.recovery.recovery_info import RecoveryInfo

    INFO = RecoveryInfo(
        id="norms-alone",
        rank=15,
        summary="the norms are trained, and nothing else",
        task_families=("language-model",),
        adapters="never",
        logit_copies=400,
    )
'''
RECOVERY_METHOD = '''
    """Training of the norms alone."""

    from core.engine.recovery.losses import next_token_loss
    from core.engine.recovery.protocols import LanguageRecovery, Trainable
    from core.engine.recovery.zero_pattern import ZeroPattern


    class NormsAlone(LanguageRecovery):
        """Training of every norm's weight."""

        def prepare(self, opened):
            names = [name for name, _ in opened.model.named_parameters() if name.endswith("norm.weight")]
            for name, parameter in opened.model.named_parameters():
                parameter.requires_grad_(name in names)
            return Trainable(opened.model, "norms", names, ZeroPattern({}), merge=lambda: opened.model)

        def loss(self, opened):
            return next_token_loss
'''
SCRIPT = """
    import json, sys
    from pathlib import Path

    from core.engine import recovery

    more, work = (Path(each) for each in sys.argv[1:])
    recovery.__path__.append(str(more / "recoveries"))

    from core.engine.architectures.describe import describe_folder
    from core.engine.recovery.completion import complete_image_recovery, complete_recovery
    from core.engine.recovery.registry import RECOVERIES
    from core.engine.recovery.request import Recovery
    from core.errors import InvalidRequest
    from core.service.jobs.estimates.training import training_bytes
    from core.service.jobs.schemas import JobBody

    definitions = JobBody.model_json_schema()["$defs"]
    asked = Recovery(method="norms-alone", steps=3, learning_rate=0.1, batch_size=2, sequence_length=8)
    try:
        complete_image_recovery(asked)
    except InvalidRequest as error:
        refusal = error.message
    described_without_torch = "torch" not in sys.modules

    from safetensors.torch import load_file

    from tests.engine.recovering import make_pruned, save, train

    source = make_pruned(work / "pruned")
    description = describe_folder(source)
    costs = [
        training_bytes(description, complete_recovery(each, description), device="cpu").memory
        for each in (asked, asked.model_copy(update={"method": "finetune"}))
    ]
    recovered = train(source, work / "recovery", asked)
    before, after = (load_file(each / "model.safetensors") for each in (source, save(recovered, source, work / "new")))
    print(json.dumps({
        "recoveries": definitions["Recovery"]["properties"]["method"],
        "refusal": refusal,
        "described_without_torch": described_without_torch,
        "trained": recovered.trained,
        "changed": [name for name in before if not before[name].equal(after[name])],
        "costs": costs,
    }))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the answers of a new process once there is one folder more."""
    tmp_path = tmp_path_factory.mktemp("found")
    files = {
        "recoveries/norms_alone/__init__.py": '"""Training of the norms alone."""',
        "recoveries/norms_alone/info.py": RECOVERY_INFO,
        "recoveries/norms_alone/method.py": RECOVERY_METHOD,
    }
    for name, source in files.items():
        file = tmp_path / "more" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(source))
    command = [sys.executable, "-c", dedent(SCRIPT), str(tmp_path / "more"), str(tmp_path / "work")]
    run = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    answer: dict[str, Any] = json.loads(run.stdout)
    return answer


def test_a_recovery_is_offered_in_its_place_without_torch(found: dict[str, Any]) -> None:
    assert found["recoveries"]["enum"] == ["finetune", "norms-alone", "lora", "distill"]
    assert "norms-alone: the norms are trained, and nothing else. lora: " in found["recoveries"]["description"]
    assert found["described_without_torch"]


def test_a_recovery_is_refused_where_it_trains_nothing(found: dict[str, Any]) -> None:
    assert found["refusal"] == (
        "recovery.method: norms-alone adapts language models; an image classifier is recovered with finetune or distill"
    )


def test_a_recovery_trains_what_it_says_and_costs_what_it_says(found: dict[str, Any]) -> None:
    assert found["trained"] == "norms"
    assert found["changed"] and all(name.endswith("norm.weight") for name in found["changed"])
    own, fine_tuning = found["costs"]
    assert own > 2 * fine_tuning
