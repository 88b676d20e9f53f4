"""Ratio tables: this project's methods beside what one would use instead."""
