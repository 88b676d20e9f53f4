"""From data sets in their official layouts to datalists."""
