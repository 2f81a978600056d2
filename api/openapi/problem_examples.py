"""Examples of problem documents in the OpenAPI document."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple


class Example(NamedTuple):
    """Example of a problem document with one code; `more` has the members besides the usual ones."""

    detail: str
    param: str | None = None
    more: Mapping[str, Any] = MappingProxyType({})


PROBLEMS: Final[dict[str, Example]] = {
    "invalid_request": Example(
        "calibration.samples: must be at least 1",
        "calibration.samples",
        {
            "errors": [
                {
                    "param": "calibration.samples",
                    "message": "calibration.samples: must be at least 1",
                }
            ]
        },
    ),
    "unknown_method": Example("there is no method 'wander': use one of magnitude, random, sparsegpt, wanda", "method"),
    "unknown_model": Example("there is no model 'smollm'", "model"),
    "unknown_dataset": Example("there is no dataset 'wiki'", "calibration.dataset"),
    "unknown_queue": Example("there is no queue 'larger': use one of default, large", "queue"),
    "invalid_sparsity": Example("sparsity 1.5 is not in [0, 1)", "sparsity"),
    "invalid_target": Example(
        "target.parameters 1,000 cannot be reached by depth on this model: the nearest is 31,852,224",
        "target.parameters",
    ),
    "invalid_pattern": Example("pattern '2:3:4' is neither unstructured nor n:m such as 2:4", "pattern"),
    "invalid_parameters": Example("parameters.blocksize: unknown; sparsegpt takes: block_size", "parameters.blocksize"),
    "indivisible_width": Example("model.layers.0.mlp.down_proj has 1535 inputs, which 4 does not divide", "pattern"),
    "unsupported_architecture": Example("BertModel is not among the architectures that can be pruned", "model"),
    "discovery_failed": Example("looking at the model took longer than 120 s", "model"),
    "too_little_text": Example("numbers holds at most 9 sequences of 512 tokens, not 32", "calibration.samples"),
    "too_few_images": Example("calibration needs 2000 images; 'digits-train' has 1437", "calibration.samples"),
    "unsafe_address": Example(
        "url: localhost, at 127.0.0.1, is not a public address: the operator of this service can allow its network "
        "with SECATEUR_WEBHOOK_ALLOWED_NETWORKS",
        "url",
    ),
    "does_not_fit": Example(
        "the job needs about 52.0 GB of memory; the largest worker of queue default has 34.4 GB", "model"
    ),
    "unusable_model": Example("config.json lacks 'hidden_size' as a whole number above 0", "model"),
    "unsafe_config": Example("config.json holds 'auto_map', which selects code to run: remove the key", "model"),
    "pickle_checkpoint": Example("pytorch_model.bin can run code when opened; convert to safetensors", "model"),
    "corrupt_safetensors": Example("model.safetensors is not valid: its header is not JSON", "model"),
    "missing_tensors": Example("the files lack model.layers.3.mlp.up_proj.weight", "model"),
    "not_finite_weights": Example("model.layers.3.mlp.up_proj.weight holds values that are not finite", "model"),
    "path_escapes": Example("the path lies outside the folders this server registers from", "path"),
    "gated_model": Example("the hub asks for the terms of meta-llama/Llama-3.2-1B to be accepted first", "model"),
    "model_too_large": Example("the repository has 1.2 TB, this service fetches at most 500.0 GB", "model"),
    "unusable_dataset": Example("articles.jsonl line 3 is not valid JSON", "path"),
    "upload_refused": Example("model.safetensors: the bytes that came have another SHA-256 than announced", "files"),
    "destination_refused": Example("the token may not write to acme/smollm2-135m-wanda", "token"),
    "unauthenticated": Example("send an API key: Authorization: Bearer sct_…"),
    "forbidden": Example("this needs a key with role member; this key's role is viewer"),
    "not_found": Example("there is no job 'job_01JNB2V6H7Q8R9S0T1V2W3X4Y5'"),
    "conflict": Example("the job is running; only jobs that ended can be retried"),
    "idempotency_conflict": Example("this Idempotency-Key was used for another request", "Idempotency-Key"),
    "not_discovered": Example(
        "OlmoHybridForCausalLM has not been discovered yet: inspect the model, which has it discovered and waits for "
        "that, then ask again",
        "model",
    ),
    "no_artifact": Example("job 'job_01JNB2V6H7Q8R9S0T1V2W3X4Y5' is running"),
    "offset_mismatch": Example("524288 bytes are there, the part begins at 0", "offset", {"received": 524288}),
    "slow_request": Example("of the body 12 bytes came in 20 s"),
    "payload_too_large": Example("the body is larger than 1048576 bytes"),
    "range_not_satisfiable": Example("the file has 269060552 bytes", "Range"),
    "too_many": Example("too many requests"),
    "rate_limited": Example("too many requests with this key: 6000 per 1 minute are allowed"),
    "quota_exceeded": Example("the team has 1000 jobs queued, as many as it may", "max_queued"),
    "unavailable": Example("the database cannot be reached right now"),
    "hub_unavailable": Example("https://huggingface.co does not answer"),
    "store_unavailable": Example("the store does not answer"),
    "store_of_another": Example(
        "the store belongs to installation installation_01JNB2V6H7Q8R9S0T1V2W3X4Y5, and this database to another"
    ),
    "destination_unavailable": Example("the hub answers 502 for acme/smollm2-135m-wanda", "to"),
    "disk_full": Example("no space is left for the upload"),
    "internal_error": Example("an unexpected error, which was logged"),
    "run_failed": Example("the run failed"),
    "gate_missed": Example("perplexity rose 2.5 times; the job allows 2.4 times", "gates.max_perplexity_ratio"),
    "out_of_memory": Example("34.4 GB of memory were not enough"),
    "time_limit_exceeded": Example("the attempt ran longer than 86400 s"),
    "reload_check_failed": Example("the artifact's logits differ from those of the pruned model"),
    "export_failed": Example("llama.cpp does not load model-F16.gguf: it lacks a tensor", "output.exports"),
    "export_mismatch": Example(
        "model-F16.gguf does not predict in llama.cpp what the artifact does in transformers: their mean KL divergence "
        "is 2.2 nats over 2048 predictions, at most 0.001 is allowed",
        "output.exports",
    ),
    "recovery_diverged": Example(
        "the loss of training step 12 is not finite: lower recovery.learning_rate (0.01)", "recovery.learning_rate"
    ),
    "zeros_refilled": Example("recovery filled 3 of the 165888 pruned weights of model.layers.0.self_attn.q_proj"),
    "sweep_failed": Example("none of 12 points succeeded: see each job's error"),
    "constraints_not_met": Example(
        "No model of those looked at keeps the limits. The nearest is wanda · 40%: its perplexity_ratio is 1.28, the "
        "limit 1.1 (+0.18)."
    ),
    "target_unreachable": Example(
        "target.latency_ratio 0.1: the fastest shape took 0.31 × the dense model's time", "target.latency_ratio"
    ),
    "latency_too_noisy": Example(
        "timings of the dense model differ by 41%, the target asks for a gain of 30%", "target.latency_ratio"
    ),
    "publication_expired": Example("the artifact did not arrive in the time a publication has: publish it again"),
    "runner_lost": Example("the runner ended with signal 9"),
}
