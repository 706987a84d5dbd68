"""Spoken sentences become text: a recogniser from a package, with a threshold that says when a person should listen."""
