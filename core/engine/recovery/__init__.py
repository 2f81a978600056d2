"""Training after pruning, in which pruned weights stay zero.

It trains all parameters, low-rank adapters, or either against the original model's predictions. `language` goes from a
model folder to the tensors that changed; `training` is the loop, data parallel by accelerate; `zero_pattern` the zeros
that are held; `adapters` LoRA whose update has the zeros of the weight it is added to; `losses` the objectives;
`sampling` the sequences of a step; `precision` the model in memory; `checkpoints` the state saved between steps.
Nothing here needs zeros to be there: a model from which groups were removed instead is trained in the same way.
"""
