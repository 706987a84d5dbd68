"""The commands of `lineside-export`, one file each; nothing heavy is imported before the command that needs it."""
