"""The verbs of the command line: each handler parses nothing, calls the backend and prints."""
