"""Implementations of attention and experts, set here for every model that is built or opened.

Otherwise the config could name a kernel of the hub, which would be downloaded and run.
"""

from collections.abc import Sequence
from typing import Any, TypedDict

from transformers import PreTrainedModel


class Implementations(TypedDict):
    """Keywords of `from_pretrained` and `_from_config`."""

    attn_implementation: str | dict[str, str]
    experts_implementation: str


def own_implementations(model_class: type[PreTrainedModel], config_path: Sequence[str] = ()) -> Implementations:
    """Return the attention and experts to use: PyTorch's scaled dot product where the class has it; experts one by one.

    Where the class lacks it, attention is its own plain code. With a path to a language model's part, all other parts
    run plain code, which every class has.
    """
    attention = "sdpa" if model_class._supports_sdpa else "eager"
    if not config_path:
        return {"attn_implementation": attention, "experts_implementation": "eager"}
    config_class: Any = model_class.config_class
    by_part = {name: attention if name == config_path[0] else "eager" for name in config_class.sub_configs}
    return {"attn_implementation": {"": attention, **by_part}, "experts_implementation": "eager"}
