"""Spoken digits: a tiny depthwise network on real and synthesised speech."""
