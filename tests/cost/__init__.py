"""Cost of a fixed small job, in operations and bytes: stage by stage against stored figures."""
