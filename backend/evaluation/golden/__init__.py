"""Golden positions: fixed states of every config, and what a model says about them, kept to be compared later."""
