"""Teams, which own everything, and the API keys that act for them."""
