"""The one error tree. Every error has a stable `code`, an HTTP status and, where it applies, the `param` at fault.

SecateurError
├── InvalidRequest            422  what was asked cannot be meant
│   ├── UnknownMethod  UnknownModel  UnknownDataset
│   ├── InvalidSparsity  InvalidTarget  InvalidPattern  InvalidParameters
│   ├── IndivisibleWidth      a layer's input width does not divide by m
│   ├── UnsupportedArchitecture
│   ├── DiscoveryFailed       a child process that looked at the architecture ended without an answer
│   ├── TooLittleText         fewer calibration or evaluation tokens than asked for
│   ├── TooFewImages          the same of images
│   ├── UnknownQueue          no such queue here
│   ├── UnsafeAddress         a URL this service must not call
│   └── DoesNotFit            no worker of the queue has the memory or disk the job needs
├── UnusableModel             422  the model folder cannot be opened safely
│   ├── UnsafeConfig  PickleCheckpoint  CorruptSafetensors  MissingTensors  NotFiniteWeights  PathEscapes
│   ├── GatedModel            the hub has it, and asks for terms to be accepted first
│   └── ModelTooLarge         more bytes than this service fetches
├── UnusableDataset           422
├── UploadRefused             422  a part or file of an upload is not what was announced
├── DestinationRefused        422  the hub or the bucket an artifact is published to does not take it
├── Unauthenticated           401
├── Forbidden                 403
├── NotFound                  404
├── Conflict                  409
│   ├── IdempotencyConflict
│   ├── NotDiscovered         what the model is has to be discovered first
│   ├── NoArtifact            the job has left nothing, or it was removed
│   └── OffsetMismatch        a part of an upload that does not go on where the last one ended
├── SlowRequest               408  the body dripped in
├── PayloadTooLarge           413
├── RangeNotSatisfiable       416
├── TooMany                   429, with Retry-After
│   ├── RateLimited           requests of one key
│   └── QuotaExceeded         a team's queued jobs, device hours or stored bytes
├── RunFailed                 500  how an attempt ended
│   ├── GateMissed  OutOfMemory  TimeLimitExceeded  ReloadCheckFailed  RunnerLost  InternalError
│   ├── ExportFailed          another form could not be written, or its runtime does not run it
│   ├── ExportMismatch        it does not predict there what the artifact does
│   ├── RecoveryDiverged      the training loss is no longer a number
│   ├── ZerosRefilled         a pruned weight came back
│   ├── SweepFailed           no job of a sweep succeeded
│   ├── ConstraintsNotMet     no model a search looked at keeps its limits
│   ├── TargetUnreachable     no shape of the model is as fast as asked
│   ├── LatencyTooNoisy       timings differ by more than the gain asked for
│   └── PublicationExpired    not done in the time a publication has
└── Unavailable               503, with Retry-After
    ├── HubUnavailable  DestinationUnavailable
    └── StoreUnavailable
        └── StoreOfAnother    its mark names another installation
"""

from core.errors.base import (
    Problem,
    SecateurError,
    summary_of_problem,
)
from core.errors.inputs import (
    CorruptSafetensors,
    DestinationRefused,
    DiscoveryFailed,
    DoesNotFit,
    GatedModel,
    IndivisibleWidth,
    InvalidParameters,
    InvalidPattern,
    InvalidRequest,
    InvalidSparsity,
    InvalidTarget,
    MissingTensors,
    ModelTooLarge,
    NotFiniteWeights,
    PathEscapes,
    PickleCheckpoint,
    TooFewImages,
    TooLittleText,
    UnknownDataset,
    UnknownMethod,
    UnknownModel,
    UnknownQueue,
    UnsafeAddress,
    UnsafeConfig,
    UnsupportedArchitecture,
    UnusableDataset,
    UnusableModel,
    UploadRefused,
)
from core.errors.refusals import (
    Conflict,
    Forbidden,
    IdempotencyConflict,
    NoArtifact,
    NotDiscovered,
    NotFound,
    OffsetMismatch,
    PayloadTooLarge,
    QuotaExceeded,
    RangeNotSatisfiable,
    RateLimited,
    SlowRequest,
    TooMany,
    Unauthenticated,
)
from core.errors.runs import (
    ConstraintsNotMet,
    DestinationUnavailable,
    DiskFull,
    ExportFailed,
    ExportMismatch,
    GateMissed,
    HubUnavailable,
    InternalError,
    LatencyTooNoisy,
    OutOfMemory,
    PublicationExpired,
    RecoveryDiverged,
    ReloadCheckFailed,
    RunFailed,
    RunnerLost,
    StoreOfAnother,
    StoreUnavailable,
    SweepFailed,
    TargetUnreachable,
    TimeLimitExceeded,
    Unavailable,
    ZerosRefilled,
)

__all__ = [
    "Conflict",
    "ConstraintsNotMet",
    "CorruptSafetensors",
    "DestinationRefused",
    "DestinationUnavailable",
    "DiscoveryFailed",
    "DiskFull",
    "DoesNotFit",
    "ExportFailed",
    "ExportMismatch",
    "Forbidden",
    "GateMissed",
    "GatedModel",
    "HubUnavailable",
    "IdempotencyConflict",
    "IndivisibleWidth",
    "InternalError",
    "InvalidParameters",
    "InvalidPattern",
    "InvalidRequest",
    "InvalidSparsity",
    "InvalidTarget",
    "LatencyTooNoisy",
    "MissingTensors",
    "ModelTooLarge",
    "NoArtifact",
    "NotDiscovered",
    "NotFiniteWeights",
    "NotFound",
    "OffsetMismatch",
    "OutOfMemory",
    "PathEscapes",
    "PayloadTooLarge",
    "PickleCheckpoint",
    "Problem",
    "PublicationExpired",
    "QuotaExceeded",
    "RangeNotSatisfiable",
    "RateLimited",
    "RecoveryDiverged",
    "ReloadCheckFailed",
    "RunFailed",
    "RunnerLost",
    "SecateurError",
    "SlowRequest",
    "StoreOfAnother",
    "StoreUnavailable",
    "SweepFailed",
    "TargetUnreachable",
    "TimeLimitExceeded",
    "TooFewImages",
    "TooLittleText",
    "TooMany",
    "Unauthenticated",
    "Unavailable",
    "UnknownDataset",
    "UnknownMethod",
    "UnknownModel",
    "UnknownQueue",
    "UnsafeAddress",
    "UnsafeConfig",
    "UnsupportedArchitecture",
    "UnusableDataset",
    "UnusableModel",
    "UploadRefused",
    "ZerosRefilled",
    "summary_of_problem",
]
