"""Options for how the calibration forward is run."""

from typing import Literal

from pydantic import BaseModel, Field


class PropagationOptions(BaseModel):
    """Options for how calibration tokens are propagated through the model."""

    propagation: Literal["in_flight", "two_pass"] = Field(
        "in_flight",
        description="in_flight: each block runs once and is pruned as the tokens arrive at each linear layer. "
        "two_pass: all statistics of a block are taken from its dense forward, then it is run again (the papers).",
    )
    forward_dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Arithmetic of the calibration forward. auto: bfloat16 where the hardware multiplies it faster, "
        "else float32. Statistics and solves are always float32.",
    )
    micro_batch: int | None = Field(
        None, ge=1, le=4096, description="Sequences per forward; unset: chosen from the sequence length."
    )
