"""Artifacts, the files between stages: the store that every stage writes through, and one module per kind of artifact."""
