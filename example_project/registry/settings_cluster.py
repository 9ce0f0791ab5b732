"""Settings for many workers that crawl together: the queue is in Redis, and so is the budget.

    cd example_project
    SCRAPY_SETTINGS_MODULE=registry.settings_cluster python -m scrapy crawl register

Run that as often as there are cores, on as many machines; docs/scaling.md explains it.
"""

import os
import socket
from pathlib import Path

from registry.settings import *  # noqa: F403 - all that holds for one worker
from registry.settings import EXTENSIONS

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")

SCHEDULER = "registry.cluster.Scheduler"
DUPEFILTER_CLASS = "scrapy_redis.dupefilter.RFPDupeFilter"
SCHEDULER_PERSIST = True  # else the first worker to close empties the queue of all

# A worker whose captcha is being read leaves the shared queue to the others.
ACECAPTCHA_MAX_HELD = 0

# All workers together; the count stays in Redis until somebody deletes it.
ACECAPTCHA_BUDGET = 1000
ACECAPTCHA_BUDGET_REDIS = REDIS_URL

# One for each machine: its workers may share a file, but no file system over a network will do.
ACECAPTCHA_JOURNAL = str(
    Path(__file__).parents[1] / "output" / f"journal-{socket.gethostname()}.db"
)

EXTENSIONS = {**EXTENSIONS, "registry.cluster.StayOpen": 500}
CLUSTER_IDLE_SECONDS = 60
