"""The control plane: record → join → tally → plan → publish, one process per node.

Rule: no request ever waits for anything here. A statistic that fails leaves the last good plan in force.
"""
