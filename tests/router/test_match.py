"""The route table finds what trying every route would find."""

from __future__ import annotations

import posixpath
import re
from itertools import combinations
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.match import RouteTable, has_dots, overlap
from router.snapshot import Route
from tests.router.builders import RequestFacts, request, route_of

TEMPLATE = route_of()


def a_route(path: str, *, methods: tuple[str, ...] = (), headers: tuple[tuple[str, str], ...] = ()) -> Route:
    return Route(
        name=f"{path} {methods} {headers}",
        path=path,
        methods=methods,
        headers=headers,
        policy=TEMPLATE.policy,
        salt="s",
        epoch="e",
        period=0,
        revision=1,
        plan=TEMPLATE.plan,
        variants=("v1",),
        baseline="v1",
        by_unit=False,
    )


def found(routes: list[Route], facts: RequestFacts) -> str | None:
    route = RouteTable(routes).find(facts)
    return None if route is None else route.path


def test_the_most_specific_path_wins_whatever_the_order() -> None:
    routes = [a_route("/*"), a_route("/v1/*"), a_route("/v1/models/*"), a_route("/v1/models/a")]
    for order in (routes, routes[::-1]):
        assert found(order, request("/v1/models/a")) == "/v1/models/a"
        assert found(order, request("/v1/models/b")) == "/v1/models/*"
        assert found(order, request("/v1/")) == "/v1/*"
        assert found(order, request("/v1")) == "/*"


def test_a_route_that_does_not_take_the_method_leaves_the_request_to_a_less_specific_one() -> None:
    routes = [a_route("/a", methods=("GET",)), a_route("/*", methods=("GET", "POST"))]
    assert found(routes, request("/a", "POST")) == "/*"
    assert found(routes, request("/a", "DELETE")) is None


def test_headers_decide_between_routes_of_one_path() -> None:
    routes = [a_route("/a", headers=(("x-stage", "beta"),)), a_route("/a", headers=(("x-stage", "live"),))]
    table = RouteTable(routes)
    assert table.find(request("/a", x_stage="live")) is routes[1]
    assert table.find(request("/a", x_stage="Live")) is None
    assert table.find(request("/a")) is None


def test_the_path_is_compared_as_it_came() -> None:
    """The same bytes go to the backend: cleaning them up here would route one thing and send another."""
    assert found([a_route("/a/b")], request("/a%2Fb")) is None
    assert found([a_route("/a/b")], request("/a//b")) is None
    assert found([a_route("/a/*")], request("/a/b%2Fc")) == "/a/*"


@pytest.mark.parametrize(
    "path",
    [
        "/a/../c", "/a/x/../../c", "/a/%2e%2e/c", "/a/.%2E/c", "/a/..%2fc", "/a/..%5Cc", "/a/..\\c", "/a/..;v=1/c",
        "/a/x%2f../..", "/a//../c", "/a/..", "/a/../a/c", "/a/../../a/c", "/../a/c", "/a/b/../c", "/a/./b/c",
        "/a/x/..//b/c", "/a//a%2Fa/../../c", "/a//x%5Cx/..\\../c",
    ],
)  # fmt: skip
def test_a_path_whose_dot_segments_leave_its_route_in_any_reading_has_none(path: str) -> None:
    """A backend that resolves them would serve what another route guards, or what lies outside a base path."""
    routes = [a_route("/a/*"), a_route("/a/b/*")]
    assert found(routes, request(path)) is None
    assert has_dots(path)


def test_nothing_leaves_the_root_and_dots_do_not_reach_the_gateways_own_paths() -> None:
    for path in ("/..", "/../x", "/x/../../y", "/x/%2e%2e/..", "/x/../-/feedback", "/x/..%2f-/feedback"):
        assert found([a_route("/*")], request(path)) is None, path


