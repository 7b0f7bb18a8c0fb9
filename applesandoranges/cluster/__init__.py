"""Experiments of the 11x scripts: settings, jobs on Slurm or this machine, progress and resume.

Not here: what a job does (the numbered scripts), how it is called (the .slurm files), and the
values of settings (the 11x scripts). Imports no torch, so that the scripts start at once.
"""
