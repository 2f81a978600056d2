"""The service: who may ask, what waits and what is kept, a folder for each noun of the API.

It stands on the pipeline and the engine, and asks them without loading torch: nothing here imports it.
"""
