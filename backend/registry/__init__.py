"""The model registry: immutable models, their stages, and the archive."""
