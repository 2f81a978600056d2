"""Embedded mode: all services in one home, the folder that `SECATEUR_HOME` names.

`postgres.py` owns the database, `instance.py` opens a home, `register.py` puts models and data sets into it, and
`serve.py` runs the services as processes of one owner, and `serving.py` has them run for as long as a command needs
them. Commands of these are in `worker.cli`; nothing here prints but
`serve.py`, and nothing is needed where the services run by themselves.
"""
