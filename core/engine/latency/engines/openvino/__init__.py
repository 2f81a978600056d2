"""Graphs in OpenVINO, which keep their keys and values."""
