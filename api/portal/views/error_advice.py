"""Advice for failed jobs by the code of their error: its meaning, and remedies."""

from collections.abc import Iterator
from dataclasses import dataclass

from secateur_wire.errors import ApiError


@dataclass(frozen=True)
class Advice:
    """Causes of an error and remedies, the most likely first."""

    why: str
    try_: tuple[str, ...]


_UNSAFE = (
    "Convert the model to a folder with config.json, tokenizer files and safetensors, and register it again.",
    "Choose another repository of the same model: many have a safetensors version.",
)
_AGAIN = ("Retry the job: it goes on from its last complete block.",)
_SMALLER_NEED = (
    "Use fewer or shorter calibration and evaluation samples.",
    "Send the job to a queue whose workers have more memory.",
)

ADVICE: dict[str, Advice] = {
    "invalid_request": Advice(
        "The worker found that the request is not valid.", ("Reuse the job and correct the field.",)
    ),
    "unknown_method": Advice(
        "This worker does not know the method: it may run another version of the service.",
        ("Reuse the job with another method.", "Ask an admin whether all workers run the same version."),
    ),
    "unknown_model": Advice(
        "The model is no longer where it was when the job was submitted.",
        ("Register the model again, or reuse the job with another one.",),
    ),
    "unknown_dataset": Advice(
        "The dataset is no longer where it was when the job was submitted.",
        ("Register or upload the dataset again, or reuse the job with another one.",),
    ),
    "invalid_sparsity": Advice(
        "This share cannot be removed from this model with this pattern.",
        ("Reuse the job with a sparsity inside the range that the message names.",),
    ),
    "invalid_target": Advice(
        "The target cannot be reached by this model and method.",
        ("Reuse the job with the nearest target that the message names.",),
    ),
    "invalid_pattern": Advice(
        "The method does not support this pattern on this model.",
        ("Reuse the job with a pattern the method offers.",),
    ),
    "invalid_parameters": Advice(
        "A parameter of the method does not fit the model.", ("Reuse the job and correct the parameter it names.",)
    ),
    "indivisible_width": Advice(
        "The pattern n:m keeps n of every m neighbouring weights, but m does not divide the width of a layer.",
        (
            "Choose an m that divides the width.",
            "Leave the layer out with the parameter skip_modules, or use the pattern unstructured.",
        ),
    ),
    "unsupported_architecture": Advice(
        "This kind of model cannot be pruned here. The message says why.",
        ("Choose another model. The page for a new job shows whether it fits.",),
    ),
    "discovery_failed": Advice(
        "This kind of model was not known, and its examination ended without an answer: it took too much time or "
        "memory.",
        (
            "Try again in an hour. The machine may have been the cause, and the failed examination is forgotten by "
            "then.",
            "Ask the operator to raise SECATEUR_DISCOVERY_SECONDS or SECATEUR_DISCOVERY_MEMORY_BYTES.",
        ),
    ),
    "too_little_text": Advice(
        "The dataset has fewer tokens than samples × sequence length.",
        (
            "Use fewer samples or shorter sequences, or leave samples empty to use all.",
            "Use a longer text.",
        ),
    ),
    "too_few_images": Advice(
        "The image set has fewer images than requested.",
        ("Use fewer samples, or leave samples empty to use all.",),
    ),
    "unknown_queue": Advice("No worker serves this queue.", ("Reuse the job with another queue.",)),
    "does_not_fit": Advice(
        "No worker of the queue has the memory or disk this job needs.", ("Choose a smaller model.", *_SMALLER_NEED)
    ),
    "unusable_model": Advice("The model's folder cannot be opened safely.", _UNSAFE),
    "unsafe_config": Advice("The model's config wants to run its own code. This service never does that.", _UNSAFE),
    "pickle_checkpoint": Advice("The weights are pickle files, which can run code when they are opened.", _UNSAFE),
    "corrupt_safetensors": Advice(
        "A weight file is damaged or cut short.",
        ("Download or upload the model again; compare the files' SHA-256 with the publisher's.",),
    ),
    "missing_tensors": Advice(
        "The weight files lack tensors that config.json needs.",
        ("Check that every shard is there, and that config.json belongs to these weights.",),
    ),
    "not_finite_weights": Advice(
        "The message names weights that are infinite or not a number, in the source model or in the pruned one.",
        (
            "Check the source model.",
            "If it is sound, reuse the job with a gentler method or a lower learning rate.",
        ),
    ),
    "path_escapes": Advice("A file name in the model's folder points outside the folder.", _UNSAFE),
    "gated_model": Advice(
        "The hub gives this model only to accounts that have accepted its terms.",
        ("Accept the terms on the hub with the account whose token the service uses.", "Choose an open model."),
    ),
    "model_too_large": Advice(
        "The model is larger than this service fetches.",
        ("Choose a smaller model.", "Ask an admin to raise the limit."),
    ),
    "unusable_dataset": Advice(
        "The dataset cannot be read.",
        ("Check its format and the name of its text, image and label fields, and register it again.",),
    ),
    "not_found": Advice(
        "Something that the job needs was removed after it was submitted.",
        ("Reuse the job and choose something that exists now.",),
    ),
    "conflict": Advice(
        "Something that the job needs was changed in the meantime.", ("Reuse the job and submit it again.",)
    ),
    "quota_exceeded": Advice(
        "The job finished, but the team's storage has no room for its artifact.",
        ("Delete artifacts that are no longer needed, then retry.", "Ask an admin for more storage."),
    ),
    "run_failed": Advice("The worker could not finish the job.", (*_AGAIN, "Read the last lines of the log below.")),
    "gate_missed": Advice(
        "The model was pruned and measured. It is worse, larger or slower than a gate or the target of the job "
        "allows. The figures and the artifact are kept.",
        (
            "Prune less: reuse the job with a lower sparsity.",
            "Add a recovery, which trains the pruned model, or choose a method that costs less at this sparsity.",
            "If the figures are good enough, reuse the job with a wider gate.",
        ),
    ),
    "out_of_memory": Advice(
        "The job needed more memory than the worker has.",
        (*_SMALLER_NEED, "Choose a method that needs no gradients. Such a method holds one block at a time."),
    ),
    "time_limit_exceeded": Advice(
        "The attempt ran longer than the job or the worker allows.",
        ("Raise time_limit_seconds if the job set it.", "Use fewer or shorter samples, or a quicker method."),
    ),
    "reload_check_failed": Advice(
        "The finished model gave other outputs than expected when a new process opened it, so it was not released.",
        ("Report it with the job's number. This is a fault of the service or of the model's files.",),
    ),
    "export_failed": Advice(
        "The model was pruned and verified, but an added file, such as GGUF, could not be written, or its own "
        "runtime cannot run it.",
        (*_AGAIN, "Reuse the job without output.exports: its artifact is as it would have been."),
    ),
    "export_mismatch": Advice(
        "An added file, such as GGUF, does not predict as the artifact does, so nothing was released.",
        (
            "Reuse the job without output.exports, or with fewer types.",
            "Report it with the job's number. With type F16, this is a fault of the service.",
        ),
    ),
    "recovery_diverged": Advice(
        "The training loss is no longer a number.",
        ("Reuse the job with a lower learning rate.", "Prune less, so that there is less to recover."),
    ),
    "zeros_refilled": Advice(
        "Training changed pruned weights, which must stay zero, so the model was not released.",
        ("Report it with the job's number. This is a fault of the service.",),
    ),
    "target_unreachable": Advice(
        "No smaller version of this model is as fast on this worker as requested.",
        ("Ask for a smaller gain.", "Send the job to a queue with another device, where the gain may differ."),
    ),
    "latency_too_noisy": Advice(
        "Timings on the worker vary by more than the gain asked for, so the gain cannot be measured.",
        ("Retry when the worker is quieter.", "Ask for a larger gain, or set a sparsity instead of a latency."),
    ),
    "runner_lost": Advice(
        "The worker's process ended unexpectedly on every attempt: it was killed, it crashed, or its machine failed.",
        (
            *_AGAIN,
            "If it happens again at the same place, memory is the most likely cause. Use fewer or shorter samples.",
        ),
    ),
    "disk_full": Advice(
        "The worker's disk is full.",
        ("Ask an admin to free space, then retry.", "Send the job to a queue whose workers have more disk."),
    ),
    "internal_error": Advice(
        "An error the service did not expect.",
        (*_AGAIN, "If it happens again, report it with the job's number and the message above."),
    ),
    "unavailable": Advice("Something that the job needs could not be reached, even after retries.", _AGAIN),
    "hub_unavailable": Advice(
        "The hub could not be reached, even after retries.", ("Retry later.", "Upload the model instead.")
    ),
    "store_unavailable": Advice(
        "The store of artifacts could not be reached, even after retries.",
        ("Retry later.", "Ask an admin whether the bucket is reachable and has room."),
    ),
    "store_of_another": Advice(
        "The store of artifacts belongs to another installation, so nothing was written there.",
        ("Ask an admin to give this installation its own store, or to take over this one.", "Then retry."),
    ),
}
"""Advice for every code of a job's final error."""

_UNKNOWN = Advice("There is no further advice for this error.", (*_AGAIN, "Read the last lines of the log."))


def advice_for(code: str) -> Advice:
    """Return the advice for the code of a job's error; a code from a newer worker has general advice."""
    return ADVICE.get(code, _UNKNOWN)


def title_of(code: str) -> str:
    """Return the error's title; an unknown code is its own title."""
    return next((error.title for error in _tree(ApiError) if error.code == code), code)


def _tree(root: type[ApiError]) -> Iterator[type[ApiError]]:
    for child in root.__subclasses__():
        yield child
        yield from _tree(child)
