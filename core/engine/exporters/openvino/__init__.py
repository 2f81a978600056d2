"""OpenVINO: a stateful graph of a language model, compared with the artifact in OpenVINO before it is kept."""
