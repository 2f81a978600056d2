"""Publications: the artifact of a job pushed to a repository of the hub or to a bucket of its owner's.

`service` takes the request and answers; `queue` is the queue of record of publications, worked off by the dispatcher
(`run`); `to_hub` and `to_s3` carry files there; `destinations` says what can be one; `retry` retries a job whose
artifact is not on its way. The owner's credentials are kept sealed, only while the publication is not over, and are
opened only where the files are sent.
"""
