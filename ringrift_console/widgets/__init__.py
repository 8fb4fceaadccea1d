"""Widgets that know nothing of the backend."""
