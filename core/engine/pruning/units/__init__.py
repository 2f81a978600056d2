"""Units of a language model's blocks: heads, channels and layers, each removed as a whole.

The package has each unit's slices of tensors, its removal, the result for a model, and the context in which a method
ranks units. Rankings of a single method are in its folder. The pass that removes units is in `blocks`.
"""
