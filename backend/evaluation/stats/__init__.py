"""Sequential tests and intervals for match results: pure, standard library only, one subject a module."""
