"""Training after pruning, in which pruned weights stay zero: of all parameters, of low-rank adapters, or of either
against the original model's predictions.

`recover` is the whole of it, from a model folder to the tensors that changed; `training` the loop, data parallel by
accelerate; `masks` what must stay zero; `adapters` LoRA whose update has the zeros of the weight it is added to;
`losses` what is minimised; `sampling` the sequences of a step; `opening` the model in memory; `checkpoints` what
survives between steps. Nothing here needs zeros to be there: a model that was made smaller instead is trained in the
same way.
"""
