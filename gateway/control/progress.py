"""Whether recording makes progress, and since when it does not.

Rule: ready means progress, not presence. A store that is open but accepts nothing is stalled, and so is a recorder that
runs but closes no window.
"""

from __future__ import annotations

from typing import Final, NamedTuple

#: How long lines may wait while no step of the recorder ends. One that catches up takes some seconds.
STEP_SECONDS: Final = 10.0
#: How long the watermark may stand still while writers live, which write heartbeats every second. A node that is cut
#: off holds it back for two minutes.
WATERMARK_SECONDS: Final = 30.0
FLEET_WATERMARK_SECONDS: Final = 150.0


class Progress(NamedTuple):
    """How far recording is. ``trouble`` says in words why it is stalled, "" if it is not; ``detail`` adds the error.

    ``watermark_age_seconds`` and ``committed_seconds`` (since the last step that ended well) are None where there is
    none yet; ``oldest_seconds`` is how long lines have waited without a break.
    """

    stalled_seconds: float = 0.0
    trouble: str = ""
    detail: str = ""
    watermark_age_seconds: float | None = None
    oldest_seconds: float = 0.0
    committed_seconds: float | None = None

    @property
    def stalled(self) -> bool:
        return bool(self.trouble)
