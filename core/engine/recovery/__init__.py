"""Training after pruning, in which pruned weights stay zero: a folder for each recovery, and the code they share.

A recovery's `info` describes it without torch, its `method` chooses the trained parameters and the loss; the registry
finds the folders, and nothing else names one. `request` is a job's request, `completion` fills in its defaults.
`language` goes from a model folder to the changed tensors. `training` is the loop, data parallel by accelerate.
`zero_pattern` keeps zeros; `adapters` has LoRA whose update keeps the zeros of its weight. Recoveries share `trainable`
and `losses`. `sampling` chooses the sequences of a step; `pace` has the learning rate and the end of training.
`precision` prepares the model in memory, `activations` estimates the memory for the backward. Zeros are optional: a
model that lost units is trained in the same way.
"""
