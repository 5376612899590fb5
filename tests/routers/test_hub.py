"""Bundles by the Hub's conventions, on local folders and on a local server that speaks enough of the Hub's protocol."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard

from routelearn.routers.errors import BundleError, BundleMissingError
from routelearn.routers.hub import HubRouter
from routelearn.routers.learned import LearnedRouter
from routelearn.routers.loading import load

QUERIES = ["Prove it step by step.", "Say hello to Ana."]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_router_saved_and_loaded_is_the_same_router(bundle: Path, router: LearnedRouter, tmp_path: Path) -> None:
    first = HubRouter.from_pretrained(bundle)
    first.save_pretrained(tmp_path / "copy")
    second = HubRouter.from_pretrained(tmp_path / "copy")
    assert second.manifest == router.manifest
    assert np.array_equal(second.score(QUERIES), router.score(QUERIES))
    assert np.array_equal(load(tmp_path / "copy").score(QUERIES), router.score(QUERIES))
    assert json.loads((tmp_path / "copy" / "config.json").read_text()) == {"library_name": "routelearn"}


def test_the_card_is_the_bundles_own_with_the_hubs_metadata(bundle: Path, tmp_path: Path) -> None:
    HubRouter.from_pretrained(bundle).save_pretrained(tmp_path / "copy")
    card = ModelCard.load(tmp_path / "copy" / "README.md")
    assert card.data.library_name == "routelearn"
    assert "llm-routing" in card.data.tags
    assert "share to strong" in card.text  # the threshold table
    assert "log loss" in card.text  # what was measured on held-out queries


def test_saving_refuses_a_folder_that_changed_since(bundle: Path, similarity_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle, tmp_path / "router"))
    loaded = HubRouter.from_pretrained(folder)
    shutil.rmtree(folder)
    shutil.copytree(similarity_bundle, folder)
    with pytest.raises(BundleMissingError, match="no longer holds"):
        loaded.save_pretrained(tmp_path / "copy")


class Hub:
    """One repository: its tree, and its files at one commit."""

    def __init__(self, folder: Path) -> None:
        hub = self
        self.requested: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.do_GET(body=False)

            def do_GET(self, body: bool = True) -> None:
                path = self.path.split("?")[0]
                hub.requested.append(path)
                names = [file.name for file in folder.iterdir()]
                if path.startswith("/api/models/org/router"):
                    if "/tree/" in path:
                        found: object = [
                            {"type": "file", "path": name, "size": (folder / name).stat().st_size, "oid": "0" * 40}
                            for name in names
                        ]
                    else:
                        found = {"id": "org/router", "sha": COMMIT, "siblings": [{"rfilename": n} for n in names]}
                    self.answer(json.dumps(found).encode(), body, "application/json")
                    return
                name = path.rsplit("/", 1)[-1]
                if not path.startswith("/org/router/resolve/") or name not in names:
                    self.send_response(404)
                    self.send_header("X-Error-Code", "EntryNotFound")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.answer((folder / name).read_bytes(), body, "application/octet-stream")

            def answer(self, data: bytes, body: bool, kind: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
                self.end_headers()
                if body:
                    self.wfile.write(data)

            def log_message(self, *arguments: object) -> None:
                del arguments

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def hub(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    folder = tmp_path / "remote"
    HubRouter.from_pretrained(bundle).save_pretrained(folder)
    (folder / "weights.bin").write_bytes(b"not ours")
    served = Hub(folder)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", served.url)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", served.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(
        "huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE",
        served.url + "/{repo_id}/resolve/{revision}/{filename}",
        raising=False,
    )
    yield served
    served.server.shutdown()


def test_a_router_comes_from_a_hub_and_then_from_its_cache(hub: Hub, router: LearnedRouter, tmp_path: Path) -> None:
    first = HubRouter.from_pretrained("org/router", cache_dir=tmp_path / "cache")
    assert np.array_equal(first.score(QUERIES), router.score(QUERIES))
    assert not any("weights.bin" in path for path in hub.requested if "/resolve/" in path)
    asked = len(hub.requested)
    second = HubRouter.from_pretrained("org/router", cache_dir=tmp_path / "cache", local_files_only=True)
    assert len(hub.requested) == asked
    second.save_pretrained(tmp_path / "copy")  # through the cache's links
    assert not any(path.is_symlink() for path in (tmp_path / "copy").iterdir())


def test_a_repository_that_is_no_bundle_is_a_typed_error(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "remote" / "model.onnx").write_bytes(b"changed")
    with pytest.raises(BundleError, match="sha256"):
        HubRouter.from_pretrained("org/router", cache_dir=tmp_path / "cache")


def test_a_repository_that_is_not_there_is_a_typed_error(hub: Hub, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "remote")
    with pytest.raises(BundleMissingError, match="org/router"):
        HubRouter.from_pretrained("org/router", cache_dir=tmp_path / "cache", local_files_only=True)
