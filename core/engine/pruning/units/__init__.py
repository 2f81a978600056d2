"""Units of a language model's blocks: heads, channels and layers, each removed as one.

What a unit owns in each tensor, its removal, what stays of a model, and the context in which a method ranks units live
here; the rankings of a single method are beside that method. The pass that removes them is in `blocks`.
"""
