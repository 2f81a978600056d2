"""Import of models and texts of this machine: registered with a local server, or uploaded to another one."""

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import typer

from secateur.cli.output import explain
from secateur.cli.transfer import UploadBars, transfer_bars
from secateur.cli.unfinished import OutputFolder
from secateur.client import Client
from secateur.errors import Conflict

MOST_NAMES: Final = 100
HUB_SLASHES: Final = 1
"""Number of slashes in a model's name on the hub; what has more is a path."""


ImportFile = Callable[[Client, str, Path], bool]
"""Function that adds a file or folder of this machine to the server under a name; False where the name is taken."""


@dataclass(frozen=True)
class Importer:
    """Functions that add models and texts of this machine to the server.

    `named` gets the name of a model, and fetches the model if it is a known sample.
    """

    model: ImportFile
    text: ImportFile
    named: Callable[[Client, str], None]


def import_local_files(client: Client, folder: OutputFolder, importer: Importer) -> None:
    """Add the model and the text to the server where they are files of this machine."""
    request = folder.unfinished.request
    model, text = local_model(request.model), local_text(request.calibration)
    if model is None:
        importer.named(client, request.model)
    elif folder.unfinished.model is None:
        folder.note(model=_named(client, model, importer.model))
        explain(f"{model} is known to the server as model {folder.unfinished.model}")
    if text is not None and folder.unfinished.calibration is None:
        folder.note(calibration=_named(client, text, importer.text))
        explain(f"{text} is known to the server as dataset {folder.unfinished.calibration}")


def _named(client: Client, path: Path, register: ImportFile) -> str:
    """Return the name under which a file or folder was added: its own, with a number if that is taken."""
    own = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem if path.is_file() else path.name).strip("-._") or "model"
    for number in range(1, MOST_NAMES):
        name = own if number == 1 else f"{own}-{number}"
        if register(client, name, path):
            return name
    raise typer.BadParameter(f"{path}: {MOST_NAMES} others have its name on the server; rename it")


def upload_model(client: Client, name: str, path: Path) -> bool:
    if path.is_file():
        raise typer.BadParameter(f"MODEL {path}: only a folder can be uploaded; GGUF files are taken on the server")
    with transfer_bars() as bars, contextlib.suppress(Conflict):
        client.upload_model(name, path, on_progress=UploadBars(bars).show)
        return True
    return False


def upload_text(client: Client, name: str, path: Path) -> bool:
    with transfer_bars() as bars, contextlib.suppress(Conflict):
        client.upload_dataset(name, path, on_progress=UploadBars(bars).show)
        return True
    return False


def local_model(model: str) -> Path | None:
    """Return the absolute path of a model folder or GGUF file of this machine, None if `model` is a name.

    Raises typer.BadParameter for a path without a model.
    """
    path = Path(model).expanduser()
    is_model = (path / "config.json").is_file() or (path.suffix == ".gguf" and path.is_file())
    if is_model:
        return path.resolve()
    if path.is_dir():
        raise typer.BadParameter(f"MODEL {model}: that folder has no config.json, so it holds no model")
    is_path = model.startswith(("/", "./", "../", "~")) or model.partition("@")[0].count("/") > HUB_SLASHES
    if path.suffix == ".gguf" or is_path:
        raise typer.BadParameter(f"MODEL {model}: there is no such model folder or file")
    return None


def local_text(calibration: str | None) -> Path | None:
    """Return the absolute path of a text of this machine, None if it is a name."""
    path = None if calibration is None else Path(calibration).expanduser()
    return path.resolve() if path is not None and path.is_file() else None
