"""The parts of paper 5's experiments."""
