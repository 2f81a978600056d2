"""Publications: a job's artifact pushed to a repository of the hub or to a bucket of its owner.

`service` takes requests and answers them. `queue` is the queue of record, which the dispatcher works through (`run`).
`to_hub` and `to_s3` send the files. `destinations` checks destinations. `retry` retries a job whose artifact is not
being published. The owner's credentials are stored encrypted, only until the publication ends, and are decrypted only
where the files are sent.
"""
