"""Errors the client raises: the server's refusals, which are those of `secateur_wire.errors`, and its own.

How a job ended is never an answer to a call: it is JobFailed with the end's code.

SecateurError
├── ApiError                the server refused, with a problem document (RFC 9457): the tree of `secateur_wire.errors`
├── ConfigurationError      no API key, or a URL that is none
├── Unreachable             nothing answers at the URL, or not in time
├── UnexpectedAnswer        what answers does not speak this API
├── DownloadError           also where the job has no artifact
│   ├── UnsafeName          a file name that would leave the download folder
│   ├── ChecksumMismatch    the bytes are not those the server announced
│   └── DownloadInterrupted the connection kept breaking; the same call later goes on where it stopped
├── VerificationFailed      an artifact is not what a trusted key has signed
├── JobError                a job did not succeed, `job`: raised by `Job.raise_for_status()` alone
│   ├── JobFailed           `code` says why
│   │   └── GateMissed      pruned and stored, but worse than a gate allows
│   └── JobCancelled
├── RunError                what is here cannot be run, or no engine is installed
└── UploadError             what is here cannot be uploaded
    └── UploadInterrupted   the connection kept breaking; the same call later goes on where it stopped
"""

from secateur.job_document import JobDocument
from secateur_wire.errors import ApiError as ApiError
from secateur_wire.errors import Conflict as Conflict
from secateur_wire.errors import CorruptSafetensors as CorruptSafetensors
from secateur_wire.errors import DestinationRefused as DestinationRefused
from secateur_wire.errors import DestinationUnavailable as DestinationUnavailable
from secateur_wire.errors import DiscoveryFailed as DiscoveryFailed
from secateur_wire.errors import DiskFull as DiskFull
from secateur_wire.errors import DoesNotFit as DoesNotFit
from secateur_wire.errors import Forbidden as Forbidden
from secateur_wire.errors import GatedModel as GatedModel
from secateur_wire.errors import HubUnavailable as HubUnavailable
from secateur_wire.errors import IdempotencyConflict as IdempotencyConflict
from secateur_wire.errors import IndivisibleWidth as IndivisibleWidth
from secateur_wire.errors import InternalError as InternalError
from secateur_wire.errors import InvalidParameters as InvalidParameters
from secateur_wire.errors import InvalidPattern as InvalidPattern
from secateur_wire.errors import InvalidRequest as InvalidRequest
from secateur_wire.errors import InvalidSparsity as InvalidSparsity
from secateur_wire.errors import InvalidTarget as InvalidTarget
from secateur_wire.errors import MissingTensors as MissingTensors
from secateur_wire.errors import ModelTooLarge as ModelTooLarge
from secateur_wire.errors import NoArtifact as NoArtifact
from secateur_wire.errors import NotDiscovered as NotDiscovered
from secateur_wire.errors import NotFiniteWeights as NotFiniteWeights
from secateur_wire.errors import NotFound as NotFound
from secateur_wire.errors import OffsetMismatch as OffsetMismatch
from secateur_wire.errors import PathEscapes as PathEscapes
from secateur_wire.errors import PayloadTooLarge as PayloadTooLarge
from secateur_wire.errors import PickleCheckpoint as PickleCheckpoint
from secateur_wire.errors import QuotaExceeded as QuotaExceeded
from secateur_wire.errors import RangeNotSatisfiable as RangeNotSatisfiable
from secateur_wire.errors import RateLimited as RateLimited
from secateur_wire.errors import SecateurError as SecateurError
from secateur_wire.errors import ServerError as ServerError
from secateur_wire.errors import SlowRequest as SlowRequest
from secateur_wire.errors import StoreOfAnother as StoreOfAnother
from secateur_wire.errors import StoreUnavailable as StoreUnavailable
from secateur_wire.errors import TooFewImages as TooFewImages
from secateur_wire.errors import TooLittleText as TooLittleText
from secateur_wire.errors import TooManyRequests as TooManyRequests
from secateur_wire.errors import Unauthenticated as Unauthenticated
from secateur_wire.errors import Unavailable as Unavailable
from secateur_wire.errors import UnknownDataset as UnknownDataset
from secateur_wire.errors import UnknownMethod as UnknownMethod
from secateur_wire.errors import UnknownModel as UnknownModel
from secateur_wire.errors import UnknownQueue as UnknownQueue
from secateur_wire.errors import UnsafeAddress as UnsafeAddress
from secateur_wire.errors import UnsafeConfig as UnsafeConfig
from secateur_wire.errors import UnsupportedArchitecture as UnsupportedArchitecture
from secateur_wire.errors import UnusableDataset as UnusableDataset
from secateur_wire.errors import UnusableModel as UnusableModel
from secateur_wire.errors import UploadRefused as UploadRefused


class ConfigurationError(SecateurError):
    """The configuration is not sufficient for a request."""

    code = "configuration"


class Unreachable(SecateurError):
    """No answer: connection refused, name not found, connection lost or time out."""

    code = "unreachable"


class UnexpectedAnswer(SecateurError):
    """The answer is not one of this API."""

    code = "unexpected_answer"


class DownloadError(SecateurError):
    """An artifact could not be downloaded completely."""

    code = "download_failed"


class RunError(SecateurError):
    """A downloaded artifact cannot be run here."""

    code = "run_failed"


class UnsafeName(DownloadError):
    """The server lists a file name that would be written outside the download folder."""

    code = "unsafe_name"


class ChecksumMismatch(DownloadError):
    """The SHA-256 or size of a downloaded file is not what the server lists."""

    code = "checksum_mismatch"


class DownloadInterrupted(DownloadError):
    """The connection kept breaking. Received bytes are kept; the same call continues from there."""

    code = "download_interrupted"


class VerificationFailed(SecateurError):
    """An artifact is not what a trusted key has signed."""

    code = "verification_failed"


class JobError(SecateurError):
    """A job that did not succeed. `code` is stable: the job's own error, or `cancelled`."""

    def __init__(self, job: JobDocument) -> None:
        super().__init__(f"{job.id} {job.status}: {job.error.message}" if job.error else f"{job.id} was {job.status}")
        self.job = job
        self.code = job.error.code if job.error else job.status


class JobFailed(JobError):
    """A failed job; `job.error` says why."""


class GateMissed(JobFailed):
    """A pruned and stored job that missed a gate; the report's `gates.rows` has every figure and its limit."""


class JobCancelled(JobError):
    """A cancelled job."""


class UploadError(SecateurError):
    """Files that cannot be uploaded, or that changed during the upload."""

    code = "upload_failed"


class UploadInterrupted(UploadError):
    """The connection kept breaking. The server keeps received bytes; the same call continues from there."""

    code = "upload_interrupted"
