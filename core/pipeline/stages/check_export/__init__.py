"""Check, before anything is pruned, whether a form can be added to the artifact."""
