"""Speed of the forms that were added."""
