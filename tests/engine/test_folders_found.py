"""A recovery is one folder, and so is an exporter: written elsewhere on the package's path it is found, and works."""

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

from core.engine import exporters, recovery
from core.engine.exporters.registry import OFFERED
from core.engine.recovery.registry import RECOVERIES
from core.pipeline.messages import LanguageSpec
from core.pipeline.reports.report import Report
from core.pipeline.stages.export.spec import ExportWeights
from core.pipeline.stages.run import run_stage
from core.pipeline.stages.stage import RunningJob
from core.progress import Progress
from secateur_wire.metrics import Metrics, Sizes
from tests.engine.recovering import SHARED, make_pruned, save, train
from tests.engine.tiny import make_model
from tests.recipes import recipe_of

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

    INFO = ExporterInfo(
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


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with the two folders more."""
    place = tmp_path_factory.mktemp("more")
    files = {
        "recoveries/norms_alone/__init__.py": '"""Training of the norms alone."""',
        "recoveries/norms_alone/info.py": RECOVERY_INFO,
        "recoveries/norms_alone/method.py": RECOVERY_METHOD,
        "exporters/name_list/__init__.py": '"""A list of the tensors."""',
        "exporters/name_list/info.py": EXPORTER_INFO,
        "exporters/name_list/exporter.py": EXPORTER,
    }
    for name, source in files.items():
        file = place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(source))
    return place


SCRIPT = """
    import sys

    from core.engine import exporters, recovery

    recovery.__path__.append(f"{sys.argv[1]}/recoveries")
    exporters.__path__.append(f"{sys.argv[1]}/exporters")

    from core.service.jobs.schemas import JobBody

    definitions = JobBody.model_json_schema()["$defs"]
    print(*definitions["Recovery"]["properties"]["method"]["enum"])
    print(*definitions["Output"]["properties"]["format"]["enum"])
    print("torch" in sys.modules)
"""


def test_a_new_process_offers_both_in_their_place_without_torch(more: Path) -> None:
    command = [sys.executable, "-c", dedent(SCRIPT), str(more)]
    said = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == ["finetune norms-alone lora distill", "dense packed name-list hashed", "False"]


@pytest.fixture
def _known_here(more: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make both known in the test's process, which has loaded the libraries, as they are in a new one."""
    monkeypatch.setattr(recovery, "__path__", [*recovery.__path__, str(more / "recoveries")])
    monkeypatch.setattr(exporters, "__path__", [*exporters.__path__, str(more / "exporters")])
    monkeypatch.setitem(RECOVERIES, "norms-alone", import_module("core.engine.recovery.norms_alone.info").INFO)
    monkeypatch.setitem(OFFERED, "name-list", import_module("core.engine.exporters.name_list.info").INFO)
    yield
    for package, name in ((recovery, "norms_alone"), (exporters, "name_list")):
        for module in [each for each in sys.modules if each.startswith(f"{package.__name__}.{name}")]:
            del sys.modules[module]
        delattr(package, name)


@pytest.mark.usefixtures("_known_here")
def test_a_recovery_trains_what_it_says(tmp_path: Path) -> None:
    source = make_pruned(tmp_path / "pruned")
    recovered = train(source, tmp_path / "work", SHARED.model_copy(update={"method": "norms-alone", "steps": 2}))
    before, after = (load_file(each / "model.safetensors") for each in (source, save(recovered, source, tmp_path)))
    changed = [name for name in before if not before[name].equal(after[name])]
    assert recovered.trained == "norms"
    assert changed == [name for name in before if name.endswith("norm.weight")]


@pytest.mark.usefixtures("_known_here")
def test_a_form_is_written_and_reported(tmp_path: Path) -> None:
    artifact = make_model(tmp_path / "artifact", "llama")
    names = sorted(load_file(artifact / "model.safetensors"))
    metrics, report = Metrics(bytes=Sizes(dense=1000, artifact=1000)), Report()
    recipe = recipe_of()
    recipe = recipe.model_copy(update={"output": recipe.output.model_copy(update={"format": "name-list"})})
    spec = LanguageSpec.model_construct(recipe=recipe, artifact=artifact)
    tasks = SimpleNamespace(run=lambda spec, kind: run_stage(spec, Progress(), lambda: 0))
    ExportWeights().supervise(RunningJob(spec, tasks, None, metrics, report))
    assert sorted((artifact / "names.txt").read_text().splitlines()) == names
    size = len("\n".join(names))
    assert report.document()["name-list"] == {"bytes": size, "names": len(names)}
    assert metrics.document()["bytes"] == {"dense": 1000, "artifact": 1000, "name-list": size}
