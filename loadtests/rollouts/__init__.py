"""Rollouts, simulated: how often a healthy one is rolled back, a harmful one promoted, and how soon harm is found.

Rule: traffic is drawn here, with its cycles, outages and restarts; whatever is decided, the product decides, through
the functions that the controller calls.
"""
