"""Examination of this machine for `secateur doctor`: what an installation needs, what is there, what to do.

`examination.py` checks what the settings name and the machine has, and `packages.py` what pip installed. `make lock`
writes the tested versions into `constraints.txt`. Nothing here starts a service or changes a setting.
"""
