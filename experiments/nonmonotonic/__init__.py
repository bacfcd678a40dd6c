"""The parts of paper 1's experiments."""
