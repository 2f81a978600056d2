"""Services of the API, one folder for each noun: access checks, queues and stored records.

The services use the pipeline and the engine without loading torch: nothing here imports it.
"""
