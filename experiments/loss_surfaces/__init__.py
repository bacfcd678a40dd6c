"""The parts of paper 2's experiments."""
