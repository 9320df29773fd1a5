"""The backends of a snapshot, ready to be called: their upstreams, and the secrets sent to them or asked of clients.

Rule: a request holds on to the *generation* it began with, so that a swap never takes a connection away from it. An
upstream passes from generation to generation while its backend stays the same, and is closed when no generation that
has it is in use. A snapshot whose secrets cannot be read is refused whole; secrets whose files change are read again.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from typing import Final

from gateway.files.pseudonym import read_keys
from gateway.files.secret import Mark, SecretMissing, mark, secret, tokens
from gateway.files.tls import Unusable, client_context
from gateway.proxy.client.probes import Probes
from gateway.proxy.client.upstream import Upstream
from gateway.proxy.log.counters import Counts
from gateway.proxy.log.worker_series import REPLICAS, WAITING, Sample
from gateway.proxy.wire.buffers import Buffers
from gateway.proxy.wire.headers import Header, Headers
from router.records import CallLine, Role, Stamp, stamp
from router.settings.placeholders import fill, placeholders
from router.snapshot import Backend, Gateway, Route, Snapshot

#: The settings that name a file of tokens or keys that workers read.
_TOKENS: Final = ("force_token_file", "feedback_token_file", "unit_key_file")


class Upstreams:
    """What is called of one backend: for clients, and for copies, through pools and limits of their own."""

    def __init__(self, backend: Backend, tls: ssl.SSLContext | None, counts: Counts, buffers: Buffers) -> None:
        self.answering = Upstream(backend, tls=tls, counts=counts, buffers=buffers)
        self.mirroring = Upstream(backend, tls=tls, counts=counts, buffers=buffers, waits=False)
        self.probes: Probes | None = None
        if backend.health_path is not None:
            names = tuple(replica.name for replica in self.answering.replicas)
            self.probes = Probes(backend, names, (self.answering.probed, self.mirroring.probed), tls)

    async def close(self) -> None:
        """Close what is idle; connections in use are closed when their calls end."""
        if self.probes is not None:
            await self.probes.close()
        await asyncio.gather(self.answering.close(), self.mirroring.close())


class Generation:
    """What one snapshot calls, and the tokens it asks for. Requests and copies hold it from ``enter`` to ``leave``."""

    def __init__(
        self,
        backends: Mapping[str, Backend],
        upstreams: Mapping[str, Upstreams],
        headers: Mapping[str, tuple[Header, ...]],
        authorities: Mapping[str, Mark],
        force_tokens: tuple[bytes, ...],
        feedback_tokens: tuple[bytes, ...] | None,
        idle: Callable[[Generation], None],
    ) -> None:
        self.backends = backends
        self.upstreams = upstreams
        self._headers = headers
        #: The state of each backend's ``tls_ca_file`` when it was read.
        self.authorities = authorities
        #: Without a file of force tokens none is valid; without one of feedback tokens none is asked for.
        self.force_tokens = force_tokens
        self.feedback_tokens = feedback_tokens
        #: The key that units are hashed with before they are logged; None where they are logged as they are.
        self.unit_key: bytes | None = None
        self.users = 0
        self._idle = idle
        self._stamps: dict[tuple[str, str, Role, CallLine], Stamp] = {}

    def answering(self, variant: str) -> Upstream:
        """Return the upstream that answers clients."""
        return self.upstreams[variant].answering

    def mirroring(self, variant: str) -> Upstream:
        """Return the upstream that takes copies: the same backend through pools and limits of its own."""
        return self.upstreams[variant].mirroring

    def enter(self) -> None:
        """Keep every upstream open until ``leave``."""
        self.users += 1

    def leave(self) -> None:
        self.users -= 1
        if self.users == 0:
            self._idle(self)

    def stamp(self, route: Route, variant: str, role: Role, kind: CallLine) -> Stamp:
        """Return what the rows of one variant of one route have in common; the route is of the same snapshot."""
        which = (route.name, variant, role, kind)
        found = self._stamps.get(which)
        if found is None:
            backend = self.backends[variant]
            found = self._stamps[which] = stamp(
                kind,
                route=route.name,
                epoch=route.epoch,
                period=route.period,
                revision=route.revision,
                variant=variant,
                model=backend.model,
                version=backend.version,
                role=role,
                **({"by_unit": True} if route.by_unit else {}),
            )
        return found

    def dressed(self, headers: Headers, variant: str) -> Headers:
        """Return the headers with the backend's ``request_headers`` in place of those of the same name."""
        added = self._headers[variant]
        if not added:
            return headers
        names = {name.lower() for name, _ in added}
        return [header for header in headers if header[0].lower() not in names] + list(added)


