"""What proxies report with their requests, kept in a ConfigMap for whoever rotates an anchor: does I/O, in batches.

Every replica merges what it heard into the one ConfigMap. A report that cannot be written is kept and tried again; a
certificate is never refused for it.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

import structlog
from prometheus_client import Counter

from components.kube.client import CONFIG_MAPS, Kube, KubeError
from components.trust import reports
from components.trust.reports import Report

FLUSH_SECONDS: Final = 5.0
"""A mesh that restarts at once is a few writes, not a thousand."""

WRITES = Counter("tulle_identity_report_writes_total", "Writes of the trust reports", ["result"])


class Reporting:
    """Reports heard and not yet written."""

    def __init__(self, kube: Kube, mesh_namespace: str, clock: Callable[[], float] = time.time) -> None:
        self._kube = kube
        self._namespace = mesh_namespace
        self._clock = clock
        self._news: dict[str, Report] = {}
        self._log = structlog.get_logger()

    def heard(self, uid: str, report: Report) -> None:
        """A pod has a new certificate."""
        if uid and len(self._news) < reports.MOST:
            self._news[uid] = report

    async def run(self) -> None:
        """Write what was heard, for ever."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Write once, if there is anything to write."""
        if not self._news:
            return
        news = dict(self._news)
        try:
            await self._write(news)
        except KubeError as error:
            WRITES.labels("failed").inc()
            # A conflict is another replica's write: the next round reads what it wrote.
            if not error.conflict:
                self._log.warning("reports_not_written", error=str(error))
            return
        WRITES.labels("written").inc()
        self._news = {uid: each for uid, each in self._news.items() if news.get(uid) != each}

    async def _write(self, news: dict[str, Report]) -> None:
        now = int(self._clock())
        found = await self._kube.find(CONFIG_MAPS, dict[str, Any], reports.NAME, self._namespace)
        if found is None:
            body = reports.encode(self._namespace, reports.merged({}, news, now))
            await self._kube.create(CONFIG_MAPS, body, self._namespace)
            return
        stored = reports.merged(reports.decode(found), news, now)
        body = reports.encode(self._namespace, stored, found["metadata"]["resourceVersion"])
        await self._kube.replace(CONFIG_MAPS, body, reports.NAME, self._namespace)
