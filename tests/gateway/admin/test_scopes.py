"""Who may do what on the admin port: every path of the app, with every scope."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.datastructures import Headers
from starlette.routing import Route

from gateway.admin.app import create
from gateway.admin.identity import Identities, Identity
from gateway.admin.scopes import NEEDS, needed
from router.settings.tokens import RANKS, Scope, hashed
from router.snapshot import NamedToken
from tests.gateway.admin.fake import Control, ask, control

SCOPES: tuple[Scope, ...] = ("feedback", "read", "operate", "admin")
TOKENS: dict[Scope, str] = {scope: f"turnout_{scope}" for scope in SCOPES}
NAMED = tuple(NamedToken(name=f"of-{one}", scope=one, sha256=hashed(token.encode())) for one, token in TOKENS.items())

#: The scope that each changing path needs; whatever else there is only reads.
CHANGING: dict[str, str] = {
    "/-/reload": "admin",
    "/api/v1/privacy/erase": "admin",
    "/api/v1/privacy/export": "admin",
}


def with_tokens(*tokens: NamedToken, **gateway: Any) -> Control:
    fake = control(**{"admin_token_required": True, **gateway})
    fake.snapshot = replace(fake.snapshot, tokens=tokens or NAMED)
    return fake


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def every_request() -> Iterator[tuple[str, str]]:
    for route in create(control().parts).routes:
        if isinstance(route, Route) and route.path not in {"/livez", "/readyz"}:
            yield from ((method, route.path) for method in (route.methods or set()) - {"HEAD"})


def test_every_path_is_open_to_what_it_needs_and_closed_to_less() -> None:
    """403 is the guard's alone: what a handler makes of names that do not exist is another status."""

    async def story() -> None:
        transport = httpx.ASGITransport(create(with_tokens().parts), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:9090") as client:
            for method, path in sorted(every_request()):
                where = path.replace("{route}", "digits").replace("{", "").replace("}", "")
                wanted = needed(method, where)
                assert method != "POST" or wanted == CHANGING.get(path, wanted)
                if wanted == "signed":
                    assert (await client.request(method, where)).status_code == 404
                    continue
                assert (await client.request(method, where)).status_code == 401, path
                for scope, token in TOKENS.items():
                    status = (await client.request(method, where, headers=bearer(token))).status_code
                    assert (status not in {401, 403}) == (RANKS[scope] >= RANKS[wanted]), (method, path, scope, status)

    asyncio.run(story())


def test_a_path_that_is_in_no_row_is_changed_by_admin_alone() -> None:
    assert [needed(method, "/api/v9/new") for method in ("GET", "POST", "PUT", "DELETE", "BREW")] == [
        "read",
        *["admin"] * 4,
    ]


def test_a_slash_in_a_name_reaches_no_other_row() -> None:
    assert needed("POST", "/api/v1/routes/a/b/acts") == "admin"
    assert needed("POST", "/api/v1/acts/") == "admin"
    assert needed("POST", "/api/v1/tokens\n/api/v1/acts") == "admin"


def test_no_row_is_hidden_by_one_before() -> None:
    for row in NEEDS:
        method = "GET" if row.safe else "POST"
        assert needed(method, row.pattern.replace("**", "a/b").replace("*", "a")) == row.needs


def test_an_expired_token_is_refused() -> None:
    lives = NamedToken(name="lives", scope="read", sha256=hashed(b"turnout_lives"), expires_ms=2**60)
    over = NamedToken(name="over", scope="admin", sha256=hashed(b"turnout_over"), expires_ms=1)
    fake = with_tokens(lives, over)
    assert ask(fake, "/api/v1/routes", headers=bearer("turnout_lives")).status_code == 200
    assert ask(fake, "/api/v1/routes", headers=bearer("turnout_over")).status_code == 401


def test_files_of_tokens_and_named_tokens_are_valid_beside_each_other(tmp_path: Path) -> None:
    (tmp_path / "admin").write_text("s3cret\n")
    fake = with_tokens(admin_token_file=str(tmp_path / "admin"), admin_token_required=False)
    for token, status in (("s3cret", 200), (TOKENS["read"], 200), ("turnout_other", 401), (hashed(b"s3cret"), 401)):
        assert ask(fake, "/metrics", headers=bearer(token)).status_code == status
    (tmp_path / "admin").unlink()
    assert ask(fake, "/metrics", headers=bearer("s3cret")).status_code == 503
    assert ask(fake, "/metrics", headers=bearer(TOKENS["read"])).status_code == 200


def test_a_hash_is_no_token() -> None:
    fake = with_tokens()
    for token in NAMED:
        assert ask(fake, "/metrics", headers=bearer(f"turnout_{token.sha256}")).status_code == 401
        assert ask(fake, "/metrics", headers=bearer(token.sha256)).status_code == 401


@pytest.mark.parametrize(
    "authorization", ["Bearer turnout_", "Bearer", "Basic ", "Bearer \xff\xfe", "Bearer " + "x" * 8192]
)
def test_what_is_no_token_is_refused(authorization: str) -> None:
    assert ask(with_tokens(), "/metrics", headers={"authorization": authorization}).status_code == 401


def test_where_nobody_is_asked_a_named_token_has_its_scope_all_the_same() -> None:
    fake = with_tokens(admin_token_required=False)
    assert ask(fake, "/-/reload", method="POST").status_code == 200
    assert ask(fake, "/-/reload", method="POST", headers=bearer(TOKENS["read"])).status_code == 403


HEADER = "X-Forwarded-User"


def behind_a_proxy(**gateway: Any) -> Control:
    proxy: dict[str, Any] = {
        "admin_token_required": False,
        "trusted_user_header": HEADER.lower(),
        "trusted_users": (("ana", "admin"), ("bo", "operate"), ("*", "read")),
        "trusted_proxies": ("127.0.0.0/8",),
    }
    return with_tokens(**{**proxy, **gateway})


@pytest.mark.parametrize(
    ("user", "reads", "changes"),
    [("ana", 200, 200), ("bo", 200, 403), ("cy", 200, 403), ("é", 200, 403), ("*", 403, 403), ("", 403, 403)],
)
def test_a_user_that_a_trusted_proxy_names_may_do_what_the_file_says(user: str, reads: int, changes: int) -> None:
    fake, headers = behind_a_proxy(), {HEADER: user.encode().decode("latin-1")}
    assert ask(fake, "/api/v1/routes", headers=headers).status_code == reads
    assert ask(fake, "/-/reload", method="POST", headers=headers).status_code == changes


@pytest.mark.parametrize("user", ["token of-admin", "token 1 of admin_token_file", "a" * 201, "a\u202eb", "ana, bo"])
def test_a_user_s_name_imitates_no_token(user: str) -> None:
    fake = behind_a_proxy(trusted_users=(("ana", "admin"),))
    assert ask(fake, "/api/v1/routes", headers={HEADER: user.encode().decode("latin-1")}).status_code == 403


@pytest.mark.parametrize("address", ["10.0.0.1", "::ffff:10.0.0.1", "127.0.0.2", "fe80::1%eth0", "testclient", ""])
def test_the_address_of_the_connection_alone_says_whether_a_proxy_is_trusted(address: str) -> None:
    """No header is asked for the address: a client can send any."""
    ignored: list[None] = []
    identities = Identities(lambda: ignored.append(None))
    snapshot = behind_a_proxy(trusted_proxies=("10.0.0.0/8", "192.0.2.7")).snapshot
    headers = Headers(
        {HEADER: "ana", "x-forwarded-for": "192.0.2.7", "forwarded": "for=192.0.2.7", "x-real-ip": "10.1.1.1"}
    )
    found = identities.of(snapshot, {"client": (address, 1), "type": "http"}, headers)
    trusted = "10.0.0.1" in address
    assert (isinstance(found, Identity) and found.who == "ana") == trusted
    assert len(ignored) == (not trusted)


def test_from_any_other_address_a_user_is_ignored() -> None:
    fake = behind_a_proxy(trusted_proxies=("10.0.0.0/8",))
    assert ask(fake, "/api/v1/routes", headers={HEADER: "ana"}).status_code == 401
    assert ask(fake, "/-/reload", method="POST", headers={HEADER: "ana", **bearer(TOKENS["read"])}).status_code == 403
    assert ask(fake, "/-/reload", method="POST", headers={HEADER: "ana", **bearer(TOKENS["admin"])}).status_code == 200


def test_without_its_setting_a_user_s_header_means_nothing() -> None:
    assert ask(with_tokens(), "/api/v1/routes", headers={HEADER: "ana"}).status_code == 401
