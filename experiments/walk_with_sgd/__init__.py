"""What the experiments on paper 3, "A Walk with SGD", are made of."""
