"""``turnout report``: the admin API's reports of routes, as tables or as JSON; and how every command asks that API."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote

import typer

from gateway.cli.options import ConfigOption, JsonOption, RouteArgument, RouteOption, chosen, configuration, one_route
from gateway.cli.output import console, fail, print_json

if TYPE_CHECKING:
    import ssl

    import httpx

    from router.snapshot import Gateway

#: More than the 10 s after which the API reports that the store is slow.
TIMEOUT_SECONDS: Final = 15.0

#: The environment variable with the token to send; without it, tokens are read from the files that the config names.
TOKEN_VARIABLE: Final = "TURNOUT_TOKEN"


def report(
    context: typer.Context,
    route: RouteArgument = None,
    option: RouteOption = None,
    epoch: Annotated[
        str | None, typer.Option("--epoch", metavar="E", help="An epoch of the route that is over.")
    ] = None,
    epochs: Annotated[bool, typer.Option("--epochs", help="List the epochs that the route had.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how each variant turns out so far.

    Calls, quality with error bars, and the verdict in a sentence, as the running gateway says on its admin port: of one
    route, or of all.
    """
    route = one_route(context, route, option)
    if route is None and (epoch is not None or epochs):
        raise typer.BadParameter("needs a ROUTE", context, param_hint="--epochs" if epochs else "--epoch")
    path = chosen(context, config)
    gateway = configuration(path).gateway
    where = "/api/v1/routes" if route is None else f"/api/v1/routes/{quote(route, safe='')}"
    if epochs:
        where += "/epochs"
    elif epoch is not None:
        where += f"?epoch={quote(epoch, safe='')}"
    answer = ask(gateway, where, path)
    if as_json:
        print_json(answer)
        return
    from gateway.cli.report_tables import of_epochs, of_problem, of_route

    out = console()
    if epochs:
        out.print(of_epochs(answer["epochs"], boxed=out.is_terminal))
        return
    for index, one in enumerate(answer["routes"] if route is None else [answer]):
        if index:
            out.print()
        out.print(of_route(one, boxed=out.is_terminal))
    if route is None and answer["feedback_of_no_route"] is not None:
        out.print()
        out.print(of_problem(answer["feedback_of_no_route"]))


def ask(gateway: Gateway, where: str, config: Path) -> dict[str, Any]:
    """Return the answer of the admin API; exits with 1 and a sentence if there is none."""
    with asking(gateway, config, "GET", where) as answer:
        return value_of(answer, gateway)


def value_of(answer: httpx.Response, gateway: Gateway) -> dict[str, Any]:
    """Return the JSON object in an answer of the admin API; exits with 1 and a sentence if there is none."""
    answer.read()
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        where = _base(gateway)
        raise fail(f"{where} answers, but it is no admin port of turnout", f'gateway.admin is "{gateway.admin}"')
    return found


@contextmanager
def asking(
    gateway: Gateway,
    config: Path,
    method: str,
    where: str,
    *,
    seconds: float = TIMEOUT_SECONDS,
    again: bool = False,
    **more: Any,
) -> Iterator[httpx.Response]:
    """Yield the admin API's answer while it arrives; exits with 1 and a sentence if there is none, or only a part.

    With ``again`` an answer that breaks off raises httpx.HTTPError, for a caller that repeats the request.
    """
    import httpx

    base, answered = _base(gateway), False
    try:
        with answering(gateway, config, method, where, seconds=seconds, **more) as answer:
            if answer.status_code != 200:
                answer.read()
                raise fail(*_refused(answer, gateway))
            answered = True
            yield answer
    except httpx.TimeoutException:
        if answered and again:
            raise
        raise fail(f"the admin port at {base} did not answer within {seconds:.0f} seconds") from None
    except httpx.HTTPError as error:
        if answered and again:
            raise
        if answered:
            raise fail(f"the answer of {base} broke off: {_reason(error)}", "its log says more") from None
        hint = f"is it running? Start it with: turnout serve -c {config}"
        raise fail(f"the admin port at {base} cannot be reached: {_reason(error)}", hint) from None


