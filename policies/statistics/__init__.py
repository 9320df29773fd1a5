"""What tallies say: intervals, tests, quantiles, the probability of being best.

Rule: pure functions of counts and sums; no I/O, clock, random numbers or state. numpy and scipy are used here and
nowhere else in this package, and importing this module imports neither: import the submodule that is needed.
"""
