"""What `python -m experiments.claims` is made of."""
