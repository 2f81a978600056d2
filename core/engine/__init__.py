"""Engine: tensors and files in, tensors and files out.

It knows no job, database, queue or setting, and imports no package of `core` that does. Its packages build on one
another in the order checkpoints, architectures, options, datasets, models, exporters, evaluation and recovery, pruning.
"""
