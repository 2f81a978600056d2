"""Errors of a request that makes no sense, and of models, datasets and destinations that cannot be used."""

from core.errors.base import SecateurError


class InvalidRequest(SecateurError):
    code, status, title = "invalid_request", 422, "Invalid request"


class UnknownMethod(InvalidRequest):
    code, title = "unknown_method", "Unknown method"


class UnknownModel(InvalidRequest):
    code, title = "unknown_model", "Unknown model"


class UnknownDataset(InvalidRequest):
    code, title = "unknown_dataset", "Unknown dataset"


class InvalidSparsity(InvalidRequest):
    code, title = "invalid_sparsity", "Invalid sparsity"


class InvalidTarget(InvalidRequest):
    code, title = "invalid_target", "Invalid target"


class InvalidPattern(InvalidRequest):
    code, title = "invalid_pattern", "Invalid pattern"


class InvalidParameters(InvalidRequest):
    code, title = "invalid_parameters", "Invalid parameters"


class IndivisibleWidth(InvalidRequest):
    code, title = "indivisible_width", "Input width does not divide by m"


class UnsupportedArchitecture(InvalidRequest):
    code, title = "unsupported_architecture", "Unsupported architecture"


class DiscoveryFailed(InvalidRequest):
    code, title = "discovery_failed", "Discovery of the architecture failed"


class TooLittleText(InvalidRequest):
    code, title = "too_little_text", "Too little text"


class TooFewImages(InvalidRequest):
    code, title = "too_few_images", "Too few images"


class UnknownQueue(InvalidRequest):
    code, title = "unknown_queue", "Unknown queue"


class UnsafeAddress(InvalidRequest):
    code, title = "unsafe_address", "Unsafe address"


class DoesNotFit(InvalidRequest):
    code, title = "does_not_fit", "No worker of the queue can hold the job"


class UnusableModel(SecateurError):
    code, status, title = "unusable_model", 422, "Unusable model"


class UnsafeConfig(UnusableModel):
    code, title = "unsafe_config", "Unsafe model config"


class PickleCheckpoint(UnusableModel):
    code, title = "pickle_checkpoint", "Pickle checkpoints are not opened"


class CorruptSafetensors(UnusableModel):
    code, title = "corrupt_safetensors", "Corrupt safetensors file"


class MissingTensors(UnusableModel):
    code, title = "missing_tensors", "Missing tensors"


class NotFiniteWeights(UnusableModel):
    code, title = "not_finite_weights", "Weights that are not finite"


class PathEscapes(UnusableModel):
    code, title = "path_escapes", "Path outside its root"


class GatedModel(UnusableModel):
    code, title = "gated_model", "Gated repository"


class ModelTooLarge(UnusableModel):
    code, title = "model_too_large", "Model too large"


class UnusableDataset(SecateurError):
    code, status, title = "unusable_dataset", 422, "Unusable dataset"


class UploadRefused(SecateurError):
    code, status, title = "upload_refused", 422, "Upload refused"


class DestinationRefused(SecateurError):
    code, status, title = "destination_refused", 422, "The destination refuses the artifact"
