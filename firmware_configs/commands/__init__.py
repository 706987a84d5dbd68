"""The subcommands of `lineside-flash`, one file each."""
