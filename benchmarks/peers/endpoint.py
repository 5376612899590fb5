"""An OpenAI-compatible embeddings endpoint on this machine, so that peers see the same vectors as our routers."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Embed = Callable[[Sequence[str]], Vectors]


class VectorStore:
    """Vectors by text: prepared ones, and others computed when they are first asked for."""

    def __init__(self, embed: Embed) -> None:
        """An empty store.

        Args:
            embed: texts to vectors, float32 (n, d).
        """
        self._embed = embed
        self._vectors: dict[str, npt.NDArray[np.float32]] = {}
        self._lock = threading.Lock()

    def add(self, texts: Sequence[str]) -> None:
        """Prepare the vectors of texts."""
        with self._lock:
            new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
            self._vectors.update(zip(new, self._embed(new), strict=True))

    def __call__(self, texts: Sequence[str]) -> list[npt.NDArray[np.float32]]:
        """The vectors of texts."""
        if any(text not in self._vectors for text in texts):
            self.add(texts)
        return [self._vectors[text] for text in texts]


class _Handler(BaseHTTPRequestHandler):
    """Answers POST /v1/embeddings."""

    protocol_version = "HTTP/1.1"  # keeps the connection
    wbufsize = 1 << 16  # head and body in one packet: else every answer waits for a delayed acknowledgement
    store: VectorStore

    def do_POST(self) -> None:
        """Embed the input of the request."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.rstrip("/") != "/v1/embeddings":
            self._send(404, {"error": {"message": f"no such path: {self.path}"}})
            return
        try:
            request = json.loads(body)
            given = request["input"]
        except (ValueError, KeyError, TypeError) as error:
            self._send(400, {"error": {"message": f"cannot read the request: {error!r}"}})
            return
        texts = [given] if isinstance(given, str) else given
        if not all(isinstance(text, str) for text in texts):
            self._send(400, {"error": {"message": "input is not a text or list of texts"}})
            return
        as_base64 = request.get("encoding_format") == "base64"  # the client's default, and exact
        data = [
            {"object": "embedding", "index": number, "embedding": _encoded(vector, as_base64)}
            for number, vector in enumerate(self.store(texts))
        ]
        usage = {"prompt_tokens": 0, "total_tokens": 0}
        self._send(200, {"object": "list", "data": data, "model": request.get("model"), "usage": usage})

    def _send(self, status: int, content: dict[str, Any]) -> None:
        """Answer with JSON."""
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: there are many thousand requests."""


def _encoded(vector: npt.NDArray[np.float32], as_base64: bool) -> str | list[float]:
    """A vector in one of the two formats of the protocol."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode() if as_base64 else vector.tolist()


@contextmanager
def serve(store: VectorStore) -> Iterator[str]:
    """Serve a store on a free port of this machine; gives the base URL of the API."""
    handler = type("Handler", (_Handler,), {"store": store})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            thread.join()
