"""Options: the axes of methods' parameters as pydantic mix-ins, and what each axis means for a model's description.

A method's own parameters are put together of them elsewhere: no method, none of their ids and no tensor library has a
place here.
"""