@contextmanager
def answering(
    gateway: Gateway, config: Path, method: str, where: str, *, seconds: float = TIMEOUT_SECONDS, **more: Any
) -> Iterator[httpx.Response]:
    """Yield the admin API's answer, of any status, while it arrives. Raises httpx.HTTPError unless it comes whole."""
    import httpx

    if gateway.admin.endswith(":0"):
        hint = f"give it a port in {config}; which one it has now is in the log of turnout serve"
        raise fail(f'gateway.admin is "{gateway.admin}", any free port, and only the running gateway knows which', hint)
    # No proxy of the environment is used: the admin port is on this machine, or near.
    with (
        httpx.Client(
            trust_env=False,
            timeout=seconds,
            headers=_authorization(gateway) | ({"turnout-user": name} if (name := user()) else {}),
            verify=_trusted(gateway),
        ) as client,
        client.stream(method, _base(gateway) + where, **more) as answer,
    ):
        yield answer


def reachable(address: str) -> str:
    """Return the address by which to connect to one that is listened on: every interface includes loopback.

    >>> reachable("0.0.0.0:9090"), reachable("[::]:9090"), reachable("10.0.0.7:9090")
    ('127.0.0.1:9090', '[::1]:9090', '10.0.0.7:9090')
    """
    host, _, port = address.rpartition(":")
    return f"{ {'0.0.0.0': '127.0.0.1', '': '127.0.0.1', '[::]': '[::1]'}.get(host, host) }:{port}"


def _base(gateway: Gateway) -> str:
    return f"http{'' if gateway.admin_tls_cert_file is None else 's'}://{reachable(gateway.admin)}"


def _trusted(gateway: Gateway) -> ssl.SSLContext | bool:
    from gateway.files.tls import Unusable, asking_context

    try:
        return asking_context(gateway) or True
    except (OSError, Unusable) as error:
        path, reason = gateway.admin_tls_cert_file, getattr(error, "strerror", None) or "it holds no certificate (PEM)"
        raise fail(f"the admin port's certificate cannot be read from {path}: {reason}") from None


def _authorization(gateway: Gateway) -> dict[str, str]:
    """Return the header with the token in TURNOUT_TOKEN, else the first in the files: of admins, or for reading."""
    from gateway.files.secret import SecretMissing, tokens

    if given := os.environ.get(TOKEN_VARIABLE, "").strip():
        return {"authorization": f"Bearer {given}"}
    files = [path for path in (gateway.admin_token_file, gateway.admin_read_token_file) if path is not None]
    missing: SecretMissing | None = None
    for path in files:
        try:
            return {"authorization": f"Bearer {tokens(path)[0].decode()}"}
        except SecretMissing as error:
            missing = missing or error
    if missing is not None:
        raise fail(f"no admin token: {missing}")
    return {}


def user() -> str:
    """Return the user of this command, for the list of who changed what: the gateway takes the name unverified.

    Without a name that can be sent, it is empty.
    """
    import getpass

    try:
        name = getpass.getuser()
    except (OSError, KeyError, ImportError):  # no user has this number, and the environment names none
        return ""
    return name if name.isascii() and name.isprintable() else ""


def _refused(answer: Any, gateway: Gateway) -> tuple[str, str | None]:
    """Return the sentence with which the admin port refused, and a hint."""
    if answer.status_code == 401:
        source = TOKEN_VARIABLE if os.environ.get(TOKEN_VARIABLE, "").strip() else gateway.admin_token_file
        hint = f"it was read from {source}" if source else f"set {TOKEN_VARIABLE}, or gateway.admin_token_file"
        return "the admin port does not take the token" if source else "the admin port wants a token", hint
    try:
        detail = str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"the admin port answered {answer.status_code}", f'gateway.admin is "{gateway.admin}"'
    return detail, None


def _reason(error: Exception) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
        cause = cause.__cause__ or cause.__context__
    return str(error) or type(error).__name__
