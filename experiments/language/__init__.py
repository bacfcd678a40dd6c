"""The parts of `experiments.language`."""
