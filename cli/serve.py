"""`routelearn serve`."""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar

from ..monitoring.decision_log import DecisionLog
from ..monitoring.escalation import EscalationMonitor
from ..monitoring.savings import Savings
from ..policies.composed import ByContext, Explore
from ..policies.conversation import MARGIN, Conversations
from ..policies.switch_price import SwitchPrices
from ..policies.threshold import StrongShare
from ..routers.base import Policy, Router
from ..routers.decision import Model
from ..routers.errors import InputError, require
from ..service.defaults import MOST_SESSIONS, RequestLimits, ServerSettings
from ..service.request_rules import RequestRules
from ..service.shared_sessions import SharedSessions, shared_salt
from ..service.trial import BundleTrial
from ..service.wire_names import (
    ADMIN_TOKEN_VARIABLE,
    LOG_SALT_VARIABLE,
    TOKEN_VARIABLE,
    USE_CASE,
    USER_TIER,
    LiteLLMVariable,
)
from .flags import Flag, FlagsOf, Options, with_flags
from .input_files import read_pool
from .options import DECISION, POOL, parse_pairs
from .router_options import RULES, PolicyChoice, RouterChoice
from .terminal import LogFormatter

#: Seconds that a thread keeps the interpreter while another wants it. Python's own 5 ms would let a batch that is
#: decided keep the event loop waiting as long.
SWITCH_INTERVAL_S = 0.0005
#: Number of characters of the shortest token.
LEAST_TOKEN = 16


@dataclass(frozen=True)
class ServeOptions(Options):
    """Who decides for whom, who may call, and what is kept.

    Attributes:
        tier_share: Strong share for the users of a user tier, as in --tier-share pro=0.8. Can be repeated.
        use_case_share: Strong share for a use case, as in --use-case-share code=0.5. Can be repeated.
        explore: Share of the queries whose model is drawn at random, so that the decision log can be used to evaluate
            other policies.
        decision_log: File to append each decision to, as a line of JSON. It holds hashes of the prompts, not the
            prompts. The variable ROUTELEARN_LOG_SALT can hold the salt of the hashes.
        log_prompts: Write the prompts to the decision log as well, so that data from-log can make records of it.
        shadow: Decide and log, and reply with the strong model all the same. routelearn savings then compares.
        router_usd: USD that a decision itself costs, for the savings.
        timeout: Time limit for a batch, in seconds. When the router takes longer, rules decide. The default is no
            limit.
        threads: Number of batches that are scored at the same time. The default is one for each CPU of the process.
        watch: Interval, in seconds, at which the service looks for a newer bundle in the folder. By default it does not
            look.
        load_timeout: Time limit for loading a bundle, in seconds. Each bundle is first loaded in a process of its own;
            one that takes longer is refused.
        token_file: File with the bearer token that callers must send. The variable ROUTELEARN_TOKEN can hold it
            instead.
        admin_token_file: File with the bearer token that may also reload the bundle. The variable
            ROUTELEARN_ADMIN_TOKEN can hold it instead.
        insecure_no_token: Let other machines call the service without a token. By default a --host that other machines
            can reach needs a token.
    """

    HEADING: ClassVar[str] = DECISION

    tier_share: Annotated[list[str] | None, Flag(metavar="NAME=SHARE")] = None
    use_case_share: Annotated[list[str] | None, Flag(metavar="NAME=SHARE")] = None
    explore: Annotated[float, Flag(least=0, most=1)] = 0.0
    decision_log: Path | None = None
    log_prompts: bool = False
    shadow: bool = False
    router_usd: Annotated[float, Flag(least=0, metavar="USD", panel=POOL)] = 0.0
    timeout: Annotated[float | None, Flag(metavar="SECONDS", panel="Server")] = None
    threads: Annotated[int | None, Flag(least=1, panel="Server")] = None
    watch: Annotated[float | None, Flag(metavar="SECONDS", panel="Server")] = None
    load_timeout: Annotated[float, Flag(metavar="SECONDS", panel="Server")] = 60.0
    token_file: Annotated[Path | None, Flag(panel="Access")] = None
    admin_token_file: Annotated[Path | None, Flag(panel="Access")] = None
    insecure_no_token: Annotated[bool, Flag(panel="Access")] = False

    def tokens(self, host: str) -> tuple[bytes | None, bytes | None]:
        """The tokens of callers and of administrators.

        Raises:
            InputError: a token cannot be read, or other machines could call the service without one.
        """
        tokens = _token(self.token_file, TOKEN_VARIABLE), _token(self.admin_token_file, ADMIN_TOKEN_VARIABLE)
        if not is_loopback(host) and tokens[0] is None and not self.insecure_no_token:
            raise InputError(
                f"other machines can reach {host}: give --token-file or {TOKEN_VARIABLE}, or --insecure-no-token to "
                "allow calls without a token"
            )
        return tokens

    def log(self) -> DecisionLog | None:
        """The decision log; None: decisions are not logged.

        Raises:
            InputError: the file cannot be opened, or prompts were asked for without a log.
        """
        if self.decision_log is None:
            if self.log_prompts:
                raise InputError("--log-prompts was given without --decision-log FILE; expected both")
            return None
        return DecisionLog(
            self.decision_log,
            keep_prompts=self.log_prompts,
            salt=os.environ.get(LOG_SALT_VARIABLE) or None,
            context_keys=(USER_TIER, USE_CASE),
        )


