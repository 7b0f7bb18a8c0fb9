"""Subspaces and masks: principal angles, Grassmannian metrics, what chance gives.

Pure mathematics on arrays, for the notebook and for all rooms that compare with chance.
Figures of it are in :mod:`applesandoranges.figures`.
"""
