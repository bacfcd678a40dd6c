"""Benchmarks, side by side with peers: ``python -m experiments.bench.NAME``.

All of them, shortened: ``python -m experiments.bench all --json bench.json``.
"""
