"""When a model is trained again: causes, dataset versions, the command that does it, what comes back."""
