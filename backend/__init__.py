"""Everything that works without a terminal: the game, the jobs, the models and their evidence."""
