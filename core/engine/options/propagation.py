"""Options for how the calibration forward is run."""

from typing import Literal

from pydantic import BaseModel, Field


class ForwardOptions(BaseModel):
    """Option for the number format of the calibration forward."""

    forward_dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Number format of the calibration forward pass. auto: bfloat16 where the hardware multiplies it "
        "faster, else float32. Statistics and solves are always float32.",
    )


class PropagationOptions(ForwardOptions):
    """Options for how calibration tokens are propagated through the model."""

    propagation: Literal["in_flight", "two_pass"] = Field(
        "in_flight",
        description="in_flight: each block runs once, and each linear layer is pruned when the tokens reach it, so "
        "later layers of the block see the effect. two_pass: the block runs dense first, all its layers are pruned, "
        "then it runs again, as in the papers.",
    )
    micro_batch: int | None = Field(
        None, ge=1, le=4096, description="Sequences in one forward pass. Unset: chosen from the sequence length."
    )