@pytest.mark.parametrize(
    "path", ["/a/x/../y", "/a/./y", "/a/x/%2e%2e/y", "/a/.well-known", "/a/..x", "/a/x.", "/a/%20"]
)
def test_dot_segments_that_stay_beneath_the_prefix_are_taken(path: str) -> None:
    assert found([a_route("/a/*"), a_route("/a/b/*")], request(path)) == "/a/*"


@given(
    segments=st.lists(st.sampled_from(["a", "b", "..", ".", "%2e%2E", ".%2e", "..;x", "", "x"]), max_size=6),
    slashes=st.lists(st.sampled_from(["/", "%2F", "\\", "//"]), min_size=6, max_size=6),
)
def test_whoever_resolves_a_path_that_a_route_takes_stays_beneath_its_prefix(
    segments: list[str], slashes: list[str]
) -> None:
    path = "/a/" + "".join(f"{segment}{slash}" for segment, slash in zip(segments, slashes, strict=False))
    if (route := RouteTable([a_route("/a/*"), a_route("/a/b/*")]).find(request(path))) is None:
        return
    decoded = unquote(path)
    for reading in (path, decoded, decoded.replace("\\", "/"), re.sub(r"[\\/]+", "/", decoded)):
        cut = re.sub(r";[^/]*", "", reading)
        for read in (reading, cut):
            assert f"{posixpath.normpath(read)}/".startswith(route.path[:-1]), read


def test_a_path_of_slashes_costs_no_more_than_another() -> None:
    assert found([a_route("/a/*")], request("/" * 60_000)) is None


paths = st.sampled_from(["/a", "/a/*", "/a/b", "/a/b/*", "/*"])
methods = st.sampled_from([(), ("GET",), ("POST",), ("GET", "POST")])
headers = st.dictionaries(st.sampled_from(["x", "y"]), st.sampled_from(["1", "2"])).map(
    lambda found: tuple(found.items())
)
routes = st.builds(
    lambda path, methods, headers: a_route(path, methods=methods, headers=headers), paths, methods, headers
)
requests = st.builds(
    lambda path, method, lines: RequestFacts(method, path, "", lines),
    st.sampled_from(["/a", "/a/", "/a/b", "/a/b/c", "/", "/ab"]),
    st.sampled_from(["GET", "POST", "PUT"]),
    headers,
)


def takes(route: Route, facts: RequestFacts) -> bool:
    """What matching means, spelled out."""
    path = facts.path.startswith(route.path[:-1]) if route.path.endswith("*") else facts.path == route.path
    return path and (not route.methods or facts.method in route.methods) and set(route.headers) <= set(facts.headers)


@given(routes=st.lists(routes, max_size=5), facts=requests)
def test_the_table_finds_what_trying_every_route_finds(routes: list[Route], facts: RequestFacts) -> None:
    kept: list[Route] = []
    for route in routes:
        if not any(overlap(route, other) for other in kept):
            kept.append(route)
    candidates = [route for route in kept if takes(route, facts)]
    best = max(candidates, key=lambda route: (not route.path.endswith("*"), len(route.path)), default=None)
    assert RouteTable(kept).find(facts) is best


@given(one=routes, other=routes, facts=requests)
def test_routes_that_do_not_overlap_never_take_one_request_with_the_same_path(
    one: Route, other: Route, facts: RequestFacts
) -> None:
    assert overlap(one, other) == overlap(other, one)
    if not overlap(one, other) and one.path == other.path:
        assert not (takes(one, facts) and takes(other, facts))


@given(routes=st.lists(routes, min_size=2, max_size=2))
def test_routes_that_overlap_have_a_request_that_both_take(routes: list[Route]) -> None:
    for one, other in combinations(routes, 2):
        if overlap(one, other):
            common = set(one.methods or other.methods or ("GET",)) & set(other.methods or one.methods or ("GET",))
            lines = tuple({*one.headers, *other.headers})
            facts = RequestFacts(min(common), one.path.replace("*", "x"), "", lines)
            assert takes(one, facts)
            assert takes(other, facts)
