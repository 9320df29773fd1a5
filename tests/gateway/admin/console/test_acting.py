"""Forms of the console act in two steps: the first says what would happen, the second does it."""

from __future__ import annotations

import html
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx

from tests.gateway.admin.console.test_console import outline
from tests.gateway.control.command.rig import Rig, at_rig

Page = Callable[..., Awaitable[httpx.Response]]


def played(tmp_path: Path, story: Callable[[Rig, Page], Awaitable[None]]) -> None:
    """Play a story on a controller with its store; ``page`` sends a form as a browser does, or gets a page."""

    async def main(rig: Rig) -> None:
        async def page(path: str, **form: str) -> httpx.Response:
            if not form:
                return await rig.client.get(path)
            headers = {"content-type": "application/x-www-form-urlencoded", "sec-fetch-site": "same-origin"}
            return await rig.client.post(path, content=urlencode(form), headers=headers)

        await story(rig, page)

    at_rig(tmp_path, main)


def hidden(text: str) -> dict[str, str]:
    """The hidden fields of the page's last form."""
    outline(text)
    found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', text[text.rindex("<form") :])
    return {name: html.unescape(value) for name, value in found}


def test_approving_advances_only_what_the_form_showed(tmp_path: Path) -> None:
    async def story(rig: Rig, page: Page) -> None:
        before = rig.route().standing
        form = hidden((await page("/routes/r")).text)
        first = await page("/routes/r/acts", verb="approve", **form)
        assert first.status_code == 200
        assert "This would happen:" in first.text
        assert "approved step 1 of 3" in first.text
        assert rig.route().standing == before
        fields = hidden(first.text)
        assert fields == {"verb": "approve", "saw": str(before.number), "confirmed": "yes"}
        fields["why"] = 'it <is> "fine"'
        done = await page("/routes/r/acts", **fields)
        assert (done.status_code, done.headers["location"]) == (303, "/routes/r")
        assert rig.route().standing.number == before.number + 1
        again = await page("/routes/r/acts", **fields)
        assert again.status_code == 409
        assert hidden(again.text) == {"verb": "approve"}
        assert 'value="it &lt;is&gt; &#34;fine&#34;"' in again.text
        assert "has moved since number" in again.text
        assert "approved step 1 of 3" in again.text
        text = (await page("/routes/r")).text
        assert "it &lt;is&gt; &#34;fine&#34;" in text
        [entry, *_] = await rig.audit()
        assert (entry.act, entry.via, entry.why) == ("approve", "console", 'it <is> "fine"')

    played(tmp_path, story)


def test_every_verb_has_a_page_that_says_what_it_would_do_or_why_not(tmp_path: Path) -> None:
    async def story(rig: Rig, page: Page) -> None:
        before = rig.route().standing
        for verb in ("approve", "advance", "pause", "resume", "rollback", "restart", "promote", "freeze", "unfreeze"):
            answer = await page("/routes/r/acts", verb=verb, to="a")
            outline(answer.text)
            assert answer.status_code in (200, 409), verb
            assert ("This would happen" in answer.text) == (answer.status_code == 200)
            assert "traceback" not in answer.text.lower()
        assert rig.route().standing == before
        assert rig.frozen == {}
        for form in ({"verb": "explode"}, {"verb": "pause", "saw": "x"}, {"why": "no verb"}):
            assert (await page("/routes/r/acts", **form)).status_code == 400
        assert (await page("/routes/nowhere/acts", verb="pause")).status_code == 404
        assert (await page("/acts", verb="pause")).status_code == 400

    played(tmp_path, story)


def test_a_route_is_frozen_and_every_route_unfrozen_from_pages(tmp_path: Path) -> None:
    async def story(rig: Rig, page: Page) -> None:
        first = await page("/routes/s/acts", verb="freeze", to="b")
        assert "Freeze s to b" in first.text
        await page("/routes/s/acts", why="incident", **hidden(first.text))
        assert rig.frozen == {"s": "b"}
        text = (await page("/")).text
        assert "goes to <b>b</b>" in text
        assert "incident" in text
        ends = await page("/acts", verb="unfreeze")
        await page("/acts", **hidden(ends.text))
        assert rig.frozen == {}
        everything = await page("/acts", verb="freeze")
        await page("/acts", **hidden(everything.text))
        assert rig.frozen == {"r": "a", "s": "a"}

    played(tmp_path, story)


def test_another_sites_form_acts_on_nothing(tmp_path: Path) -> None:
    async def story(rig: Rig, page: Page) -> None:
        headers: dict[str, Any] = {"sec-fetch-site": "cross-site"}
        body = urlencode({"verb": "freeze", "to": "b", "confirmed": "yes"})
        answer = await rig.client.post("/routes/s/acts", content=body, headers=headers)
        assert answer.status_code == 403
        assert rig.frozen == {}

    played(tmp_path, story)
