"""Spoken commands: the keyword network of MLPerf Tiny, taught to hear through noise."""
