"""Fast burn: variants that fail so fast that counts of calls, read every second, are enough to act on."""

from policies.statistics.burn.burning import Burn, burning, faltering, sentence
from policies.statistics.burn.watch import Count, FailureWatch, brief, watched

__all__ = ["Burn", "Count", "FailureWatch", "brief", "burning", "faltering", "sentence", "watched"]
