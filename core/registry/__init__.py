"""Models and texts a team has registered by name: where they lie, what they hold, and the hash of their content."""
