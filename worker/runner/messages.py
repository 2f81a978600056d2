"""Messages of a runner or fetcher: JSON lines that it writes on its stdout for the supervisor."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from secateur_wire.base import JsonObject


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StageMessage(_Message):
    type: Literal["stage"] = "stage"
    stage: str


class ProgressMessage(_Message):
    """Progress of the runner's task, from 0 to 1; `block` of `blocks` are done, or steps of training."""

    type: Literal["progress"] = "progress"
    progress: float
    block: int | None = None
    blocks: int | None = None


class PartMessage(_Message):
    """Begin of a part of the runner's task that has a pace of its own, from one progress to another."""

    type: Literal["part"] = "part"
    start: float
    end: float


class AliveMessage(_Message):
    """Sign of life, sent twice a second; `doing` describes the current loop, if there is one."""

    type: Literal["alive"] = "alive"
    doing: str | None = None


class LogMessage(_Message):
    type: Literal["log"] = "log"
    level: Literal["info", "warning"]
    message: str


class MetricMessage(_Message):
    type: Literal["metric"] = "metric"
    name: str
    step: int
    value: float


class ResultMessage(_Message):
    type: Literal["result"] = "result"
    result: JsonObject


class ErrorMessage(_Message):
    type: Literal["error"] = "error"
    code: str
    message: str
    param: str | None
    retryable: bool


Message = Annotated[
    StageMessage
    | PartMessage
    | ProgressMessage
    | AliveMessage
    | LogMessage
    | MetricMessage
    | ResultMessage
    | ErrorMessage,
    Field(discriminator="type"),
]
_message_adapter: TypeAdapter[Message] = TypeAdapter(Message)


def parse_message(line: str | bytes) -> Message:
    """Parse one line of the runner's stdout; raises pydantic's ValidationError for anything that is not a message."""
    return _message_adapter.validate_json(line)
