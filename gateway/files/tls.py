"""TLS contexts from the operator's files: for the two ports, for backends and for sinks.

Rule: ``check`` makes a context by the same function as the process that uses it, so what ``check`` calls valid works.
No function asks for a password on the terminal.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Final

from gateway.files.secret import Mark, mark
from router.snapshot import Backend, Gateway, Sink

#: OpenSSL's reasons for a key that does not belong to the certificate; the last if the key is of another type.
_OF_ANOTHER: Final = frozenset({"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"})


class Unusable(ValueError):
    """The file that ``setting`` names exists and cannot be used."""

    def __init__(self, setting: str, reason: str, *, table: str = "gateway") -> None:
        super().__init__(f"{table}.{setting}: {reason}")
        self.setting = setting
        self.reason = reason


def context(gateway: Gateway) -> ssl.SSLContext | None:
    """Return the context of the data port, None for plain HTTP.

    Raises OSError if a file cannot be read, and Unusable if it does not hold what it should.
    """
    if gateway.tls_cert_file is None:
        return None
    made = _serving("", gateway.tls_cert_file, gateway.tls_key_file)
    authorities = gateway.tls_client_ca_file
    if authorities is not None:
        try:
            made.load_verify_locations(authorities)
        except ssl.SSLError:
            raise Unusable("tls_client_ca_file", f'"{authorities}" holds no certificate (PEM)') from None
        made.verify_mode = ssl.CERT_REQUIRED
    return made


def admin_context(gateway: Gateway) -> ssl.SSLContext | None:
    """Return the context of the admin port, None for plain HTTP. Raises as ``context`` does."""
    if gateway.admin_tls_cert_file is None:
        return None
    return _serving("admin_", gateway.admin_tls_cert_file, gateway.admin_tls_key_file)


def asking_context(gateway: Gateway) -> ssl.SSLContext | None:
    """Return the context with which commands on this machine connect to the admin port, None for plain HTTP.

    The commands trust exactly the certificate that the operator's file names, whatever host name it has. Raises as
    ``context`` does.
    """
    if gateway.admin_tls_cert_file is None:
        return None
    made = _checking(gateway.admin_tls_cert_file, "gateway")
    made.check_hostname = False
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return made


def _serving(port: str, cert: str, key: str | None) -> ssl.SSLContext:
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        made.load_cert_chain(cert, key, password=_no_password)
    except ssl.SSLError as error:
        raise _unusable(error, port, cert, key or cert) from None
    except Unusable as error:
        raise Unusable(f"{port}{error.setting}", error.reason) from None
    return made


class Renewal:
    """Makes a new context when the files of a port's certificate have changed."""

    def __init__(self, gateway: Gateway, make: Callable[[Gateway], ssl.SSLContext | None]) -> None:
        self._make = make
        self._marks = _marks(gateway)

    def fresh(self, gateway: Gateway) -> ssl.SSLContext | None:
        """Return a new context if a file changed, else None. Raises as ``context`` does, once per change."""
        marks = _marks(gateway)
        if marks == self._marks:
            return None
        self._marks = marks
        return self._make(gateway)


def _marks(gateway: Gateway) -> tuple[Mark, ...]:
    """Return the marks of the files with certificates and keys, which differ after a change."""
    files = (
        gateway.tls_cert_file,
        gateway.tls_key_file,
        gateway.tls_client_ca_file,
        gateway.admin_tls_cert_file,
        gateway.admin_tls_key_file,
    )
    return tuple(map(mark, files))


def client_context(backend: Backend) -> ssl.SSLContext | None:
    """Return the context for a backend's ``https`` replicas, None if it has none.

    Certificates and host names are verified, with the authorities in ``tls_ca_file``, else the system's.

    Raises OSError if the file cannot be read, and Unusable if it does not hold what it should.
    """
    if not any(url.startswith("https:") for url in backend.urls):
        return None
    return _checking(backend.tls_ca_file, f"backends.{backend.name}")


def sink_context(sink: Sink) -> ssl.SSLContext | None:
    """Return the context for the ``https`` url of a sink, None for another url. Otherwise as ``client_context``."""
    if sink.url is None or not sink.url.startswith("https:"):
        return None
    return _checking(sink.tls_ca_file, f"sinks.{sink.name}")


def _checking(authorities: str | None, table: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=authorities)
    except ssl.SSLError:
        raise Unusable("tls_ca_file", f'"{authorities}" holds no certificate (PEM)', table=table) from None


def _unusable(error: ssl.SSLError, port: str, cert: str, key: str) -> Unusable:
    """Return which of the two files is unusable: OpenSSL says "PEM lib" for both."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cert)
    except ssl.SSLError:
        return Unusable(f"{port}tls_cert_file", f'"{cert}" holds no certificate (PEM)')
    if error.reason in _OF_ANOTHER:
        return Unusable(f"{port}tls_key_file", f'"{key}" is not the key of the certificate in "{cert}"')
    if error.reason in (None, "PEM_LIB"):
        return Unusable(f"{port}tls_key_file", f'"{key}" holds no private key (PEM)')
    return Unusable(f"{port}tls_cert_file", f'"{cert}" is refused: {error.reason.lower().replace("_", " ")}')


def _no_password() -> bytes:
    raise Unusable("tls_key_file", "is encrypted, and there is nobody to ask for the password; decrypt it")
