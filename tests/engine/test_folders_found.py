"""A recovery is one folder, and so is an exporter: written elsewhere on the package's path it is found, and works."""

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
EXPORTER_INFO = '''
    """A list of the tensors: its description."""

    from core.engine.exporters.exporter_info import ExporterInfo
    from core.errors import InvalidRequest


    class ListingInfo(ExporterInfo):
        def check(self, description, pattern):
            if pattern == "structured":
                raise InvalidRequest("output.format: nothing to list", param="output.format")


    INFO = ListingInfo(
        id="name-list", rank=25, written="after", summary="name-list: the tensors by name.", opening="All are listed."
    )
'''
EXPORTER = '''
    """A list of the tensors."""

    from core.engine.checkpoints.safetensors_header import read_header
    from core.engine.exporters.protocols import FolderExporter


    class Listing(FolderExporter):
        """A file with a line for each tensor."""

        def export(self, folder, section):
            names = [name for file in sorted(folder.glob("*.safetensors")) for name in read_header(file)]
            text = "\\n".join(names)
            (folder / "names.txt").write_text(text)
            return {"bytes": len(text), "names": len(names)}
'''
SCRIPT = """
    import json, sys
    from pathlib import Path
    from types import SimpleNamespace

    from core.engine import exporters, recovery

    more, work = (Path(each) for each in sys.argv[1:])
    recovery.__path__.append(str(more / "recoveries"))
    exporters.__path__.append(str(more / "exporters"))

    from core.engine.architectures.describe import describe_folder
    from core.engine.recovery.completion import complete_image_recovery, complete_recovery
    from core.engine.recovery.registry import RECOVERIES
    from core.engine.recovery.request import Recovery
    from core.errors import InvalidRequest
    from core.pipeline.recipes.outputs import resolve_output
    from core.pipeline.recipes.parts import Output
    from core.service.jobs.estimates.training import training_bytes
    from core.service.jobs.schemas import JobBody

    definitions = JobBody.model_json_schema()["$defs"]
    asked = Recovery(method="norms-alone", steps=3, learning_rate=0.1, batch_size=2, sequence_length=8)
    try:
        complete_image_recovery(asked)
    except InvalidRequest as error:
        refusal = error.message
    output = Output(format="name-list")
    try:
        resolve_output(output, None, "structured")
    except InvalidRequest as error:
        unfit = error.param
    assert resolve_output(output, None, "unstructured") == output
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

    from core.pipeline.reports.model_card import model_card
    from core.pipeline.reports.report import Report
    from secateur_wire.metrics import Metrics, Parameters, Sizes, Sparsity
    from tests.recipes import recipe_of
    from core.pipeline.messages import LanguageSpec
    from core.pipeline.stages.export import export
    from worker.supervisor.stages.artifact import ExportWeights
    from worker.supervisor.stages.stage import RunningJob

    metrics, report = Metrics(bytes=Sizes(dense=1000, artifact=1000)), Report()
    recipe = recipe_of(output={"format": "name-list"})
    spec = LanguageSpec.model_construct(recipe=recipe, artifact=work / "new")
    tasks = SimpleNamespace(run=lambda spec, kind: export(spec))
    ExportWeights().run(RunningJob(spec, [], tasks, None, metrics, report))
    parameters, sparsity = Parameters(dense=9, nonzero=9), Sparsity(prunable=0.0, model=0.0)
    report.metrics = metrics.model_copy(update={"parameters": parameters, "sparsity": sparsity})
    print(json.dumps({
        "form": definitions["Output"]["properties"]["format"],
        "unfit": unfit,
        "listed": (work / "new" / "names.txt").read_text().splitlines(),
        "names": sorted(after),
        "report": report.document()["name-list"],
        "bytes": metrics.document()["bytes"],
        "card": model_card(recipe, report),
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
    """Return the answers of a new process once there are two folders more."""
    tmp_path = tmp_path_factory.mktemp("found")
    files = {
        "recoveries/norms_alone/__init__.py": '"""Training of the norms alone."""',
        "recoveries/norms_alone/info.py": RECOVERY_INFO,
        "recoveries/norms_alone/method.py": RECOVERY_METHOD,
        "exporters/name_list/__init__.py": '"""A list of the tensors."""',
        "exporters/name_list/info.py": EXPORTER_INFO,
        "exporters/name_list/exporter.py": EXPORTER,
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


def test_a_form_is_offered_in_its_place_and_checked(found: dict[str, Any]) -> None:
    assert found["form"]["enum"] == ["dense", "packed", "name-list", "hashed"]
    assert "surviving values. name-list: the tensors by name. hashed, " in found["form"]["description"]
    assert found["form"]["description"].endswith("restores packed and hashed bit by bit.")
    assert found["unfit"] == "output.format"


def test_a_form_is_written_reported_and_on_the_card(found: dict[str, Any]) -> None:
    assert sorted(found["listed"]) == found["names"]
    size = len("\n".join(found["names"]))
    assert found["report"] == {"bytes": size, "names": len(found["names"])}
    assert found["bytes"] == {"dense": 1000, "artifact": 1000, "name-list": size}
    assert f"| bytes of weight files, name-list | | {size:,} |" in found["card"]
    assert "All are listed." in found["card"]
