"""`routelearn litellm-config`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from ..data.writers import atomic_path
from ..routers.errors import InputError
from ..routers.general import GeneralRouter
from ..routers.loading import load
from ..service.litellm.proxy_config import AUTO, Affinity, Upstream, proxy_config
from .flags import Flag, Options, with_flags
from .options import OUTPUT, POOL
from .outputs import Overwrite
from .terminal import Console

#: Name of the file in a folder.
CONFIG = "config.yaml"


@dataclass(frozen=True)
class ProxyModels(Options):
    """The two models behind "auto", as LiteLLM names and reaches them.

    Attributes:
        strong: The strong model, as LiteLLM names it: PROVIDER/MODEL, such as openai/gpt-4o.
        weak: The weak model, as LiteLLM names it, such as openai/gpt-4o-mini.
        strong_base_url: URL of the strong model, if it is not at its provider, as in http://localhost:8000/v1.
        weak_base_url: URL of the weak model, if it is not at its provider.
        strong_key_env: Environment variable that holds the API key of the strong model. The default is the provider's,
            such as OPENAI_API_KEY.
        weak_key_env: Environment variable that holds the API key of the weak model.
        affinity: What LiteLLM keeps of an earlier decision. With turn, a turn of the user keeps its model during its
            tool calls; with session, a session keeps it to its end; with cache, a stronger model may answer where its
            prompt cache is warm and it is cheaper.
    """

    HEADING: ClassVar[str] = POOL

    strong: str | None = None
    weak: str | None = None
    strong_base_url: Annotated[str | None, Flag(metavar="URL")] = None
    weak_base_url: Annotated[str | None, Flag(metavar="URL")] = None
    strong_key_env: Annotated[str | None, Flag(metavar="NAME")] = None
    weak_key_env: Annotated[str | None, Flag(metavar="NAME")] = None
    affinity: Affinity = "turn"

    def upstreams(self, router: str) -> tuple[Upstream, Upstream]:
        """The strong and the weak model, with the names that the pool of a router has for them.

        Args:
            router: a bundle, which is loaded, or the name of a router that comes with routelearn.

        Raises:
            InputError: a model is missing or has no provider, or strong and weak are exchanged.
            BundleError: the bundle cannot be trusted.
        """
        if self.strong is None or self.weak is None:
            raise InputError(
                "--strong or --weak is missing; expected both, as in --strong openai/gpt-4o --weak openai/gpt-4o-mini"
            )
        strong_name, weak_name = _names(router, self.strong, self.weak)
        return (
            Upstream(strong_name, self.strong, self.strong_base_url, self.strong_key_env),
            Upstream(weak_name, self.weak, self.weak_base_url, self.weak_key_env),
        )

    def given(self) -> list[str]:
        """The options given that name or reach models."""
        names = ("strong", "weak", "strong_base_url", "weak_base_url", "strong_key_env", "weak_key_env")
        return ["--" + name.replace("_", "-") for name in names if getattr(self, name) is not None]


@dataclass(frozen=True)
class LiteLLMConfigOptions(Options):
    """The router, and where the configuration goes.

    Attributes:
        router: Folder of a bundle, or the word "general" (the router that comes with routelearn).
        out: File to write, or folder to write config.yaml into.
    """

    HEADING: ClassVar[str] = OUTPUT

    router: Annotated[str, Flag(is_argument=True)]
    out: Annotated[Path, Flag(short="-o")] = Path(CONFIG)


@with_flags
def litellm_config_command(options: LiteLLMConfigOptions, models: ProxyModels, overwrite: Overwrite) -> None:
    """Write a LiteLLM configuration in which a router decides, for each request to "auto", which model answers.

    The configuration runs as it is: with routelearn proxy, or with LiteLLM's own command.

    Example: routelearn litellm-config router/ --strong openai/gpt-4o --weak openai/gpt-4o-mini
    """
    path = options.out if options.out.suffix in {".yaml", ".yml"} else options.out / CONFIG
    overwrite.check(path)
    strong, weak = models.upstreams(options.router)
    text = proxy_config(absolute(options.router), strong, weak, models.affinity)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{path.parent} is not a folder; expected a folder for {path.name}") from error
    with atomic_path(path) as staging:
        staging.write_text(text, encoding="utf-8")
    console = Console(stderr=True, soft_wrap=True)
    console.print(f"wrote {path}: {AUTO} chooses between {strong.model} (strong) and {weak.model} (weak)")
    console.print(f"the router knows them as {strong.name} and {weak.name}; so do models.toml and the logs")
    keys = dict.fromkeys(one.key for one in (strong, weak) if one.key is not None)
    exports = " ".join([*(f"{name}=..." for name in keys), "LITELLM_MASTER_KEY=sk-..."])
    console.print(f"next: export {exports}\n      routelearn proxy --config {path}")


def absolute(router: str) -> str:
    """A bundle's folder as a path that holds from every folder; the name of a router that comes with routelearn."""
    return str(Path(router).absolute()) if Path(router).is_dir() else router  # a link stays one: it may be moved later


def _names(router: str, strong: str, weak: str) -> tuple[str, str]:
    """The names of strong and weak in the pool of a router."""
    short = strong.rpartition("/")[2], weak.rpartition("/")[2]
    loaded = load(router)
    if isinstance(loaded, GeneralRouter):
        names = short if short[0] != short[1] else (strong, weak)
        placed = loaded.placed(strong=names[0], weak=names[1])
        return placed.strong, placed.weak
    if loaded.strong in (weak, short[1]) or loaded.weak in (strong, short[0]):
        raise InputError(
            f"--strong is {strong} and --weak is {weak}, but {router} has {loaded.strong} for strong and {loaded.weak} "
            "for weak; expected them the other way round"
        )
    return loaded.strong, loaded.weak
