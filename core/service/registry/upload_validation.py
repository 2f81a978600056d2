"""Validation of an announced upload: whether its files can become a model or dataset."""

from pathlib import Path

from core.engine.checkpoints.files import COMPANIONS, CONFIG_FILE, INDEX_FILE, SINGLE_FILE, is_model_file, is_pickle
from core.engine.datasets.formats import IMAGE_FOLDER, IMAGE_PARQUET, detect_format
from core.service.registry.schemas import FileToUpload, UploadBody
from core.service.registry.service import about
from core.service.sources.header_only_folder import require_readable
from core.service.sources.references import FileReference
from core.settings import Settings
from secateur_wire.errors import (
    MissingTensors,
    PayloadTooLarge,
    PickleCheckpoint,
    SecateurError,
    UnusableModel,
    UploadRefused,
)
from secateur_wire.provenance import PROVENANCE

MOST_PARTS = 10_000
"""Maximum number of parts of one file: S3 can assemble no more."""


def require_possible(body: UploadBody, settings: Settings) -> None:
    """Require names and sizes of a valid model or dataset, so that a client learns of a fault before it sends bytes."""
    named: dict[str, FileToUpload] = {}
    for index, file in enumerate(body.files):
        param = f"files.{index}"
        if file.path in named:
            raise UploadRefused(f"{param}.path: {file.path!r} is named twice", param=f"{param}.path")
        named[file.path] = file
        if body.kind == "model":
            _require_model_file(file, param)
        if file.bytes > MOST_PARTS * settings.upload_part_bytes:
            raise PayloadTooLarge(
                f"{file.path} has {file.bytes} bytes: a file may have {MOST_PARTS * settings.upload_part_bytes}; split "
                "the weights into more files",
                param=f"{param}.bytes",
            )
    total = sum(file.bytes for file in body.files)
    if total > settings.upload_max_bytes:
        raise PayloadTooLarge(
            f"the files have {total} bytes together, but this service accepts at most {settings.upload_max_bytes}",
            param="files",
        )
    if body.kind == "dataset" and len(named) != 1:
        raise UploadRefused(f"a dataset is one file, but {len(named)} are announced", param="files")
    if body.kind == "model" and CONFIG_FILE not in named:
        raise UnusableModel(f"a model needs {CONFIG_FILE}, which is not announced", param="files")
    if body.kind == "model" and not {SINGLE_FILE, INDEX_FILE} & named.keys():
        raise MissingTensors(f"a model needs {SINGLE_FILE} or {INDEX_FILE}, neither is announced", param="files")


def reading_of(body: UploadBody) -> dict[str, str | None]:
    """Return the values of a dataset's `READING` columns; raises the error that names the fault."""
    of_text = {"format": None, "text_field": body.text_field, "image_field": None, "label_field": None}
    if body.kind == "model":
        return of_text
    try:
        format_name = body.format or detect_format(Path(body.files[0].path))
    except SecateurError as error:
        raise about(error, "format") from error
    if format_name == IMAGE_FOLDER:
        raise UploadRefused(
            "a folder of images is not uploaded file by file: write it as one Parquet file, for example with "
            "datasets.load_dataset('imagefolder', data_dir='FOLDER', split='train').to_parquet('images.parquet'), and "
            f"upload that as {IMAGE_PARQUET}",
            param="format",
        )
    if format_name == IMAGE_PARQUET:
        return {
            "format": format_name,
            "text_field": "text",
            "image_field": body.image_field,
            "label_field": body.label_field,
        }
    return of_text | {"format": format_name}


def _require_model_file(file: FileToUpload, param: str) -> None:
    if is_pickle(file.path):
        raise PickleCheckpoint(
            f"{file.path} can run code when opened; convert the model to safetensors (save_pretrained does)",
            param=f"{param}.path",
        )
    if not is_model_file(file.path):
        raise UploadRefused(
            f"{file.path} is not a file of a model; accepted are *.safetensors, {INDEX_FILE}, "
            f"{PROVENANCE} and {', '.join(COMPANIONS)}",
            param=f"{param}.path",
        )
    try:
        require_readable(FileReference(path=file.path, bytes=file.bytes))
    except UnusableModel as error:
        raise about(error, f"{param}.bytes") from error
