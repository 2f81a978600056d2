"""Opening of models: a folder as config, family and tensor index, and tensors streamed from safetensors files.

The streamed model is the model's own code without its decoder blocks' weights; one block at a time gets its weights.
"""
