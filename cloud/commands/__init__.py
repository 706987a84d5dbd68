"""Subcommands of `lineside-cloud`, one file per group."""
