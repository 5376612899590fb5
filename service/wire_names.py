"""Names that callers and operators write: paths, headers, types of errors, environment variables, keys of metadata.

The fields of HTTP requests and replies are the typed dictionaries of `service.http.schemas`; a type checker compares
every use with them.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal

# ---- environment variables

PREFIX = "ROUTELEARN_"

#: Bearer tokens of `routelearn serve`: for callers, and for reloads as well.
TOKEN_VARIABLE = PREFIX + "TOKEN"
ADMIN_TOKEN_VARIABLE = PREFIX + "ADMIN_TOKEN"

#: The salt of the hashes in the decision log of `routelearn serve` and of the LiteLLM plug-ins.
LOG_SALT_VARIABLE = PREFIX + "LOG_SALT"

#: Variables of other parts of routelearn.
_CACHE_VARIABLE, _DATA_VARIABLE = PREFIX + "CACHE", PREFIX + "DATA"


class LiteLLMVariable(str, Enum):
    """Environment variables of the LiteLLM plug-ins; docs/litellm.md says what each of them means."""

    ROUTER = PREFIX + "ROUTER"
    STRONG = PREFIX + "STRONG"
    WEAK = PREFIX + "WEAK"
    GENERAL = PREFIX + "GENERAL"
    MODELS = PREFIX + "MODELS"
    POOL = PREFIX + "POOL"
    SESSIONS = PREFIX + "SESSIONS"
    SESSION_REQUESTS = PREFIX + "SESSION_REQUESTS"
    SESSION_HEADERS = PREFIX + "SESSION_HEADERS"
    AGENTS = PREFIX + "AGENTS"
    CACHE_TTL_S = PREFIX + "CACHE_TTL_S"
    ANSWER_VALUE_USD = PREFIX + "ANSWER_VALUE_USD"
    SESSION_MARGIN = PREFIX + "SESSION_MARGIN"
    SESSION_BY_USER = PREFIX + "SESSION_BY_USER"
    REDIS_URL = PREFIX + "REDIS_URL"
    COST_MAP = PREFIX + "COST_MAP"
    THRESHOLD = PREFIX + "THRESHOLD"
    STRONG_SHARE = PREFIX + "STRONG_SHARE"
    TRIGGERS = PREFIX + "TRIGGERS"
    TIERS = PREFIX + "TIERS"
    TIMEOUT_MS = PREFIX + "TIMEOUT_MS"
    BREAKERS = PREFIX + "BREAKERS"
    RESET_TIMEOUT_S = PREFIX + "RESET_TIMEOUT_S"
    LOG = PREFIX + "LOG"
    LOG_PROMPTS = PREFIX + "LOG_PROMPTS"
    LOG_SALT = LOG_SALT_VARIABLE
    METRICS_PORT = PREFIX + "METRICS_PORT"
    METRICS_HOST = PREFIX + "METRICS_HOST"
    VERIFIER = PREFIX + "VERIFIER"
    ESCALATE_BELOW = PREFIX + "ESCALATE_BELOW"
    EXPLORE = PREFIX + "EXPLORE"
    SHADOW = PREFIX + "SHADOW"
    ROUTER_USD = PREFIX + "ROUTER_USD"


#: Every variable that routelearn reads.
VARIABLES = frozenset(
    {TOKEN_VARIABLE, ADMIN_TOKEN_VARIABLE, _CACHE_VARIABLE, _DATA_VARIABLE, *(one.value for one in LiteLLMVariable)}
)

# ---- the context of a request

#: Keys of `Context`: the tier of the user, and what the request is for.
USER_TIER, USE_CASE = "tier", "use_case"

# ---- the HTTP service

SCORE, ROUTE, OUTCOMES = "/v1/score", "/v1/route", "/v1/outcomes"
RELOAD, STATUS, ROUTER, SAVINGS = "/v1/reload", "/v1/status", "/v1/router", "/v1/savings"
HEALTH, METRICS, PAGE, OPENAPI = "/healthz", "/metrics", "/", "/openapi.json"
#: Paths of OpenAI's and Anthropic's services, to which `routelearn proxy` answers and `routelearn serve` does not.
COMPLETIONS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")
MODELS = "/v1/models"
PATHS = frozenset(
    {SCORE, ROUTE, OUTCOMES, RELOAD, STATUS, ROUTER, SAVINGS, HEALTH, METRICS, PAGE, OPENAPI, *COMPLETIONS, MODELS}
)
#: Paths that need no token: their replies say nothing about queries or models.
OPEN_PATHS = frozenset({HEALTH, PAGE, OPENAPI})

#: Headers of requests and replies, as ASGI spells them.
AUTHORIZATION, AUTHENTICATE, BEARER = b"authorization", b"www-authenticate", b"Bearer"
CONTENT_TYPE, CONTENT_LENGTH, JSON = b"content-type", b"content-length", b"application/json"
CONNECTION, RETRY_AFTER = b"connection", b"retry-after"
#: What the clients of OpenAI and Anthropic ask before they repeat a request that failed with a status of 500 or more.
SHOULD_RETRY = b"x-should-retry"

#: `error.type` of a reply, one word for programs. The framework adds words for its own statuses ("not_found").
ErrorType = Literal[
    "bad_request",
    "body_timeout",
    "bundle_refused",
    "closing",
    "disconnected",
    "forbidden",
    "head_too_large",
    "internal",
    "invalid_json",
    "invalid_request",
    "not_implemented",
    "reload_running",
    "timeout",
    "too_large",
    "too_many_requests",
    "unauthorized",
    "unsupported_media_type",
]

# ---- LiteLLM

#: Keys in the metadata of a request, or of an API key of LiteLLM; every value there is a string.
METADATA_USER_TIER, METADATA_THRESHOLD = "routelearn_tier", "routelearn_threshold"

#: Keys under which the plug-ins keep a request's selection, and when the request and its attempt began (monotonic
#: seconds).
METADATA_SELECTION, METADATA_RECEIVED, METADATA_STARTED = "routelearn", "routelearn_received", "routelearn_started"
METADATA_SESSION = "routelearn_session"
#: Keys that join a call with its request: the mark of this process, the decision's id in the log, and whether another
#: call of the request is counted already.
METADATA_CALL, METADATA_DECISION, METADATA_FURTHER = (
    "routelearn_call",
    "routelearn_decision",
    "routelearn_further",
)