@dataclass(frozen=True)
class SessionOptions(Options):
    """Conversations, agents, and what models can do.

    Attributes:
        pool: JSON or TOML file with the models' prices, limits and abilities (models.toml), for sessions, savings and
            what models can do. The default is what the bundle says.
        sessions: Keep the model of a conversation, so that the provider's prompt cache stays warm, unless another model
            gains more than the switch costs. Needs prices. A request names the session of each of its queries; a chat
            without a name is known by its first turns.
        session_margin: Instead of prices, keep the model unless the score is beyond the threshold by this margin, from
            0 to 1.
        cache_ttl: Time, in seconds, for which a provider's prompt cache holds what was read last.
        session_store: URL of the Redis or Valkey in which several services share their sessions, such as
            redis://localhost:6379/0. The variable ROUTELEARN_REDIS_URL can hold it instead, so that nobody reads a
            password in it.
        no_agents: Let every chat count as a user's turn. By default, a step of an agent keeps to the user's question,
            blocks that agents add are not read, loops of tool calls go to strong, and titles and summaries to weak.
        answer_value_usd: How many USD a good answer is worth more than a bad one. The default is what the threshold
            says.
    """

    HEADING: ClassVar[str] = "Conversations"

    pool: Annotated[Path | None, Flag(panel=POOL)] = None
    sessions: bool = False
    session_margin: Annotated[float | None, Flag(least=0, most=1)] = None
    cache_ttl: Annotated[float, Flag(metavar="SECONDS")] = 300.0
    answer_value_usd: Annotated[float | None, Flag(metavar="USD")] = None
    session_store: Annotated[str | None, Flag(metavar="URL")] = None
    no_agents: bool = False

    def rules(self, router: Router) -> RequestRules:
        """What requests change of the router's decisions.

        Raises:
            InputError: there are sessions, and neither prices nor a margin to decide by.
        """
        models = self._models(router)
        sessions, prices = None, None
        if self.sessions and self.session_margin is None:
            if sum(model.input_price is not None and model.output_price is not None for model in models) < 2:
                raise InputError("--sessions needs prices; expected --pool FILE with prices, or --session-margin")
            prices = SwitchPrices(models=models, cache_ttl_s=self.cache_ttl, value_usd=self.answer_value_usd)
        if self.sessions or self.session_margin is not None:
            url = self.session_store or os.environ.get(LiteLLMVariable.REDIS_URL.value)
            sessions = Conversations(
                MARGIN if self.session_margin is None else self.session_margin,
                prices=prices,
                max_sessions=MOST_SESSIONS,
                store=SharedSessions(url, max_sessions=MOST_SESSIONS) if url else None,
                salt=shared_salt(os.environ.get(LOG_SALT_VARIABLE)) if url else None,
            )
        rules = RequestRules(pool=self._given, sessions=sessions, reads_agents=not self.no_agents)
        rules.pool_of(router)
        return rules

    def savings(self, router: Router, router_usd: float) -> Savings:
        """What counts the calls: by the prices of the pool, and with caches that hold as long as sessions expect."""
        return Savings(self._models(router), cache_ttl_s=self.cache_ttl, router_usd=router_usd)

    @cached_property
    def _given(self) -> list[Model]:
        """The models of --pool; the file is read once."""
        return read_pool(self.pool)

    def _models(self, router: Router) -> list[Model]:
        """The models of the router, and those of --pool, which go first."""
        return list({model.name: model for model in (*router.pool, *self._given)}.values())


