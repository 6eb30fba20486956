"""Training: the plan made before step 1, the optimizer, the schedule, the loop, checkpoints and the run folder."""
