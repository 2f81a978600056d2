"""Errors the client raises: the server's refusals, which are those of `secateur_wire.errors`, and its own.

SecateurError
├── ApiError                the server refused, with a problem document (RFC 9457): the tree of `secateur_wire.errors`
├── ConfigurationError      no API key, or a URL that is none
├── Unreachable             nothing answers at the URL, or not in time
├── UnexpectedAnswer        what answers does not speak this API
├── DownloadError           also where the job has no artifact
│   ├── UnsafeName          a file name that would leave the download folder
│   ├── ChecksumMismatch    the bytes are not those the server announced
│   └── DownloadInterrupted the connection kept breaking; the same call later goes on where it stopped
├── JobError                a job did not succeed, `job`: raised by `Job.raise_for_status()` alone
│   ├── JobFailed           `code` says why
│   │   └── GateMissed      pruned and stored, but worse than a gate allows
│   └── JobCancelled
└── UploadError             what is here cannot be uploaded
    └── UploadInterrupted   the connection kept breaking; the same call later goes on where it stopped
"""

from secateur.job_document import JobDocument
from secateur_wire.errors import *  # noqa: F403
from secateur_wire.errors import SecateurError


class ConfigurationError(SecateurError):
    """The client was not told enough to make a request."""

    code = "configuration"


class Unreachable(SecateurError):
    """No answer: connection refused, name not found, connection lost or time out."""

    code = "unreachable"


class UnexpectedAnswer(SecateurError):
    """An answer this API does not give."""

    code = "unexpected_answer"


class DownloadError(SecateurError):
    """An artifact could not be brought here whole."""

    code = "download_failed"


class UnsafeName(DownloadError):
    """The server lists a file whose name would be written outside the download folder."""

    code = "unsafe_name"


class ChecksumMismatch(DownloadError):
    """The SHA-256 or size of a downloaded file is not what the server lists."""

    code = "checksum_mismatch"


class DownloadInterrupted(DownloadError):
    """The connection kept breaking. What arrived is kept; the same call continues from there."""

    code = "download_interrupted"


class JobError(SecateurError):
    """A job that did not succeed. `code` is stable: the job's own error, or `cancelled`."""

    def __init__(self, job: JobDocument) -> None:
        super().__init__(f"{job.id} {job.status}: {job.error.message}" if job.error else f"{job.id} was {job.status}")
        self.job = job
        self.code = job.error.code if job.error else job.status


class JobFailed(JobError):
    """Failed job; `job.error` says why."""


class GateMissed(JobFailed):
    """Job pruned and stored that missed a gate: every figure beside its limit is in the report's `gates.rows`."""


class JobCancelled(JobError):
    """Job that somebody cancelled."""


class UploadError(SecateurError):
    """Files that cannot be uploaded, or that changed while they were."""

    code = "upload_failed"


class UploadInterrupted(UploadError):
    """The connection kept breaking. The server keeps what arrived; the same call continues from there."""

    code = "upload_interrupted"
