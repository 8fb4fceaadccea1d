"""One module a screen or dialog: what is shown, and which actions are offered."""
