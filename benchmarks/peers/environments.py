"""Makes a separate environment for each peer, and runs scripts in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

VERSIONS = {"routellm": "0.2.0", "llmrouter-lib": "0.4.0"}
SCRIPTS = {"routellm": "routellm_peer.py", "llmrouter-lib": "llmrouter_peer.py"}

#: Arguments of pip, one list a call.
INSTALLS = {
    "routellm": [[f"routellm=={VERSIONS['routellm']}"]],
    # Without its dependencies (a web interface, graph networks, PEFT, ...): only what its imports need.
    "llmrouter-lib": [
        ["--no-deps", f"llmrouter-lib=={VERSIONS['llmrouter-lib']}"],
        [
            "torch",
            "transformers",
            "numpy",
            "pandas",
            "scikit-learn",
            "scipy",
            "pyyaml",
            "tqdm",
            "pydantic",
            "litellm",
            "pillow",
        ],
    ],
}

#: Pinned as our own environment is: torch, because a plain one brings gigabytes of CUDA, and scikit-learn, because
#: RouteLLM's penalty=None ends with 1.10. Not all of constraints.txt: litellm's boto3 wants an older python-dateutil.
PINNED = ("torch", "numpy", "scikit-learn", "transformers", "tokenizers")

INSTALL_LIMIT = 1800.0


def constraints() -> str:
    """The lines of the repository's constraints.txt that bind the peers too."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return "".join(f"{line}\n" for line in lines if line.split("==")[0] in PINNED)


def python_of(package: str, folder: Path) -> Path:
    """The interpreter of a peer's environment, which is made if it is not there."""
    home = folder / package
    python, marker = home / "bin" / "python", home / "installed.txt"
    wanted = f"{INSTALLS[package]}\n{constraints()}"
    if marker.is_file() and marker.read_text() == wanted:
        return python
    print(f"installing {package} {VERSIONS[package]}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True, timeout=INSTALL_LIMIT)
    pins = home / "constraints.txt"
    pins.write_text(constraints())
    for arguments in INSTALLS[package]:
        command = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(pins), *arguments]
        subprocess.run(command, check=True, timeout=INSTALL_LIMIT)
    marker.write_text(wanted)
    return python


def run_script(package: str, python: Path, arguments: list[str], endpoint: str, limit: float) -> str:
    """Run a peer's script in its environment.

    Args:
        package: a key of `SCRIPTS`.
        python: see `python_of`.
        arguments: of the script.
        endpoint: base URL of the embeddings.
        limit: seconds.

    Returns:
        The error, as the last line of the traceback; empty when there was none.
    """
    environment = {
        **os.environ,
        "OPENAI_BASE_URL": endpoint,
        "OPENAI_API_KEY": "local",
        "NO_PROXY": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(python.parent.parent / "datasets"),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it looks for a price list on the network
        "PYTHONWARNINGS": "ignore::FutureWarning",
        "TQDM_DISABLE": "1",
    }
    command = [str(python), str(HERE / SCRIPTS[package]), *arguments]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return f"stopped at the time limit of {limit:.0f} s"
    if not done.returncode:
        return ""
    lines = [line for line in done.stderr.splitlines() if line and not line[0].isspace()]
    starts = [number for number, line in enumerate(lines) if line.startswith("Traceback")]
    return " ".join(lines[starts[-1] + 1 :]) if starts else f"exit status {done.returncode}"
