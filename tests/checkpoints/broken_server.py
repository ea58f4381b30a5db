"""A server on loopback that speaks as Hugging Face and ModelScope do, and breaks connections half-way."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

COMMIT = "c0ffee" * 6 + "c0ff"


@dataclass
class Hub:
    """What the server has and how it misbehaves.

    Args:
        files: path in the repository → content.
        break_after: bytes after which a connection is closed; one value a request for content, in order.
        ranges: whether it answers requests for a part of a file.
        status: answers content with this status instead; None for content.
        wrong: paths whose checksum is said wrongly.
        asked: (path, Range header or None, Authorization or None) of each request for content.
    """

    files: dict[str, bytes]
    break_after: list[int] = field(default_factory=list)
    ranges: bool = True
    status: int | None = None
    wrong: set[str] = field(default_factory=set)
    storage: str | None = None
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    address: str = ""

    def ranges_asked(self, path: str) -> list[str | None]:
        """The Range headers of the requests for a file, in order."""
        return [asked for name, asked, _ in self.asked if name == path]


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Run the server as long as the context lasts."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = parse_qs(parts.query)
            if parts.path.endswith("/repo/files"):
                self._json({"Code": 200, "Data": {"Files": [_modelscope(hub, path) for path in hub.files]}})
            elif parts.path.startswith("/api/v1/models/"):
                self._content(query["FilePath"][0])
            elif parts.path.startswith("/api/models/owner/"):
                siblings = [_sibling(hub, path) for path in hub.files]
                card = {"license": "cc-by-nc-4.0"}
                self._json({"id": "owner/model", "sha": COMMIT, "siblings": siblings, "cardData": card})
            elif f"/resolve/{COMMIT}/" in parts.path:
                path = parts.path.partition(f"/resolve/{COMMIT}/")[2]
                if hub.storage is not None:
                    self.send_response(302)
                    self.send_header("Location", f"{hub.storage}/{path}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                else:
                    self._content(path)
            elif parts.path.lstrip("/") in hub.files:
                self._content(parts.path.lstrip("/"))
            else:
                self.send_error(404)

        def _json(self, content: object) -> None:
            data = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _content(self, path: str) -> None:
            asked = self.headers.get("Range")
            hub.asked.append((path, asked, self.headers.get("Authorization")))
            if hub.status is not None:
                self.send_error(hub.status)
                return
            data = hub.files[path]
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and hub.ranges else 0
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            part = data[start:]
            if hub.break_after:
                part = part[: hub.break_after.pop(0)]
            self.wfile.write(part)
            if len(part) < len(data) - start:
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=lambda: server.serve_forever(0.01), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _sha256(hub: Hub, path: str) -> str:
    content = b"other" if path in hub.wrong else hub.files[path]
    return hashlib.sha256(content).hexdigest()


def _sibling(hub: Hub, path: str) -> dict[str, object]:
    data = hub.files[path]
    entry: dict[str, object] = {"rfilename": path, "size": len(data)}
    if path.endswith(".safetensors"):
        return entry | {"lfs": {"sha256": _sha256(hub, path), "size": len(data), "pointerSize": 130}}
    return entry | {"blobId": hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()}


def _modelscope(hub: Hub, path: str) -> dict[str, object]:
    entry = {"Path": path, "Type": "blob", "Size": len(hub.files[path])}
    return {**entry, "Sha256": _sha256(hub, path), "Revision": COMMIT}
