"""The programs beside ours: what a careful user writes in each framework, and the floors. Each is a function of a case.

A program takes a number of epochs and returns the loss of each, before its update; it begins anew with every call, with arrays
and compiled functions in place. Beside `prepare(case, dtype, device)`, which gives programs by name, a module has nothing;
`potential.py` is what `with_numpy.py` has for energies.
"""
