"""After `make demo` or `make test`, type checkers see routelearn's types from a file outside the checkout.

An editable install is an import hook, which type checkers cannot follow; the Makefile adds a path that they can.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
USER = """
import routelearn
from routelearn.policies import StrongShare

router = routelearn.load("router/")
decision = router.route("Hello!", StrongShare(0.3))
right: str = decision.model
wrong: int = decision.model
"""
#: As an editor starts a type checker: without what this process was given to find routelearn.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "MYPYPATH"}}


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (["mypy", "--strict", "--python-executable"], "user.py:8: error: Incompatible types in assignment"),
        (["pyright", "--pythonpath"], 'user.py:8:14 - error: Type "str" is not assignable to declared type "int"'),
    ],
    ids=["mypy", "pyright"],
)
def test_a_type_checker_sees_the_types_from_outside(command: list[str], error: str, tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER)
    done = subprocess.run(
        [sys.executable, "-m", *command, sys.executable, "user.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=ENVIRONMENT,
        check=False,
    )
    assert error in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("error:") == 1, done.stdout


def test_routelearn_is_imported_from_one_path() -> None:
    code = (
        "import sys, routelearn.cli.main\n"
        "print(*{m.__file__ for n, m in sys.modules.items() if n.startswith('routelearn.cli')}, sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    files = done.stdout.split()
    assert len(files) == len({Path(file).resolve() for file in files})
    assert len({file.rpartition("/cli/")[0] for file in files}) == 1
