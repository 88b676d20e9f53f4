"""The pages' tables, from each bundle's table of results."""
