"""Decisions and their statistics: policy → plan → decision.

Rule: pure. No I/O, clock, asyncio, logging or global state. Workers import this package too, so importing it loads the
standard library and xxhash only; numpy and scipy are imported inside the functions that make plans.

Adding a policy is one new file and one name in ``POLICIES``.
"""

from policies.ab import AB
from policies.canary import Canary
from policies.chance import chance, pick
from policies.interleave import Interleave
from policies.plans import CompetitivePairs, Mirror, Slot, TeamDraft, Weighted, decode_plan, encode_plan
from policies.rollouts.rollout import Rollout
from policies.shadow import Shadow
from policies.single import Single
from policies.thompson import Thompson
from policies.types import Decision, Evidence, Occasion, Plan, Policy, SettingProblem, Tally

POLICIES: tuple[type[Policy], ...] = (Single, Shadow, Canary, Rollout, AB, Interleave, Thompson)

__all__ = [
    "AB",
    "POLICIES",
    "Canary",
    "CompetitivePairs",
    "Decision",
    "Evidence",
    "Interleave",
    "Mirror",
    "Occasion",
    "Plan",
    "Policy",
    "Rollout",
    "SettingProblem",
    "Shadow",
    "Single",
    "Slot",
    "Tally",
    "TeamDraft",
    "Thompson",
    "Weighted",
    "chance",
    "decode_plan",
    "encode_plan",
    "pick",
]
