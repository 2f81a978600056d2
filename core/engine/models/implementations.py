"""The implementations of attention and experts, set here for every model that is built or opened.

Otherwise the config would name them: a kernel of the hub, downloaded and run.
"""

from typing import TypedDict

from transformers import PreTrainedModel


class Implementations(TypedDict):
    """Keywords of `from_pretrained` and `_from_config`."""

    attn_implementation: str
    experts_implementation: str


def own_implementations(model_class: type[PreTrainedModel]) -> Implementations:
    """Return PyTorch's scaled dot product where the class has it, else its own plain code; experts one by one."""
    return {
        "attn_implementation": "sdpa" if model_class._supports_sdpa else "eager",
        "experts_implementation": "eager",
    }
