"""A stand-in for other recognition services: their protocols, each ready after the same time.

2captcha takes `in.php` and is then asked at `res.php`; Anti-Captcha and CapMonster Cloud take
`createTask` and are then asked at `getTaskResult`; CapSolver answers `createTask` itself for
images (https://docs.capsolver.com/en/guide/recognition/ImageToTextTask).
"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

from aiohttp import web

SECONDS = 1.2  # from a task's arrival to its answer
TEXT = "7364"


def services() -> web.Application:
    """All the services at one address."""
    ready: dict[str, float] = {}
    ids = itertools.count(1)

    def begin() -> str:
        key = str(next(ids))
        ready[key] = time.monotonic() + SECONDS
        return key

    async def in_php(request: web.Request) -> web.Response:
        await request.post()
        return web.Response(text=f"OK|{begin()}")

    async def res_php(request: web.Request) -> web.Response:
        is_ready = time.monotonic() >= ready[request.query["id"]]
        return web.Response(text=f"OK|{TEXT}" if is_ready else "CAPCHA_NOT_READY")

    async def create_task(request: web.Request) -> web.Response:
        await request.json()
        return web.json_response({"errorId": 0, "taskId": int(begin())})

    async def get_task_result(request: web.Request) -> web.Response:
        key = str((await request.json())["taskId"])
        return _reply("ready" if time.monotonic() >= ready[key] else "processing")

    async def create_task_and_answer(request: web.Request) -> web.Response:
        await request.json()
        await asyncio.sleep(SECONDS)
        return _reply("ready")

    app = web.Application()
    app.router.add_post("/in.php", in_php)
    app.router.add_get("/res.php", res_php)
    app.router.add_post("/createTask", create_task)
    app.router.add_post("/getTaskResult", get_task_result)
    app.router.add_post("/capsolver/createTask", create_task_and_answer)
    return app


def _reply(status: str) -> web.Response:
    body: dict[str, Any] = {"errorId": 0, "status": status, "taskId": "1"}
    if status == "ready":
        body["solution"] = {"text": TEXT}
    return web.json_response(body)
