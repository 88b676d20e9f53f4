"""How much of a classifier's score the source of the images explains."""
