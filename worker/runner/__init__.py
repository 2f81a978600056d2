"""Runner: processes that open models, one for each task, without credentials or network.

`__main__.py` runs one task, a stage of `core.pipeline`. `messages.py` defines the messages that it sends meanwhile,
`message_writer.py` writes them, and `seclusion.py` blocks the network. `client.py` and `fork_server.py` start runners
from the supervisor's process. They and `messages.py` import no torch. `forking_process.py` loads libraries once and
forks runners; it imports torch only on request. Nothing here knows the database, the settings or a store. This file
imports nothing, so that each of these processes loads few modules.
"""
