"""Experiments of the 11x scripts: settings, jobs, Slurm or this machine, progress and resume.

Imports no torch: scripts start at once.
What a job does is in the numbered scripts; how it is submitted is here.
"""
