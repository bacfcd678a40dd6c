"""Plumbing of the experiments: no command lies here."""
