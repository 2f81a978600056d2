"""Where models and texts come from: a hub on loopback, the store, the model itself, and this node's cache of them."""
