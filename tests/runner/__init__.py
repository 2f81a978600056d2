"""Jobs with the product's own runner, on real models: what they leave, and that they go on where they were killed.
Starting its processes is what takes the time, so a module's tests share a database, a home and finished jobs.
"""
