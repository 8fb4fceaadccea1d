"""Watching what is in production: golden positions, background matches, alarms. Off until somebody switches it on."""
