"""Opening models: a folder as config, family and tensor index; tensors streamed from safetensors files; and the
skeleton, the model's own code with its decoder blocks lifted out so that one block at a time can be given weights."""
