"""Engines that run the files of an artifact on this machine; an engine's package is loaded only when it runs."""
