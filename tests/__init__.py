"""Makes ``tests`` this directory: the DeepOBS wheel installs a package of the same name."""
