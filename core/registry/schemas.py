"""Models and datasets as requests and answers show them. Paths are the server's own and are not shown."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,95}$")]
Source = Annotated[str, StringConstraints(min_length=1, max_length=500)]


class ModelBody(BaseModel):
    """A model folder to register. `path` is absolute, on the server; `source` says where it came from."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    path: Annotated[str, StringConstraints(min_length=1, max_length=4096)]
    source: Source = "local"


class Model(BaseModel):
    """A registered model. `revision` is the hash of its content, `parameters` counts tied weights once."""

    id: str
    object: Literal["model"]
    name: str
    source: str
    revision: str
    family: str
    architecture: str
    parameters: int
    prunable_parameters: int
    bytes: int
    dtype: str
    layers: int
    hidden_size: int
    vocabulary_size: int
    context_length: int
    tied_embeddings: bool
    created_at: datetime


class DatasetBody(BaseModel):
    """A text file to register. Without `format` its suffix decides; `text_field` is for JSONL and Parquet."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    path: Annotated[str, StringConstraints(min_length=1, max_length=4096)]
    format: Literal["text", "jsonl", "parquet"] | None = None
    text_field: Annotated[str, StringConstraints(min_length=1, max_length=200)] = "text"
    source: Source = "local"


class Dataset(BaseModel):
    """A registered text."""

    id: str
    object: Literal["dataset"]
    name: str
    source: str
    format: str
    text_field: str
    documents: int
    characters: int
    bytes: int
    sha256: str
    created_at: datetime