@with_flags
def serve_command(
    choice: RouterChoice,
    policy: PolicyChoice,
    options: ServeOptions,
    conversations: SessionOptions,
    server: Annotated[ServerSettings, FlagsOf(panel="Server")],
    limits: Annotated[RequestLimits, FlagsOf(panel="Limits of a request")],
) -> None:
    """Run a router as an HTTP service: POST /v1/route and /v1/score, a status page at /, metrics at /metrics.

    The service is one process. SIGTERM lets requests in flight finish; SIGHUP loads the bundle again, and no request
    is dropped.

    Example: routelearn serve router/ --strong-share 0.3

    Example: curl -s localhost:8000/v1/route -H 'content-type: application/json' -d '{"queries": ["What is 2 plus 2?"]}'
    """
    for module in ("fastapi", "httptools", "uvicorn", "prometheus_client"):
        require(module, "serve")
    _heed_signals()
    tokens = options.tokens(server.host)
    if options.watch is not None and not options.watch > 0:
        raise InputError(f"--watch is {options.watch}; expected a number of seconds above 0")
    trial = BundleTrial(choice.router, timeout_s=options.load_timeout)
    if choice.router != RULES:
        trial.start()  # while the imports below take their time
    from ..service.http.app import create_app
    from ..service.http.listening import listen
    from ..service.http.middleware import Tokens
    from ..service.http.server import run
    from ..service.http.slot import RouterSlot

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=server.log_level.upper(), handlers=[handler])
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    listening = listen(server.host, server.port)
    slot = RouterSlot(
        choice.router,
        lambda: choice.open(threads=options.threads, timeout_s=options.timeout, check=trial.run),
        policy_by_context(
            policy.policy(),
            parse_pairs(options.tier_share or [], "--tier-share"),
            parse_pairs(options.use_case_share or [], "--use-case-share"),
            options.explore,
        ),
    )
    log = options.log()
    use_cases = parse_pairs(options.use_case_share or [], "--use-case-share")
    app = create_app(
        slot,
        limits=limits,
        tokens=Tokens(*tokens),
        decision_log=log,
        escalation=EscalationMonitor(known=[*slot.current.router.models, *use_cases]),
        watch_s=options.watch,
        rules=conversations.rules(slot.current.router),
        savings=conversations.savings(slot.current.router, options.router_usd),
        shadow=options.shadow,
    )
    run(app, listening, slot, server)


def _heed_signals() -> None:
    """Heed the signals of an operator until the service serves and has handlers of its own.

    The kernel keeps SIGTERM from the first process of a container unless the process has a handler. SIGHUP asks for
    the bundle that is being loaded, and would end the process.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda *_: None)


def policy_by_context(
    base: Policy | None, tier_shares: Mapping[str, str], use_case_shares: Mapping[str, str], explore: float
) -> Policy | None:
    """The policy of a service: by user tier, else by use case, else the same for all.

    Args:
        base: for everybody else; None: the router's own threshold.
        tier_shares: strong share by user tier, as it was typed.
        use_case_shares: strong share by use case, as it was typed.
        explore: share of the queries whose model is drawn at random.

    Raises:
        InputError: a share is not a number from 0 to 1.
    """
    policy = base
    for key, shares in ((USE_CASE, use_case_shares), (USER_TIER, tier_shares)):
        if shares:
            policy = ByContext(key, {name: StrongShare(_number(share)) for name, share in shares.items()}, policy)
    return Explore(policy, explore) if explore else policy


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"strong share is {text!r}; expected a number from 0 to 1") from None


def _token(path: Path | None, variable: str) -> bytes | None:
    """A token from a file or a variable, never from the command line, which every user of the machine can read."""
    try:
        text = path.read_text() if path is not None else os.environ.get(variable)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if text is None:
        return None
    token = text.strip().encode()
    where = path if path is not None else variable
    if not token:
        raise InputError(f"{where} holds no token; expected {LEAST_TOKEN} or more printable ASCII characters")
    if len(token) < LEAST_TOKEN:
        raise InputError(f"the token in {where} has {len(token)} characters; expected {LEAST_TOKEN} or more")
    if any(byte <= 32 or byte >= 127 for byte in token):
        raise InputError(f"the token in {where} holds a blank or another special character; expected printable ASCII")
    return token


def is_loopback(host: str) -> bool:
    """Whether no other machine can reach this address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
