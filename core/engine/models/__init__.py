"""Opening of models: a folder as config, family and tensor index, and tensors streamed from safetensors files.

The streamed model is the model's own code with its decoder blocks taken out, so that one block at a time can be given
weights.
"""
