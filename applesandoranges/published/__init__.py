"""Our results against the published ones: tables, comparison, report, figure.

Used by 14a; the tables lie in ``results``.
Figures of a run alone are in :mod:`applesandoranges.figures`.
"""
