"""The command `web`: serves the page that runs models in a browser, on loopback.

All that is served is read before the first request, and a request's path is only looked
up in it. So no request, however it is written, opens a file.
"""

import argparse
import hashlib
import http.server
import json
import pathlib
import shlex
import sys
import urllib.parse
from collections.abc import Sequence
from typing import Any

from keras_vit_device.classifier import Classifier
from keras_vit_device.files import check_writable, write_json
from keras_vit_device.terminal import say

HOST = "127.0.0.1"
FIRST_PORT, LAST_PORT = 8000, 8099
_HERE = pathlib.Path(__file__).parent
# A wheel has the page inside the package, a checkout beside it.
FOLDER = next(
    (path for path in (_HERE / "page", _HERE.parent / "web") if path.is_dir()),
    _HERE / "page",
)
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".tflite": "application/octet-stream",
    ".wasm": "application/wasm",
}
_HEADERS = {
    # Browsers give memory that threads share to pages that are isolated from others.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    # The next server on this port may have other models.
    "Cache-Control": "no-cache",
}

Site = dict[str, bytes]


def run(options: argparse.Namespace) -> int:
    """Serves the page and the models until Ctrl-C."""
    check_writable(options.json, read=options.models)
    site = models(options.models) | page(FOLDER)
    try:
        with listen(site, options.port) as server:
            write_json(options.json, {"address": server.address})
            say(f"{server.address} (Ctrl-C ends it)")
            sys.stdout.flush()
            server.serve_forever()
    except KeyboardInterrupt:
        say("")
    return 0


def page(folder: pathlib.Path) -> Site:
    """The page's files and LiteRT.js, by their paths in URLs.

    Args:
        folder: Where the page is, with `node_modules` inside.

    Raises:
        ValueError: If LiteRT.js is not there.
    """
    runtime = folder / "node_modules/@litertjs"
    packages = [runtime / "core/dist", runtime / "core/wasm", runtime / "wasm-utils"]
    if not all(package.is_dir() for package in packages):
        raise ValueError(
            "LiteRT.js is not there yet; this fetches it (npm comes with Node.js): "
            f"npm ci --prefix {shlex.quote(str(folder))}"
        )
    found = [*folder.iterdir(), *(p for top in packages for p in top.rglob("*"))]
    real = folder.resolve()
    site = {
        f"/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for path in found
        if path.suffix in (".html", ".css", ".js", ".wasm")
        and path.is_file()
        and path.resolve().is_relative_to(real)
    }
    return site | {"/": site["/index.html"]}


def models(paths: Sequence[pathlib.Path]) -> Site:
    """Models and their list, `models.json`.

    A model's URL is a hash of its bytes, so that a browser which keeps it for times
    without a server never takes it for another.

    Args:
        paths: `.tflite` files, in the order in which the page offers them.

    Raises:
        ValueError: If one is missing, cut off, or no image classifier.
    """
    contents = [Classifier(path).content for path in paths]
    urls = [f"models/{hashlib.sha256(it).hexdigest()[:32]}.tflite" for it in contents]
    names = [
        {"name": path.name, "url": url} for path, url in zip(paths, urls, strict=True)
    ]
    site = {f"/{url}": content for url, content in zip(urls, contents, strict=True)}
    return site | {"/models.json": json.dumps(names).encode()}


class Server(http.server.ThreadingHTTPServer):
    """Answers GET and HEAD for what is in a site, on loopback only.

    Args:
        site: Contents by path.
        port: To listen on; 0 for any that is free.

    Raises:
        OSError: If the port is taken or not allowed.
    """

    def __init__(self, site: Site, port: int):
        self.site = site
        super().__init__((HOST, port), _Handler)
        self.address = f"http://{HOST}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of a browser that went away; all else is shown."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def listen(site: Site, port: int | None = None) -> Server:
    """A server on a port, or on the first that is free from 8000 on.

    Raises:
        ValueError: If there is none.
    """
    ports = range(FIRST_PORT, LAST_PORT + 1) if port is None else [port]
    for each in ports:
        try:
            return Server(site, each)
        except (OSError, OverflowError) as error:
            reason = error
    wanted = f"{FIRST_PORT} to {LAST_PORT}" if port is None else port
    raise ValueError(f"Port {wanted} can't be listened on: {reason}.")


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "keras-vit", ""
    timeout = 60  # seconds that a connection may be silent

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, with_body: bool) -> None:
        # A page of another name that resolves to loopback must not read the models.
        name = self.headers.get("Host", "").partition(":")[0]
        if name not in (HOST, "localhost"):
            return self.send_error(http.HTTPStatus.FORBIDDEN)
        path = urllib.parse.unquote(self.path.partition("?")[0])
        content = self.server.site.get(path)
        if content is None:
            return self.send_error(http.HTTPStatus.NOT_FOUND)
        suffix = pathlib.PurePosixPath(path).suffix or ".html"
        self.send_response(http.HTTPStatus.OK)
        self.send_header("Content-Type", _TYPES[suffix])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def end_headers(self) -> None:
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing: the terminal shows the address alone."""
