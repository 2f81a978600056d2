"""An exporter is one folder: written elsewhere on the package's path it is found, and works."""

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

from core.engine import exporters
from core.engine.exporters.registry import OFFERED
from core.pipeline.messages import LanguageSpec
from core.pipeline.reports.report import Report
from core.pipeline.stages.export.spec import ExportWeights
from core.pipeline.stages.run import run_stage
from core.pipeline.stages.stage import RunningJob
from core.progress import Progress
from secateur_wire.metrics import Metrics, Sizes
from tests.engine.tiny import make_model
from tests.recipes import recipe_of

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
    """A place with one folder more."""
    place = tmp_path_factory.mktemp("more")
    files = {
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

    from core.engine import exporters

    exporters.__path__.append(f"{sys.argv[1]}/exporters")

    from core.service.jobs.schemas import JobBody

    definitions = JobBody.model_json_schema()["$defs"]
    print(*definitions["Output"]["properties"]["format"]["enum"])
    print("torch" in sys.modules)
"""


def test_a_new_process_offers_it_in_its_place_without_torch(more: Path) -> None:
    command = [sys.executable, "-c", dedent(SCRIPT), str(more)]
    said = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == ["dense packed name-list hashed", "False"]


@pytest.fixture
def _known_here(more: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make it known in the test's process, which has loaded the libraries, as it is in a new one."""
    monkeypatch.setattr(exporters, "__path__", [*exporters.__path__, str(more / "exporters")])
    monkeypatch.setitem(OFFERED, "name-list", import_module("core.engine.exporters.name_list.info").INFO)
    yield
    for module in [each for each in sys.modules if each.startswith("core.engine.exporters.name_list")]:
        del sys.modules[module]
    delattr(exporters, "name_list")


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
