"""Speed of the forms that were added to an artifact."""
