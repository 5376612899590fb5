"""The image of examples/deploy/Dockerfile without a builder: its steps run in a folder; its command starts there."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from helpers.serve import ADMIN, ROOT, TOKEN, Server

DEPLOY = ROOT / "examples" / "deploy"
#: The port that the image listens at.
PORT = "8000"


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile: its word, and the rest of its line."""

    word: str
    text: str

    @property
    def words(self) -> list[str]:
        """The words of a command in exec form, which no shell reads; a ValueError for another form."""
        return [str(word) for word in json.loads(self.text)]


def stages(dockerfile: Path) -> list[list[Instruction]]:
    """The instructions of each stage of a Dockerfile; each stage begins with its FROM."""
    lines = [line for line in dockerfile.read_text().splitlines() if line.strip() and not line.startswith("#")]
    found: list[list[Instruction]] = []
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        word, _, text = line.partition(" ")
        if word == "FROM":
            found.append([])
        found[-1].append(Instruction(word, text.strip()))
    return found


def the(stage: list[Instruction], word: str) -> Instruction:
    """The only instruction of a stage with this word."""
    (one,) = [instruction for instruction in stage if instruction.word == word]
    return one


def context() -> list[str]:
    """The files that COPY . sees: those of the checkout that Dockerfile.dockerignore does not name."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    return [
        name
        for name in names
        if (ROOT / name).is_file()
        and not any(fnmatch.fnmatch(name.split("/")[0], pattern.removeprefix("**/")) for pattern in patterns)
    ]


class Image:
    """What the steps of the Dockerfile make, in a folder in the place of the root of a file system.

    Attributes:
        build: the instructions of the stage that builds.
        final: the instructions of the image.
        bundles: the folder of bundles, which the service cannot write.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.build, self.final = stages(DEPLOY / "Dockerfile")
        self.bundles = root / "bundles"
        self._home, self._tmp = root / "home", root / "tmp"
        for folder in (self.bundles, self._home, self._tmp, root / "src", root / "dist"):
            folder.mkdir()
        root.chmod(0o755)
        self._tmp.chmod(0o1777)

    def run_build(self) -> None:
        """Run the RUN steps on the files that COPY sees, with the Python of the tests; then forbid all writing."""
        for name in context():
            (self._root / "src" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, self._root / "src" / name)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        for step in (one for one in self.build if one.word == "RUN"):
            done = subprocess.run(
                ["sh", "-ec", self._here(step.text)],
                cwd=self._root / "src",
                env={**environment, "PATH": path},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{step.text}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        shutil.rmtree(self._root / "src")
        shutil.rmtree(self._root / "dist")
        self.allow_writing(False)

    def allow_writing(self, allowed: bool) -> None:
        """Give or take the bits for writing, which matter where the tests do not run as root."""
        for top in (self._root / "opt", self._home, self.bundles):
            for folder, _, _ in os.walk(top):
                Path(folder).chmod(0o755 if allowed else 0o555)

    def command(self, words: list[str]) -> list[str]:
        """A command as the user of the image, if these tests may change the user."""
        words = [self._here(word) for word in words]
        if os.geteuid() != 0:
            return words
        user, group = the(self.final, "USER").text.split(":")
        change = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
        base = Path(sys.base_prefix).resolve()
        if not all(folder.stat().st_mode & 0o001 for folder in (base, *base.parents)):
            # The Python of these tests lies where only root may look: the user may read everything, and write nothing.
            change += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        return [*change, *words]

    def environment(self) -> dict[str, str]:
        """The variables of the image, and what a runtime adds; the user's home is empty and cannot be written."""
        variables = {"PATH": os.environ["PATH"]}
        for one in self.final:
            if one.word == "ENV":
                name, _, value = one.text.partition("=")
                variables[name] = self._here(value).replace("$PATH", variables["PATH"])
        return {**variables, "HOME": str(self._home), "TMPDIR": str(self._tmp)}

    def run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a command as the user of the image."""
        return subprocess.run(
            self.command(words), env=self.environment(), cwd=self._root, capture_output=True, text=True, check=False
        )

    def is_healthy(self, port: int) -> bool:
        """Run the image's health check."""
        text = the(self.final, "HEALTHCHECK").text
        check = Instruction("CMD", text[text.index("CMD ") + 4 :])
        return self.run([word.replace(PORT, str(port)) for word in check.words]).returncode == 0

    def serve(self, *options: str) -> Server:
        """Start what the image starts, at a free port."""
        words = [*the(self.final, "ENTRYPOINT").words, *the(self.final, "CMD").words, *options]
        tokens = {"ROUTELEARN_TOKEN": TOKEN, "ROUTELEARN_ADMIN_TOKEN": ADMIN}
        command = self.command([word.replace(PORT, "0") for word in words])
        return _ImageServer(command, {**self.environment(), **tokens}, self._root)

    def _here(self, text: str) -> str:
        return re.sub(r"(?<![\w/])/(?=(opt|dist|bundles|src)\b)", f"{self._root}/", text)


class _ImageServer(Server):
    def __init__(self, command: list[str], environment: dict[str, str], folder: Path) -> None:
        self.log = []
        self._start(command, environment, folder)
