"""What tallies say: intervals, tests, quantiles, the probability of being best.

Rule: pure functions of counts and sums; no I/O, clock, random numbers or state. Only the submodules here use numpy and
scipy. Importing this module imports neither: import the submodule that is needed.
"""
