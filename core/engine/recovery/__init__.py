"""Training after pruning, in which pruned weights stay zero.

`request` is a job's request and the table of methods, `completion` fills in its defaults; both are without torch.
`language` goes from a model folder to the changed tensors: `trainable` chooses what is trained and keeps zeros,
`losses` and `distill` are the objectives, `training` is the loop, data parallel by accelerate, and `sampling` chooses
the sequences of a step. Zeros are optional: a model that lost units is trained in the same way.
"""
