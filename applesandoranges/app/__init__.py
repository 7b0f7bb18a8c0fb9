"""What every script has: keys, logs and their words, signals, the machine.

Knows neither networks nor matrices, and imports no other room.
What a log says about a Hessian is in :mod:`applesandoranges.results`.
"""
