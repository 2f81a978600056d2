"""Embedded mode: all services in one home, the folder in `SECATEUR_HOME`.

`postgres.py` runs the database. `instance.py` opens a home. `register.py` puts models and data sets into it. `serve.py`
runs the services as processes of one owner, and `serving.py` runs them while a command needs them. Their commands are
in `worker.cli`. Only `serve.py` prints. Deployments with separate services need nothing of this package.
"""
