"""The runner: processes that open models, one a task, without credentials or network.

`__main__.py` does one task: `messages.py` has what it may be told and what it says, `message_writer.py` writes that,
`seclusion.py` takes it off the network, and the stages of a job have a file each. `client.py` and `fork_server.py` are
the side that starts runners, in the supervisor's process: they and `messages.py` import no torch, and neither does
`forking_process.py` of its own accord, which loads libraries once and forks runners. Nothing here knows the database,
the settings or a store; and nothing is imported in this file, for each of these processes loads few modules on purpose.
"""
