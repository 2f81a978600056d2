"""Teams, which own everything, and the API keys that act for them.

Quotas, sessions and the audit trail are theirs; what a team owns has folders of its own.
"""
