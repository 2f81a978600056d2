"""Manifest `secateur.json`: the recipe of an artifact, the report of its job, and the SHA-256 of every file.

A signed statement of provenance stands beside it where the installation has a key.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, JsonValue

from core.methods.registry import get_method
from core.pipeline.recipes.recipe import Recipe
from core.pipeline.reports.model_card import model_card, sensitivity_card
from core.pipeline.reports.report import Report
from core.pipeline.reports.source_card import CARD, NO_FACTS, SourceFacts
from core.signing import sign
from core.storage import MANIFEST
from secateur_wire.base import JsonObject
from secateur_wire.provenance import (
    MODEL_DEPENDENCY,
    PROVENANCE,
    BuildDefinition,
    Builder,
    BuildMetadata,
    Predicate,
    ResourceDescriptor,
    RunDetails,
    Statement,
)

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]


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
    folder: Path,
    *,
    recipe: Recipe,
    body: dict[str, Any],
    report: Report,
    source: SourceFacts = NO_FACTS,
    signer: "CryptoSigner | None" = None,
) -> Manifest:
    """Write the card, the manifest with the hash of every file, and the signed statement; all files are fsynced.

    `body` is the recipe as the job's row stores it, in the same order of keys. The card repeats what `source` says of
    the model.
    """
    is_measurement = get_method(recipe.method).measures
    card = sensitivity_card(recipe, report) if is_measurement else model_card(recipe, report, source)
    if signer is not None:
        card += _how_to_verify(signer.public_key.keyid)
    (folder / CARD).write_text(card, "utf-8")
    files = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST):
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            os.fsync(stream.fileno())
        files[file.relative_to(folder).as_posix()] = FileEntry(bytes=file.stat().st_size, sha256=digest)
    manifest = Manifest(version=1, recipe=body, report=report, files=files)
    content = manifest.model_dump_json(indent=2, exclude_unset=True)
    _write(folder / MANIFEST, content)
    if signer is not None:
        hashes = {name: file.sha256 for name, file in files.items()}
        hashes[MANIFEST] = hashlib.sha256(content.encode()).hexdigest()
        _write(folder / PROVENANCE, sign_artifact(body, report, hashes, signer))
    return manifest


def _how_to_verify(keyid: str) -> str:
    """Return the section of a card on the signed statement."""
    return (
        f"\n## Where it comes from\n\n`{PROVENANCE}` is signed: which files these are, and which recipe, model, texts "
        "and versions made them. `secateur verify FOLDER --key KEY.pem` checks the signature and every byte, without "
        "the server that made it; from the Hugging Face hub the folder comes with `hf download REPOSITORY --local-dir "
        f"FOLDER`. The key has the id `{keyid}`. Get the key from those who made the artifact, not from the "
        "place that the files come from.\n"
    )


def _write(file: Path, content: str) -> None:
    """Write a file completely or not at all."""
    partial = file.with_name(f"{file.name}.partial")
    with partial.open("w", encoding="utf-8") as target:
        target.write(content)
        target.flush()
        os.fsync(target.fileno())
    partial.replace(file)


_INPUTS: Final = ("texts", "images", "vocabulary", "recovery")
"""Parts of a report that name the data of a job."""


def sign_artifact(recipe: JsonObject, report: Report, hashes: Mapping[str, str], signer: "CryptoSigner") -> str:
    """Return the signed statement about a finished artifact: every file by its SHA-256, and what made them.

    The model and the data are those of the report, by the hashes of their contents.
    """
    facts = report.document()
    statement = Statement(
        subject=[ResourceDescriptor(name=name, digest={"sha256": hashes[name]}) for name in sorted(hashes)],
        predicate=Predicate(
            build_definition=BuildDefinition(
                external_parameters=recipe,
                resolved_dependencies=[*_model(report), *_data(report)],
            ),
            run_details=RunDetails(
                builder=Builder(id=f"urn:secateur:key:{signer.public_key.keyid}", version=report.versions),
                metadata=BuildMetadata(invocation_id=f"{facts.get('job')}/attempt-{facts.get('attempt')}"),
                byproducts=[
                    ResourceDescriptor(name=name, content=value)
                    for name in ("metrics", "gates")
                    if isinstance(value := facts.get(name), dict)
                ],
            ),
        ),
    )
    return sign(statement, signer)


def _model(report: Report) -> Iterator[ResourceDescriptor]:
    """Yield the model by its revision, which is the hash of its content, or its commit."""
    if report.model is not None and report.model.revision is not None:
        algorithm, _, digest = report.model.revision.rpartition(":")
        name = f"{MODEL_DEPENDENCY}{report.model.name}"
        yield ResourceDescriptor(name=name, digest={algorithm or "gitCommit": digest})


def data_of(report: Report) -> dict[str, str]:
    """Return the names of the texts and images that a report names, by the SHA-256 of their contents."""
    facts = report.document()
    return {digest: name for part in _INPUTS for name, digest in _named(facts.get(part))}


def _data(report: Report) -> Iterator[ResourceDescriptor]:
    """Yield each set of data once, by the hash of its content."""
    for digest, name in data_of(report).items():
        yield ResourceDescriptor(name=name, digest={"sha256": digest})


def _named(value: JsonValue) -> Iterator[tuple[str, str]]:
    """Yield names and hashes, at any depth."""
    if isinstance(value, dict):
        name, digest = value.get("name"), value.get("sha256")
        if isinstance(name, str) and isinstance(digest, str):
            yield name, digest
        for each in value.values():
            yield from _named(each)
    elif isinstance(value, list):
        for each in value:
            yield from _named(each)
