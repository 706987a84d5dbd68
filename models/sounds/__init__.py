"""What the recipes for sound share: reading clips and noise, and changing them."""
