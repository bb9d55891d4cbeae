"""Training: the loop, optimizers, checkpoints, processes, and what every trainer repeats."""
