"""OpenVINO: graphs that keep their keys and values."""
