"""Files for TLS: `check` refuses an unusable one, with its place in the config, before a worker fails on it."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.files import tls
from gateway.process.configuration import load
from gateway.process.supervisor import EXIT_CONFIG, serve
from router.config.config import ConfigError
from router.snapshot import Backend, Gateway
from tests.gateway.cli.running import write_config
from tests.gateway.proxy.certificates import certificate


def gateway(directory: Path, **files: str) -> Gateway:
    named = {"tls_cert_file": "cert.pem", "tls_key_file": "key.pem"} | files
    return Gateway(**{setting: str(directory / name) for setting, name in named.items()})  # type: ignore[arg-type]


def openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)


def test_without_a_certificate_there_is_no_tls() -> None:
    assert tls.context(Gateway()) is None


def test_clients_are_asked_for_a_certificate_only_where_an_authority_is_named(tmp_path: Path) -> None:
    certificate(tmp_path)
    modes = [tls.context(gateway(tmp_path, **more)) for more in ({}, {"tls_client_ca_file": "cert.pem"})]
    assert [made and made.verify_mode for made in modes] == [ssl.CERT_NONE, ssl.CERT_REQUIRED]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tls_cert_file": "nothing.pem"}, r'tls_cert_file: ".*nothing.pem" holds no certificate'),
        ({"tls_key_file": "nothing.pem"}, r'tls_key_file: ".*nothing.pem" holds no private key'),
        ({"tls_key_file": "other.pem"}, r'tls_key_file: ".*other.pem" is not the key of the certificate in'),
        ({"tls_key_file": "another.pem"}, r'tls_key_file: ".*another.pem" is not the key of the certificate in'),
        ({"tls_key_file": "encrypted.pem"}, r"tls_key_file: is encrypted"),
        ({"tls_client_ca_file": "nothing.pem"}, r'tls_client_ca_file: ".*nothing.pem" holds no certificate'),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_its_setting(
    files: dict[str, str], message: str, tmp_path: Path
) -> None:
    certificate(tmp_path)
    (tmp_path / "nothing.pem").write_text("nothing")
    openssl(tmp_path, "genpkey", "-algorithm", "ed25519", "-out", "other.pem")
    openssl(tmp_path, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "another.pem")
    openssl(tmp_path, "pkey", "-in", "key.pem", "-aes128", "-passout", "pass:hush", "-out", "encrypted.pem")
    with pytest.raises(tls.Unusable, match=rf"^gateway\.{message}"):
        tls.context(gateway(tmp_path, **files))


def test_a_backends_authorities_are_looked_at_before_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "nothing.pem").write_text("nothing")
    described = Backend(
        name="b", urls=("https://b",), version="1", model="b", tls_ca_file=str(tmp_path / "nothing.pem")
    )
    with pytest.raises(tls.Unusable, match=r'^backends\.b\.tls_ca_file: ".*nothing.pem" holds no certificate'):
        tls.client_context(described)
    assert tls.client_context(replace(described, urls=("http://b",))) is None


def test_check_finds_authorities_that_are_none_or_not_there(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    bad = tmp_path / "bad.pem"
    extra = f'\n[backends.more]\nurl = "https://b"\nversion = "1"\ntls_ca_file = "{bad}"\n'
    path.write_text(path.read_text() + extra)
    for words in ("cannot be read", "holds no certificate (PEM)"):
        with pytest.raises(ConfigError) as caught:
            load(path)
        (problem,) = (one for one in caught.value.diagnostics if one.severity == "error")
        assert path.read_text().splitlines()[problem.line - 1][problem.column - 1 :] == f'"{bad}"'
        assert problem.message.startswith("backends.more.tls_ca_file: ")
        assert words in problem.message
        bad.write_text("nothing")


def test_check_says_it_with_the_line_and_serve_does_not_begin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A worker that cannot start is restarted for ever, and connections to its port get no answer."""
    bad = tmp_path / "bad.pem"
    bad.write_text("nothing")
    path = write_config(tmp_path, more=f'tls_cert_file = "{bad}"\ntls_key_file = "{bad}"')
    with pytest.raises(ConfigError) as caught:
        load(path)
    (problem,) = (one for one in caught.value.diagnostics if one.severity == "error")
    assert path.read_text().splitlines()[problem.line - 1][problem.column - 1 :] == f'"{bad}"'
    assert problem.message == f'gateway.tls_cert_file: "{bad}" holds no certificate (PEM)'
    assert serve(path) == EXIT_CONFIG
    assert problem.message in capsys.readouterr().err
