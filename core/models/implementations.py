"""The code that computes attention and experts, said here for every model that is built or opened.

Were it left to the config, it would name it: a kernel of the hub, downloaded and run.
"""

from typing import TypedDict

from transformers import PreTrainedModel


class Implementations(TypedDict):
    """Keywords of `from_pretrained` and `_from_config`."""

    attn_implementation: str
    experts_implementation: str


def own_implementations(model_class: type[PreTrainedModel]) -> Implementations:
    """PyTorch's scaled dot product where the class has it, else the class's own plain code; experts one by one."""
    return {
        "attn_implementation": "sdpa" if model_class._supports_sdpa else "eager",
        "experts_implementation": "eager",
    }
