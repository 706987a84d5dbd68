"""What each page shows: queries over the tables, returned as frozen values that the templates draw."""
