"""The peers, in the order of the tables. Adding one is one file and one name here."""

from __future__ import annotations

from typing import Final

from loadtests.peers.envoy import ENVOY
from loadtests.peers.handmade import AIOHTTP, HTTPX
from loadtests.peers.haproxy import HAPROXY
from loadtests.peers.litellm import LITELLM
from loadtests.peers.nginx import NGINX
from loadtests.peers.peer import Gateway, Job, Peer, direct
from loadtests.peers.turnout import INTERPRETED, TURNOUT

PEERS: Final = (TURNOUT, INTERPRETED, ENVOY, NGINX, HAPROXY, AIOHTTP, HTTPX, LITELLM)

__all__ = ["PEERS", "Gateway", "Job", "Peer", "direct"]
