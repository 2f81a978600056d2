"""Names that transformers gives the tensors of older checkpoints, loaded before runners are forked.

The first `from_pretrained` of a process compiles a thousand regular expressions for them, which takes longer than
opening a small model. If they are loaded before the fork, no runner has to load them.
"""

from transformers.conversion_mapping import get_checkpoint_conversion_mapping

get_checkpoint_conversion_mapping("")  # the first call loads the names of all model types
