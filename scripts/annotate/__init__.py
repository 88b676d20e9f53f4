"""A page on which a person labels points in boxes as cell or background."""
