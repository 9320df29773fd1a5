"""A slot is refused where a version could lead elsewhere, and what is filled is laid over the file."""

from __future__ import annotations

import pytest

from router.config.config import ConfigError, parse, said_of, with_slots
from router.settings.slots import Filled

GOOD = '{ url = "http://models:8000/{name}/{version}", hosts = ["models"] }'
TEXT = """
[backends.a]
url = "http://models:8000/a/1"
version = "1"
slot = SLOT
[routes.r]
path = "/r"
policy = { kind = "single", variant = "a" }
"""


@pytest.mark.parametrize(
    ("slot", "said"),
    [
        ('"x"', "must be a table with url and hosts"),
        ("{}", "needs url"),
        ('{ url = "http://m/{version}" }', "needs hosts"),
        ('{ url = "http://m/{version}", hosts = [] }', "must name at least one host"),
        ('{ url = "http://m/{version}", hosts = "m" }', "must name at least one host"),
        ('{ url = "http://m/", hosts = ["m"] }', "must have {version} in its url"),
        ('{ url = "http://m/{versoin}{version}", hosts = ["m"] }', "has {versoin} in its url"),
        ('{ url = "http://m/{version}", hosts = ["n"] }', 'the host "m" is not one of hosts: n'),
        ('{ url = "http://m.evil/{version}", hosts = ["m"] }', 'the host "m.evil" is not one of hosts'),
        ('{ url = "http://m@evil/{version}", hosts = ["m"] }', 'the host "evil" is not one of hosts'),
        ('{ url = "ftp://m/{version}", hosts = ["m"] }', "must be a URL such as"),
        ('{ url = "http://m/{version}", hosts = ["m"], port = 1 }', 'has no "port"'),
        ('{ url = "http://m/{version}", hosts = ["m"], alias = "x" }', "has alias without a registry"),
        ('{ url = "http://m/{version}", hosts = ["m"], registry = "hub" }', 'knows the registries "mlflow"'),
        ('{ url = "http://m/{version}", hosts = ["m"], registry = "mlflow", model = "x" }', "needs alias"),
        (
            '{ url = "http://m/{version}", hosts = ["m"], registry = "mlflow", model = "x", alias = "y" }',
            "needs gateway.registry_secret_file",
        ),
    ],
)
def test_what_is_wrong_with_a_slot_is_named(slot: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(TEXT.replace("SLOT", slot), "t.toml")
    assert said in str(refused.value)
    assert "t.toml:5" in str(refused.value)


def test_a_filled_slot_is_as_if_the_file_said_so() -> None:
    config = parse(TEXT.replace("SLOT", GOOD), "t.toml")
    over = said_of(config.backends["a"])
    laid = with_slots(config, {"a": Filled(version="7", over=over), "gone": Filled(version="1", over="")})
    assert (laid.backends["a"].version, laid.backends["a"].urls) == ("7", ("http://models:8000/a/7",))
    assert laid.hash != config.hash
    assert list(laid.slots) == ["a"]
    assert with_slots(config, {"a": Filled(version="7", over=over, at_ms=5)}).hash == laid.hash


@pytest.mark.parametrize("filled", [Filled(version="7", over="other"), Filled(version="../7", over="")])
def test_what_the_file_has_changed_since_is_not_laid_over_it(filled: Filled) -> None:
    config = parse(TEXT.replace("SLOT", GOOD), "t.toml")
    if not filled.over:
        filled = Filled(version=filled.version, over=said_of(config.backends["a"]))
    assert with_slots(config, {"a": filled}) is config


def test_a_host_may_be_any_below_a_name() -> None:
    slot = '{ url = "http://{name}-{version}.models.svc:80", hosts = ["*.models.svc"] }'
    config = parse(TEXT.replace("SLOT", slot), "t.toml")
    over = said_of(config.backends["a"])
    assert with_slots(config, {"a": Filled(version="7", over=over)}).backends["a"].urls == ("http://a-7.models.svc:80",)
