"""A certificate for localhost, signed by itself."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest


def certificate(directory: Path) -> ssl.SSLContext:
    """Return a server's context with a fresh certificate, written to ``directory``. Skips where there is no openssl."""
    cert, key = directory / "cert.pem", directory / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    try:
        subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    return context


def authority(directory: Path) -> ssl.SSLContext:
    """Return a client's context that trusts that certificate."""
    return ssl.create_default_context(cafile=str(directory / "cert.pem"))
