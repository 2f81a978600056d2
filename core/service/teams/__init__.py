"""Teams, which own all objects, and the API keys that act for them.

Quotas, sessions and the audit trail are here too. The objects of a team have packages of their own.
"""
