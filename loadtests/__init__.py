"""Load tests: what the gateway costs, measured on this machine.

Rule: a number is always a comparison within one run, in alternating rounds, because machines differ from hour to hour.
"""
