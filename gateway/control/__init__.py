"""The control plane: record → join → tally → plan → publish, one process per node.

Rule: nothing here is ever waited for by a request. A statistic that fails leaves the last good plan in force.
"""
