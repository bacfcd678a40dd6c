"""Injected faults, each of which a run has to survive: ``python -m tests.faults``."""
