"""Provenance of an artifact: an in-toto statement about its files, signed as a DSSE envelope.

The statement (in-toto v1) names every file of the artifact by its SHA-256. Its predicate (SLSA provenance v1) says
which recipe, model, texts and versions made them. The envelope is one line of JSON in `provenance.intoto.jsonl`.
"""

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from secateur_wire.base import JsonObject, OneOf, WireModel

PROVENANCE: Final = "provenance.intoto.jsonl"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = "urn:secateur:prune:v1"
"""Build type: the external parameters are the body of a job."""
MODEL_DEPENDENCY: Final = "model "
"""Beginning of the name of the dependency that is the model; the others are data."""
KEYS_PATH: Final = "/.well-known/secateur-signing-keys"


Signature = Literal["own", "foreign", "invalid"]


class _Part(WireModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, serialize_by_alias=True)


class ResourceDescriptor(_Part):
    """A file or another input, and its hash by algorithm; `content` is what is said of it."""

    name: str
    digest: dict[str, str] = Field(default_factory=dict)
    content: JsonObject | None = Field(default=None, exclude_if=lambda content: content is None)


class BuildDefinition(_Part):
    """Recipe of the artifact (the body of a job), and the model and data that it was applied to."""

    build_type: Literal["urn:secateur:prune:v1"] = BUILD_TYPE
    external_parameters: JsonObject
    internal_parameters: JsonObject = Field(default_factory=dict)
    resolved_dependencies: list[ResourceDescriptor] = Field(default_factory=list)


class Builder(_Part):
    """The installation, by the id of its key, and the versions of its libraries."""

    id: str
    version: dict[str, str] = Field(default_factory=dict)


class BuildMetadata(_Part):
    """The attempt of the job that wrote the artifact: `JOB/attempt-N`."""

    invocation_id: str


class RunDetails(_Part):
    """Installation and attempt that made the artifact, and what was measured (`byproducts`: metrics and gates)."""

    builder: Builder
    metadata: BuildMetadata
    byproducts: list[ResourceDescriptor] = Field(default_factory=list)


class Predicate(_Part):
    """Provenance of an artifact as SLSA shapes it."""

    build_definition: BuildDefinition
    run_details: RunDetails


class Statement(_Part):
    """Statement about the files of an artifact, its manifest included."""

    type: Literal["https://in-toto.io/Statement/v1"] = Field(default=STATEMENT_TYPE, alias="_type")
    subject: list[ResourceDescriptor] = Field(min_length=1)
    predicate_type: Literal["https://slsa.dev/provenance/v1"] = PREDICATE_TYPE
    predicate: Predicate


class SourceModel(WireModel):
    """Model that an artifact was made from. `revision` is the hash of its content, or its commit on the hub."""

    name: str
    revision: str


class SourceData(WireModel):
    """Text or image set that an artifact was made with or measured on, and the SHA-256 of its content."""

    name: str
    sha256: str


class ModelProvenance(WireModel):
    """Signed statement that came with a model, as the server checked it when the model was registered.

    `signature` is `own` where a key of this installation signed it and the files are as signed. It is `foreign` where
    other keys are named, which the server cannot check, and `invalid` where the statement was changed or is about other
    files. `reason` says why it is not `own`, and `keyids` are the keys that signed it or that it names. Only an own
    statement is believed: for others the rest is null or empty. `job` made the model, null where it is no job of this
    team. `source` is the model that the job started from, and `data` the sets that it read.
    """

    signature: Annotated[str, OneOf(Signature)]
    reason: str | None
    keyids: list[str]
    job: str | None = None
    source: SourceModel | None = None
    method: str | None = None
    data: list[SourceData] = Field(default_factory=list)


class SigningKey(WireModel):
    """Public key of the installation: the id that signatures name, the signature scheme, and the key as PEM."""

    keyid: str
    scheme: str
    pem: str


class SigningKeys(WireModel):
    """Public keys of the installation, the current one and earlier ones."""

    keys: list[SigningKey]
