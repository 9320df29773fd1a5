"""Differences of means of sticky units at any look: estimate, evidence, and what may be said of them.

Rule: standard library only, except where a function says so. The comparison itself is ``means.compare``.
"""
