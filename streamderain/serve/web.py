"""The page, streams, pictures and metrics of a site over HTTP."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from importlib import resources
from ipaddress import ip_address
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import (
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

from streamderain.serve.site import RunningSite
from streamderain.serve.supervisor import CameraProcess

COOKIE = "streamderain"
PREVIEW_S = 10.0
_OPEN = ("/healthz",)
"""What is answered without a token: it says nothing but that the program runs."""

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_FILES = {
    "": ("page.html", "text/html"),
    "page.js": ("page.js", "text/javascript"),
    "page.css": ("page.css", "text/css"),
}

Next = Callable[[Request], Awaitable[Response]]


class Guard:
    """Lets in who has the token, and gives every answer the same strict headers.

    A token in the address is for players, which send no headers. Where a browser asks for the page with one,
    it gets a cookie and a clean address, so that the token stays in no history.

    Args:
        app: The application, by ASGI.
        token: Gives what is wanted; empty for nothing.
    """

    def __init__(self, app: Any, token: Callable[[], str]) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)

        async def strict(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [(key.lower().encode(), value.encode()) for key, value in _HEADERS.items()]
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        answer = self._refusal(request)
        await (answer or self._app)(scope, receive, strict)

    def _refusal(self, request: Request) -> Response | None:
        path = request.url.path
        if request.method not in ("GET", "HEAD"):
            return PlainTextResponse("only GET is answered\n", status_code=405)
        if path in _OPEN:
            return None
        if not self._token():
            return None if _is_here(request.url.hostname or "") else PlainTextResponse(_ELSEWHERE, 421)
        given = request.query_params.get("token")
        if given is not None and path == "/" and self._is_right(given):
            answer = RedirectResponse("/", status_code=303)
            answer.set_cookie(COOKIE, self._token(), httponly=True, samesite="strict")
            return answer
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        sent = (given, bearer if scheme.lower() == "bearer" else None, request.cookies.get(COOKIE))
        if any(self._is_right(one) for one in sent if one is not None):
            return None
        words = "a token is wanted: Authorization: Bearer TOKEN, or ?token=TOKEN\n"
        return PlainTextResponse(words, status_code=401, headers={"WWW-Authenticate": "Bearer"})

    def _is_right(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token().encode())


_ELSEWHERE = (
    "without a token only localhost and numeric addresses are answered, since any page of the web could give "
    "its own name to this machine; set `token:` to use a name\n"
)


def _is_here(host: str) -> bool:
    """Return whether a request names its host as no page of somebody else's can (DNS rebinding)."""
    try:
        ip_address(host)
    except ValueError:
        return host == "localhost"
    return True


def application(site: RunningSite) -> Any:
    """Return the application that answers for a site."""

    def camera(request: Request) -> CameraProcess | None:
        return site.cameras.get(request.path_params["name"])

    async def page(request: Request) -> Response:
        name, kind = _FILES[request.path_params.get("file", "")]
        text = (resources.files("streamderain.serve") / "page" / name).read_text(encoding="utf-8")
        return Response(text, media_type=kind)

    async def state(request: Request) -> Response:
        return JSONResponse({name: _told(one) for name, one in site.cameras.items()})

    async def stream(request: Request) -> Response:
        found = camera(request)
        if found is None:
            return _missing(request)
        if not found.has_room:
            return PlainTextResponse("too many pull this stream; use a relay\n", status_code=503)
        if request.method == "HEAD":
            return Response(media_type="video/mp2t")
        return StreamingResponse(found.stream(), media_type="video/mp2t")

    async def picture(request: Request) -> Response:
        found = camera(request)
        if found is None:
            return _missing(request)
        after = request.query_params.get("after", "-1")
        shown = await found.preview(int(after) if after.lstrip("-").isdigit() else -1, limit_s=PREVIEW_S)
        if shown is None:
            return PlainTextResponse("no picture has come\n", status_code=503)
        number, before, clean = shown
        side = clean if request.query_params.get("side", "after") == "after" else before
        return Response(side, media_type="image/jpeg", headers={"X-Number": str(number)})

    async def health(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(request: Request) -> Response:
        waiting = sorted(name for name, status in site.statuses.items() if status.state != "running")
        text = f"no frames from {', '.join(waiting)}\n" if waiting else "ok\n"
        return PlainTextResponse(text, status_code=503 if waiting else 200)

    async def metrics(request: Request) -> Response:
        return Response(site.metrics.text(), media_type="text/plain; version=0.0.4")

    routes = [
        Route("/", page),
        Route("/page.{kind:str}", _page_file(page)),
        Route("/state", state),
        Route("/cameras/{name}.ts", stream),
        Route("/cameras/{name}.jpg", picture),
        Route("/healthz", health),
        Route("/readyz", ready),
        Route("/metrics", metrics),
    ]
    return Guard(Starlette(routes=routes), lambda: site.site.token)


def _page_file(page: Next) -> Next:
    async def answer(request: Request) -> Response:
        name = f"page.{request.path_params['kind']}"
        if name not in _FILES:
            return PlainTextResponse("there is no such file\n", status_code=404)
        request.path_params["file"] = name
        return await page(request)

    return answer


def _missing(request: Request) -> Response:
    return PlainTextResponse("there is no such camera\n", status_code=404)


def _told(camera: CameraProcess) -> dict[str, Any]:
    """Return what the page shows of a camera."""
    status = camera.status
    return {
        "state": status.state,
        "size": status.size,
        "fps": status.numbers.get("fps", 0.0) if status.state == "running" else 0.0,
        "latency_s": status.numbers.get("latency_s", 0.0),
        "lag_s": status.numbers.get("lag_s", 0.0),
        "dropped": status.totals.get("dropped", 0),
        "passed": status.totals.get("passed", 0),
        "reconnects": status.totals.get("source lost", 0),
        "restarts": status.restarts,
        "light": round(status.light, 2),
        "error": status.error,
        "incidents": list(status.incidents)[-5:],
    }
