"""A route as it was in an epoch that has ended, so that its numbers are reported under the settings of that time.

Rule: policy, variants with their last versions, unit, plan and metrics are those that the store has of the epoch. What
it does not have is taken from the present snapshot.
"""

from __future__ import annotations

from dataclasses import replace

from gateway.store.counts.ledger import Epoch, Ledger
from router.snapshot import Backend, RouteMirror, Snapshot


def as_it_was(snapshot: Snapshot, epoch: Epoch, ledger: Ledger) -> Snapshot:
    """Return the snapshot with the epoch's route as it was then. Raises KeyError if there is no route of its name."""
    present = snapshot.routes[epoch.route]
    versions = {key.variant: key.version for key in sorted(ledger.tallies, key=lambda key: key.period)}
    copied = {key.variant for key in ledger.tallies if key.role == "shadow"}.difference(epoch.variants)
    backends = dict(snapshot.backends)
    for name in (*epoch.variants, *copied):
        backend = backends.get(name) or Backend(name=name, urls=(), version="", model=name)
        backends[name] = replace(backend, version=versions.get(name, backend.version))
    metrics = {metric.name: metric for metric in epoch.metrics}
    route = replace(
        present,
        policy=epoch.policy,
        variants=epoch.variants,
        baseline=present.baseline if present.baseline in epoch.variants else epoch.variants[0],
        unit=epoch.unit,
        by_unit=epoch.by_unit,
        prediction=epoch.prediction,
        epoch=epoch.epoch,
        period=max((key.period for key in ledger.tallies), default=present.period),
        revision=epoch.revision,
        plan=epoch.plan,
        metrics=tuple(metrics),
        primary_metric=present.primary_metric if present.primary_metric in metrics else None,
        mirrors=tuple(RouteMirror(variant=variant, share=1.0) for variant in sorted(copied)),
    )
    return replace(
        snapshot,
        backends=backends,
        metrics={**snapshot.metrics, **metrics},
        routes={**snapshot.routes, epoch.route: route},
    )
