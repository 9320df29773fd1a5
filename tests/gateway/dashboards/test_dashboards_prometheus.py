"""A real Prometheus scrapes the series and has an answer for every query of every panel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from gateway.admin.metrics.metrics import Metrics
from gateway.dashboards import panel_queries
from tests.gateway.admin.samples import NOW_MS, filled_control, observe, refresh
from tests.gateway.prometheus import needs_prometheus, prometheus


@contextmanager
def exposition() -> Iterator[str]:
    """Serve metrics to which each scrape adds one of everything; yields host:port."""
    fake = filled_control()
    metrics = Metrics(lambda: fake.snapshot, started_ms=NOW_MS, clock=lambda: 0.0)
    rounds = 0

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            nonlocal rounds
            rounds += 1
            observe(metrics, rounds)
            refresh(metrics, fake)
            text, content_type = metrics.exposition(self.headers.get("accept", ""))
            self.send_response(200)
            self.send_header("content-type", content_type)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:
            """Do not log scrapes."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@needs_prometheus
def test_every_query_of_every_panel_has_an_answer(tmp_path: Path) -> None:
    queries = {f"{query.panel} {query.ref}": query.expr for query in panel_queries()}
    with exposition() as target, prometheus(target, tmp_path) as server:
        assert server.empty(queries, within_seconds=30) == []
        # A histogram_quantile of empty buckets is NaN, which does not count as an answer.
        for name, expr in queries.items():
            values = [sample["value"][1] for sample in server.ask(expr)]
            assert any(value != "NaN" for value in values), name
