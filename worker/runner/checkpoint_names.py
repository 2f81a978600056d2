"""Names that transformers gives the tensors of older checkpoints, read before runners are forked.

The first `from_pretrained` of a process compiles a thousand regular expressions for them, which takes longer than to
open a small model. Where they were read before the fork, no copy reads them.
"""

from transformers.conversion_mapping import get_checkpoint_conversion_mapping

get_checkpoint_conversion_mapping("")  # those of all models are read with the first question
