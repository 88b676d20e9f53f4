"""Pictures that explain the methods: what gaze, two stages, a classifier and annotations of cells do."""
