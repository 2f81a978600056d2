"""The worker, on real processes, signals and PostgreSQL. Where what is tested is the life of a job and not the engine,
a stand-in runner that can be told to hang, fail or die takes the place of the real one.
"""
