"""The status page: one HTML file, and headers that let the browser run nothing but its own script."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources


def _policy(html: str) -> str:
    """A content security policy that allows the script and the style of this page only, by their hashes."""

    def sources(tag: str) -> str:
        blocks = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        hashes = [base64.b64encode(hashlib.sha256(block.encode()).digest()).decode() for block in blocks]
        return " ".join(f"'sha256-{digest}'" for digest in hashes)

    return (
        f"default-src 'none'; script-src {sources('script')}; style-src {sources('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


_TEXT = resources.files(__name__.rpartition(".")[0]).joinpath("status.html").read_text("utf-8")
HTML = _TEXT.encode()
HEADERS = {"content-type": "text/html; charset=utf-8", "content-security-policy": _policy(_TEXT)}
