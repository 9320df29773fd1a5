"""``kill -9`` of a worker, of the controller and of the supervisor: a short form of ``loadtests.crashes``."""

from __future__ import annotations

import asyncio

import pytest

from loadtests.crashes import kept, run

pytestmark = pytest.mark.story


def test_what_clients_received_is_in_the_store_once_whichever_process_was_killed() -> None:
    """Each prediction id that was received, with its one row or its draft rows, and each acknowledged event."""
    [(name, account)] = asyncio.run(run(3, clients=4, seed=1, disks=False)).items()
    assert len(account.held.ids) > 50
    assert len(account.held.events) > 30
    assert kept(name, account), account
