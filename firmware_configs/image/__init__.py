"""Makes the operating system's image of a profile: recipe (what), wheels and debian (how), bill (of what)."""
