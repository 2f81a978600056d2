"""Examination of this machine for `secateur doctor`: what an installation needs, what is there, what to do.

`examination.py` makes all checks. `service.py` checks what the settings name: home, database, broker, store, port.
`hardware.py` checks the machine, and `packages.py` what pip installed. `constraints.txt`, which `make lock` writes, has
the tested versions. Nothing here starts a service or changes a setting.
"""
