"""Training: the loop, optimizers, checkpoints, several processes, and what every trainer repeats."""
