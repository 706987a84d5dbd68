"""Finds speech in sound: one small file per way, behind `edge.sources.segments`."""
