"""Routes of the HTTP interface: thin, one file per noun, each with a `router` of its own."""
