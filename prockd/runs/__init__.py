"""From settings to a run: one assembly, its folder and its report."""
