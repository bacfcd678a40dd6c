"""What the experiments on paper 4, "Asymmetric Valleys", are made of."""
