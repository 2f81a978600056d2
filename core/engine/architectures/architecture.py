"""Architecture of a language model: all that the engine must know of one, declared once, in a module of `overrides`.

It names where its decoder blocks live and which linear layers of a block read the same input tensor: those
share one statistic and one factorisation. Everything else (rotary embeddings, masks, norms, soft caps) is the
model's own code, run as it is.
"""

from dataclasses import dataclass

from core.engine.architectures.unit_counts import UnitAxis


@dataclass(frozen=True)
class Architecture:
    """One architecture.

    `order` is its place in lists of architectures, the smallest first. `blocks` is the module list of decoder layers,
    `base` the attribute of the causal model that holds the backbone (hub files of some families leave it out of their
    keys), `inputs` the linear layers of a block grouped by the tensor they read, in order of execution. `transposed`
    marks weights stored as [in, out] (GPT-2's Conv1D). `stored_head` is the head's name in files where it is not that
    of the module. `channels` and `heads` are what goes with an FFN channel and with a head (empty where the head size
    follows from the hidden size, so that none can go); `width_key` is the config's name for the number of channels,
    `heads_divide_hidden` whether the config insists on it. `tied_by_default` says whether the config's class ties the
    head to the embeddings unless told otherwise; `lists_by_layer` are the config's lists with an entry for each layer.
    `stream_norms` are the norms whose input is the residual stream that the attention's output and the FFN's output are
    added to, in that order; empty where anything lies between, as a norm or a factor (then only layers' own outputs are
    targets). `attention_bias` and `ffn_bias` are the config's settings that give the linear layers of either biases,
    the output among them; None where no setting does.
    """

    model_type: str
    architecture: str
    title: str
    order: int
    base: str
    blocks: str
    head: str
    inputs: tuple[tuple[str, ...], ...]
    channels: tuple[UnitAxis, ...]
    heads: tuple[UnitAxis, ...] = ()
    width_key: str = "intermediate_size"
    heads_divide_hidden: bool = False
    tied_by_default: bool = False
    transposed: bool = False
    stored_head: str | None = None
    lists_by_layer: tuple[str, ...] = ("layer_types",)
    stream_norms: tuple[str, ...] = ()
    attention_bias: str | None = None
    ffn_bias: str | None = None

    @property
    def attention_output(self) -> str:
        """Return the linear layer that reads the output of the heads: the second group of inputs, in every family."""
        return self.inputs[1][0]

    @property
    def channel_reader(self) -> str:
        """Return the linear layer that reads the FFN's channels: the last one."""
        return self.inputs[-1][0]

    @property
    def added_to_stream(self) -> dict[str, str]:
        """Return the linear layers that add to the residual stream, each with the norm that reads it before."""
        return dict(zip((self.attention_output, self.channel_reader), self.stream_norms, strict=False))

    @property
    def linears(self) -> tuple[str, ...]:
        """Return all prunable linear layers of a block, relative to the block."""
        return tuple(name for group in self.inputs for name in group)

    def module_name(self, key: str) -> str:
        """Return the model's name for a file's key: hub files of some families omit the prefix of the base model."""
        if self.stored_head is not None and key.startswith(f"{self.stored_head}."):
            return self.head + key.removeprefix(self.stored_head)
        if key.startswith((f"{self.base}.", f"{self.head}.")):
            return key
        return f"{self.base}.{key}"

    def stored_name(self, name: str) -> str:
        """Return the key a file has for a name of the model."""
        if self.stored_head is not None and name.startswith(f"{self.head}."):
            return self.stored_head + name.removeprefix(self.head)
        return name
