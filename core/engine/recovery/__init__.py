"""Training after pruning, in which pruned weights stay zero: a folder for each recovery, and what they share.

A recovery's `info` describes it without torch, its `method` says what is trained and by which loss; the registry finds
the folders, and nothing else names one. `request` is what a job may ask for, `completion` fills in its defaults.
`language` goes from a model folder to the tensors that changed; `training` is the loop, data parallel by accelerate;
`zero_pattern` the zeros that are held; `adapters` LoRA whose update has the zeros of the weight it is added to;
`trainable` and `losses` what recoveries have in common; `sampling` the sequences of a step; `pace` its rate and what
ends training; `precision` the model in memory, `activations` what it keeps for the backward. Nothing here needs zeros
to be there: a model from which units were removed is trained in the same way.
"""
