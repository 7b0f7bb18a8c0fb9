"""The problems: networks, data sets, where these come from, and how batches are drawn from them.

A problem is rebuilt identically from a seed; parameters and buffers are vectors here.
Nothing trains here, and no derivative is taken.
"""
