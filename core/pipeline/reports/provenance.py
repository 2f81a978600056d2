"""Statement of an artifact's provenance, by its manifest."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from pydantic import JsonValue

from core.pipeline.reports.report import Report
from core.signing import sign
from secateur_wire.base import JsonObject
from secateur_wire.provenance import (
    MODEL_DEPENDENCY,
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
