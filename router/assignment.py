"""The key that salts are hashed with, so that a client who knows a salt cannot compute which variant it will get.

Rule: the key is in no snapshot, log or answer. This module gives out one hash for each salt, and a name by which two
keys can be told apart; neither reveals the key. The same key and salt give the same hash in every process.
"""

from __future__ import annotations

from hashlib import blake2b


class AssignmentKey:
    """One key. ``name`` is a hash that identifies it, and is not secret."""

    __slots__ = ("_key", "name")

    def __init__(self, secret: str) -> None:
        # BLAKE2 takes at most 64 bytes of key: a secret of any length is hashed to 32.
        text = secret.encode("utf-8", "surrogatepass")
        self._key: bytes = blake2b(text, digest_size=32, person=b"turnout key").digest()
        self.name: str = blake2b(key=self._key, digest_size=8, person=b"turnout name").hexdigest()

    def __repr__(self) -> str:
        return f"AssignmentKey({self.name})"

    def salt(self, configured: str) -> str:
        """Return the salt that replaces the configured one wherever a choice is drawn: 32 hex digits.

        >>> AssignmentKey("0" * 32).salt("checkout")
        'a79c7a481a97ef164b57e73e453c69ac'
        """
        text = configured.encode("utf-8", "surrogatepass")
        return blake2b(text, key=self._key, digest_size=16, person=b"turnout salt").hexdigest()
