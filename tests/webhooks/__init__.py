"""Webhooks: what is told, where it may be sent, that it arrives."""
