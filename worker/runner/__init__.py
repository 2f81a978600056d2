"""The runner: processes that open models, one a task, without credentials or network.

`__main__.py` does one task, a stage of `core.pipeline`: `messages.py` has what it says meanwhile,
which `message_writer.py` writes, and `seclusion.py` takes it off the network. `client.py` and
`fork_server.py` are the side that starts runners, in the supervisor's process: they and `messages.py` import no torch,
and neither does `forking_process.py` of its own accord, which loads libraries once and forks runners. Nothing here
knows the database, the settings or a store; and nothing is imported in this file, for each of these processes loads few
modules on purpose.
"""
