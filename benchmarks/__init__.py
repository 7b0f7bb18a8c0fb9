"""Benchmarks: time and memory of the pipeline, beside something measured in the same run.

``python -m benchmarks --list`` shows the cases. Each runs in a process of its own and writes one
JSON file; ``python -m benchmarks.report`` turns these into ``docs/performance.md``.
"""
