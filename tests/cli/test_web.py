"""The page's server: what it gives, what it refuses, how it begins and ends."""

import base64
import configparser
import contextlib
import hashlib
import http.client
import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest
from commands import complaint
from keras_vit_cli import web
from keras_vit_cli.main import main

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "export/web"
DIGITS = ROOT / "models/digits.tflite"
SECRET = b"not for everybody"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A page with LiteRT.js beside it, and what must stay hidden."""
    tmp_path = tmp_path_factory.mktemp("served")
    page = tmp_path / "web"
    runtime = page / "node_modules/@litertjs"
    for path, content in {
        page / "index.html": "<!DOCTYPE html>",
        page / "app.js": "start();",
        page / "style.css": "body {}",
        page / "package.json": "{}",
        page / ".hidden": SECRET.decode(),
        page / "other.txt": SECRET.decode(),
        page / "node_modules/other/index.js": SECRET.decode(),
        runtime / "core/dist/index.js": "export {};",
        runtime / "core/wasm/run.wasm": "\0asm",
        runtime / "wasm-utils/dist/index.js": "export {};",
        tmp_path / "secret.js": SECRET.decode(),
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (page / "link.js").symlink_to(tmp_path / "secret.js")
    (runtime / "core/dist/out").symlink_to(tmp_path)
    return page


@pytest.fixture(scope="module")
def server(folder):
    with web.Server(web.page(folder) | web.models([DIGITS]), 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def ask(server, path, method="GET", host="127.0.0.1"):
    """Status, headers and body of an answer."""
    connection = http.client.HTTPConnection(*server.server_address, timeout=5)
    with contextlib.closing(connection):
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", host)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def send(server, raw):
    """All that comes back for bytes as they are."""
    answer = b""
    connection = socket.create_connection(server.server_address, timeout=5)
    with connection, contextlib.suppress(ConnectionError):
        connection.sendall(raw)
        with contextlib.suppress(OSError):  # it hung up on what is no request
            connection.shutdown(socket.SHUT_WR)
        while part := connection.recv(65536):
            answer += part
    return answer


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/index.html?again", "text/html"),
        ("/app.js", "text/javascript"),
        ("/style.css", "text/css"),
        ("/node_modules/@litertjs/core/wasm/run.wasm", "application/wasm"),
        ("/node_modules/%40litertjs/core/dist/index.js", "text/javascript"),
        ("/models.json", "application/json"),
    ],
)
def test_what_belongs_to_the_page_comes_with_its_type_and_isolated(server, path, kind):
    status, headers, body = ask(server, path)
    assert status == 200
    assert headers["Content-Type"].split(";")[0] == kind
    assert int(headers["Content-Length"]) == len(body) > 0
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert ask(server, path, "HEAD")[::2] == (200, b"")


def test_models_come_byte_for_byte_under_a_name_of_their_content(server):
    ((name, url),) = (it.values() for it in json.loads(ask(server, "/models.json")[2]))
    assert name == "digits.tflite"
    assert ask(server, f"/{url}")[2] == DIGITS.read_bytes()
    assert hashlib.sha256(DIGITS.read_bytes()).hexdigest()[:32] in url


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.js",
        "/./app.js",
        "/%2e%2e/secret.js",
        "/..%2fsecret.js",
        "/..\\secret.js",
        "/%5c..%5csecret.js",
        "/node_modules/../../secret.js",
        "/node_modules/@litertjs/core/dist/out/secret.js",
        "/link.js",
        "//etc/passwd",
        "/etc/passwd",
        "/%2fetc/passwd",
        "/index.html%00.js",
        "/%00",
        "/%ff%fe",
        "/.hidden",
        "/other.txt",
        "/package.json",
        "/node_modules/other/index.js",
        "/node_modules",
        "/node_modules/",
        "/models/",
        "/models/digits.tflite",
        "/[",
        "/" + "../" * 2000,
        "http://127.0.0.1/../secret.js",
        "file:///etc/passwd",
        "index.html",
    ],
)
def test_nothing_outside_the_page_is_given(server, path):
    answer = send(server, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert SECRET not in answer and b"root:" not in answer
    assert ask(server, "/")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_only_get_and_head_are_answered(server, method):
    assert ask(server, "/", method)[0] == 501


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", ""])
def test_a_page_of_another_name_gets_nothing(server, host):
    assert ask(server, "/models.json", host=host)[0] == 403
    assert ask(server, "/models.json", host="localhost:9000")[0] == 200


@pytest.mark.parametrize(
    "raw", [b"", b"\r\n", b"GET\r\n\r\n", b"\0\xff\r\n\r\n", b"GET /" + b"a" * 10**5]
)
def test_what_is_no_request_ends_no_server(server, raw, capfd):
    send(server, raw)
    assert ask(server, "/")[0] == 200
    assert capfd.readouterr().err == ""


def test_a_silent_client_keeps_nobody_waiting(server):
    with socket.create_connection(server.server_address):
        assert ask(server, "/")[0] == 200


def test_a_client_that_leaves_is_no_error(server, capfd):
    server.site["/large.js"] = bytes(10**8)
    with socket.create_connection(server.server_address) as connection:
        connection.sendall(b"GET /large.js HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connection.recv(10)
    assert ask(server, "/")[0] == 200
    assert capfd.readouterr().err == ""


def test_only_loopback_is_listened_on(server):
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", server.server_port), timeout=5)


def test_the_next_free_port_is_taken_and_a_wanted_one_must_be_free(server, capfd):
    with web.listen({}) as first, web.listen({}) as second:
        assert 8000 <= first.server_port < second.server_port < 8100
    with pytest.raises(ValueError, match=rf"Port {server.server_port} can't be"):
        web.listen({}, server.server_port)
    with pytest.raises(ValueError, match="Port 70000 can't be"):
        web.listen({}, 70000)


def test_it_serves_until_it_is_interrupted_and_loads_nothing_heavy(folder, tmp_path):
    # A shell starts what it runs in the background deaf to interruptions.
    program = (
        "import pathlib, signal, sys; from keras_vit_cli import main as cli, web; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"web.FOLDER = pathlib.Path({str(folder)!r}); status = cli.main(); "
        "assert not {'tensorflow', 'keras'} & set(sys.modules); sys.exit(status)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "web", str(DIGITS), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    port = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/ \(Ctrl-C ends it\)\n", line)[1]
    with socket.create_connection(("127.0.0.1", int(port))):
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=20)
    assert (process.returncode, rest.strip(), errors) == (0, "", "")


def test_the_address_is_written_for_machines(folder, tmp_path, monkeypatch):
    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(web, "FOLDER", folder)
    monkeypatch.setattr(web.Server, "serve_forever", interrupted)
    out = tmp_path / "address.json"
    assert main(["web", "--port", "0", "--json", str(out)]) == 0
    address = json.loads(out.read_text())["address"]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)


def test_a_model_that_will_not_do_is_one_line(folder, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(web, "FOLDER", folder)
    cut, other = tmp_path / "cut.tflite", tmp_path / "other.tflite"
    cut.write_bytes(DIGITS.read_bytes()[:-100])
    other.write_bytes((ROOT / "models/digits.keras").read_bytes())
    assert "There is no file" in complaint(capfd, "web", tmp_path / "none.tflite")
    assert "is a folder" in complaint(capfd, "web", tmp_path)
    for path in (cut, other):
        line = complaint(capfd, "web", DIGITS, path)
        assert f"'{path}' is cut off or is no TFLite model" in line
    out = tmp_path / "no/file"
    out.parent.write_text("")
    assert "can't be written" in complaint(capfd, "web", DIGITS, "--json", out)


def test_without_its_runtime_it_says_how_to_fetch_it(tmp_path, capfd, monkeypatch):
    folder = tmp_path / "a page"
    folder.mkdir()
    monkeypatch.setattr(web, "FOLDER", folder)
    line = complaint(capfd, "web", DIGITS)
    assert line.endswith(f"npm ci --prefix '{folder}'")


def test_the_pages_files_are_found_and_are_in_the_wheel():
    assert web.FOLDER == PAGE
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    patterns = setup["options.package_data"]["keras_vit_cli.page"].split(", ")
    packed = {path.name for pattern in patterns for path in PAGE.glob(pattern)}
    assert packed == {path.name for path in PAGE.iterdir()} - {"node_modules"}


def test_the_page_lets_its_import_map_run_and_no_other_script():
    page = (PAGE / "index.html").read_text()
    (inline,) = re.findall(r"<script(?![^>]*src)[^>]*>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in page
    assert "unsafe-inline" not in page and "'unsafe-eval'" not in page
    for path in PAGE.glob("*.js"):
        assert "innerHTML" not in path.read_text()


def test_the_runtime_is_pinned():
    wanted = json.loads((PAGE / "package.json").read_text())["dependencies"]
    locked = json.loads((PAGE / "package-lock.json").read_text())["packages"]
    assert locked[""]["dependencies"] == wanted
    for name, version in wanted.items():
        assert locked[f"node_modules/{name}"]["version"] == version
        assert locked[f"node_modules/{name}"]["integrity"].startswith("sha512-")
