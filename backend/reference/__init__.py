"""An ai-service installation under the same root: read, rated, examined, and never written to unasked."""
