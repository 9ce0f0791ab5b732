"""How long the published clients of other services take; run by the venv that has them.

    .venv/clients/bin/python benchmarks/other_clients.py URL TIMES

Prints JSON: client and version -> seconds of each recognition. The clients are as published and
configured as by default; all that is changed is the host that they talk to.
"""

from __future__ import annotations

import asyncio
import base64
import importlib.metadata
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from urllib.parse import urlsplit

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter

IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(5000)


def twocaptcha(url: str) -> str:
    from twocaptcha import TwoCaptcha

    solver = TwoCaptcha("0" * 32)
    return solver.normal(base64.b64encode(IMAGE).decode())["code"]


def anticaptcha(url: str) -> str:
    from anticaptchaofficial.imagecaptcha import imagecaptcha

    solver = imagecaptcha()
    solver.set_key("key")
    return solver.solve_and_return_solution(None, body=IMAGE)


def capsolver(url: str) -> str:
    import capsolver

    capsolver.api_key = "key"
    body = base64.b64encode(IMAGE).decode()
    return capsolver.solve({"type": "ImageToTextTask", "body": body})["text"]


def capmonster(url: str) -> str:
    from capmonstercloudclient import CapMonsterClient, ClientOptions
    from capmonstercloudclient.requests import ImageToTextRequest

    client = CapMonsterClient(options=ClientOptions(api_key="key", service_url=url))
    return asyncio.run(client.solve_captcha(ImageToTextRequest(image_bytes=IMAGE)))["text"]


CLIENTS: dict[str, Callable[[str], str]] = {
    "2captcha-python": twocaptcha,
    "anticaptchaofficial": anticaptcha,
    "capmonstercloudclient": capmonster,
    "capsolver": capsolver,
}


def send_to(url: str) -> None:
    """Lead the clients that use `requests` to *url*, whatever host they have built in."""
    send = HTTPAdapter.send

    def send_there(self: HTTPAdapter, request: PreparedRequest, *args, **kwargs) -> Response:
        parts = urlsplit(request.url or "")
        prefix = "/capsolver" if "capsolver" in parts.netloc else ""
        request.url = f"{url}{prefix}{parts.path}" + (f"?{parts.query}" if parts.query else "")
        return send(self, request, *args, **kwargs)

    HTTPAdapter.send = send_there  # type: ignore[method-assign]


def seconds(solve: Callable[[], str], times: int) -> list[float]:
    """Seconds of each of *times* recognitions; a first one is for imports and connections."""
    taken = []
    for _ in range(times + 1):
        started = time.perf_counter()
        assert solve()
        taken.append(time.perf_counter() - started)
    return taken[1:]


def main(url: str, times: str) -> None:
    send_to(url)
    installed = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    solvers = {name: partial(c, url) for name, c in CLIENTS.items() if name in installed}
    with ThreadPoolExecutor() as pool:  # all at a time: what they do is wait
        taken = pool.map(lambda solve: seconds(solve, int(times)), solvers.values())
        told = {f"{n} {installed[n]}": t for n, t in zip(solvers, taken, strict=True)}
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
