"""Manifest `secateur.json`: the recipe of an artifact, the report of its job, and the SHA-256 of every file."""

import hashlib
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from core.methods.registry import get_method
from core.pipeline.recipes.recipe import Recipe
from core.pipeline.reports.model_card import model_card
from core.pipeline.reports.report import Report
from core.pipeline.reports.sensitivity_card import sensitivity_card
from core.pipeline.reports.source_card import CARD, NO_FACTS, SourceFacts
from core.storage import MANIFEST


class FileEntry(BaseModel):
    """One file of the artifact."""

    bytes: int
    sha256: str


class Manifest(BaseModel):
    """Contents of `secateur.json`. `recipe` is the job body that reproduces the run."""

    version: int = 1
    recipe: dict[str, Any]
    report: Report
    files: dict[str, FileEntry]


def finalise(
    folder: Path, *, recipe: Recipe, body: dict[str, Any], report: Report, source: SourceFacts = NO_FACTS
) -> Manifest:
    """Write the card, and last the manifest with the hash of every file; all files are fsynced.

    `body` is the recipe as the job's row stores it, in the same order of keys. The card repeats what `source` says of
    the model.
    """
    is_measurement = get_method(recipe.method).measures
    card = sensitivity_card(recipe, report) if is_measurement else model_card(recipe, report, source)
    (folder / CARD).write_text(card, "utf-8")
    files = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST):
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            os.fsync(stream.fileno())
        files[file.relative_to(folder).as_posix()] = FileEntry(bytes=file.stat().st_size, sha256=digest)
    manifest = Manifest(version=1, recipe=body, report=report, files=files)
    partial = folder / f"{MANIFEST}.partial"
    with partial.open("w", encoding="utf-8") as target:
        target.write(manifest.model_dump_json(indent=2, exclude_unset=True))
        target.flush()
        os.fsync(target.fileno())
    partial.replace(folder / MANIFEST)
    return manifest