class Backends:
    """Holds the generation in force, and closes the upstreams that no generation in use has."""

    def __init__(self, snapshot: Snapshot, counts: Counts | None = None, buffers: Buffers | None = None) -> None:
        """The repeats and ejections of upstreams are added to ``counts``. Raises SecretMissing."""
        self._snapshot, self._marks = snapshot, _marks(snapshot)
        self._counts = Counts() if counts is None else counts
        self._buffers = Buffers(snapshot.gateway.max_buffer_bytes) if buffers is None else buffers
        self.current = _generation(snapshot, None, self._leave, self._counts, self._buffers)
        self._old: set[Generation] = set()
        self._closing: set[asyncio.Task[None]] = set()

    def swap(self, snapshot: Snapshot) -> None:
        """Use this snapshot from now on. Raises SecretMissing and keeps the present one."""
        marks = _marks(snapshot)  # before they are read: a change in between is seen the next time
        fresh = _generation(snapshot, self.current, self._leave, self._counts, self._buffers)
        self._snapshot, self._marks = snapshot, marks
        old, self.current = self.current, fresh
        self._old.add(old)
        self._leave(old)

    def refresh(self) -> bool:
        """Read the secrets again if a file of theirs changed; return whether one did.

        Raises SecretMissing, once per change, and keeps the secrets there are.
        """
        marks = _marks(self._snapshot)
        if marks == self._marks:
            return False
        self._marks = marks
        self.swap(self._snapshot)
        return True

    def gauges(self) -> list[Sample]:
        """Return the state of every replica, and how many calls wait at each backend, as a datagram carries them.

        A replica that is ejected for its copies alone is reported as ejected: a shadow has no other calls.
        """
        found: list[Sample] = []
        for name in self.current.backends:
            answering, mirroring = self.current.answering(name), self.current.mirroring(name)
            for (replica, state), (_, other) in zip(answering.states(), mirroring.states(), strict=True):
                seen = other if state == "fit" else state
                found.append(REPLICAS.sample(1, variant=name, replica=replica, state=seen))
            found.append(WAITING.sample(len(answering.waiting), variant=name))
        return found

    async def close(self) -> None:
        """Close everything, in use or not."""
        everything = self._needed()
        self._old.clear()
        await asyncio.gather(*(upstreams.close() for upstreams in everything), *self._closing)

    def _needed(self) -> set[Upstreams]:
        return {upstreams for each in (self.current, *self._old) for upstreams in each.upstreams.values()}

    def _leave(self, generation: Generation) -> None:
        if generation.users or generation not in self._old:
            return
        self._old.discard(generation)
        for upstreams in set(generation.upstreams.values()) - self._needed():
            task = asyncio.get_running_loop().create_task(upstreams.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


def _generation(
    snapshot: Snapshot,
    before: Generation | None,
    idle: Callable[[Generation], None],
    counts: Counts,
    buffers: Buffers,
) -> Generation:
    """Build the generation of a snapshot, with the upstreams that ``before`` has for backends that are the same."""
    headers = {name: _headers(backend) for name, backend in snapshot.backends.items()}
    authorities = {name: mark(backend.tls_ca_file) for name, backend in snapshot.backends.items()}
    force_tokens = _tokens(snapshot.gateway, "force_token_file") or ()
    feedback_tokens = _tokens(snapshot.gateway, "feedback_token_file")
    unit_key = _unit_key(snapshot.gateway)
    contexts = {
        name: _context(backend)
        for name, backend in snapshot.backends.items()
        if before is None or before.backends.get(name) != backend or before.authorities[name] != authorities[name]
    }
    # Nothing may fail from here on: what is begun here would not be closed.
    upstreams: dict[str, Upstreams] = {}
    for name, backend in snapshot.backends.items():
        if before is not None and name not in contexts:
            upstreams[name] = before.upstreams[name]
        else:
            upstreams[name] = Upstreams(backend, contexts[name], counts, buffers)
        if (probes := upstreams[name].probes) is not None:
            probes.headers = headers[name]
    fresh = Generation(snapshot.backends, upstreams, headers, authorities, force_tokens, feedback_tokens, idle)
    fresh.unit_key = unit_key
    return fresh


def _context(backend: Backend) -> ssl.SSLContext | None:
    try:
        return client_context(backend)
    except Unusable as error:
        raise SecretMissing(str(error)) from None
    except OSError as error:
        where = f"backends.{backend.name}.tls_ca_file"
        raise SecretMissing(f"{where}: {backend.tls_ca_file} cannot be read: {error.strerror or error}") from None


def _marks(snapshot: Snapshot) -> tuple[Mark, ...]:
    """Return the state of each file that a worker reads: it differs once the file has changed."""
    files = [path for path in (getattr(snapshot.gateway, setting) for setting in _TOKENS) if path is not None]
    for backend in snapshot.backends.values():
        if backend.tls_ca_file is not None:
            files.append(backend.tls_ca_file)
        for _, text in backend.request_headers:
            files += [secret.name for secret in placeholders(text) if secret.source == "file"]
    return tuple(map(mark, files))


def _headers(backend: Backend) -> tuple[Header, ...]:
    filled: list[Header] = []
    for name, text in backend.request_headers:
        value = fill(text, secret).encode()
        if any(byte in value for byte in b"\r\n\0"):
            # The secret itself must not be shown.
            raise SecretMissing(f'backends.{backend.name}.request_headers."{name}" would hold a line break')
        filled.append((name.encode(), value))
    return tuple(filled)


def _tokens(gateway: Gateway, setting: str) -> tuple[bytes, ...] | None:
    path: str | None = getattr(gateway, setting)
    if path is None:
        return None
    try:
        return tokens(path)
    except SecretMissing as error:
        raise SecretMissing(f"gateway.{setting}: {error}") from None


def _unit_key(gateway: Gateway) -> bytes | None:
    if gateway.unit_key_file is None:
        return None
    try:
        return read_keys(gateway.unit_key_file)[0]
    except (OSError, ValueError) as error:
        raise SecretMissing(f"gateway.unit_key_file: {getattr(error, 'strerror', None) or error}") from None
