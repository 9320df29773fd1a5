"""Versions that a model registry says: slots, and the registries' own messages."""
