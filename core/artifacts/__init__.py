"""What a job leaves: a Hugging Face model folder with a model card and a manifest, and the store it is kept in. No
torch here: tensors are copied as bytes.
"""
