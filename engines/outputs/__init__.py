"""What a run writes: masks, tables, pictures and costs."""
