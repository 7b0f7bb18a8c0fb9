"""Training with recorded steps: settings, optimisers, the loop, checkpoints, the params file.

Used by 10a and 12a; everything is as in the published runs, seed for seed.
Networks and data come from :mod:`applesandoranges.problems`.
"""
