"""Errors as clients raise them: which are the model's, which the caller's; and breakers that do not stay half-open."""

from __future__ import annotations

import asyncio
import enum
import json
import ssl
import urllib.error
from collections.abc import Callable
from email.message import Message
from types import SimpleNamespace as Namespace
from typing import Any

import httpx
import openai
import pydantic
import pytest
from helpers.availability import Clock, opened

from routelearn.availability.availability import Availability
from routelearn.availability.breaker import BreakerLimits, is_failure, status_of
from routelearn.routers.errors import InputError

REQUEST = httpx.Request("POST", "https://models.invalid/v1/chat/completions")


class Reply(pydantic.BaseModel):
    choices: list[str]


class ParseError(ValueError):
    """As libraries derive the errors of their parsers."""


def expired_certificate() -> None:
    raise ssl.SSLCertVerificationError(1, "certificate has expired")


def refused_by_the_sdk() -> None:
    raise openai.APIResponseValidationError(httpx.Response(200, request=REQUEST), body="<html>")


def error_in_a_stream() -> None:
    raise openai.APIError("overloaded", request=REQUEST, body={"code": 502})


def own_parser() -> None:
    raise ParseError("no completion")


UPSTREAM: dict[str, Callable[[], object]] = {
    "an expired certificate": expired_certificate,
    "another validation of the SDK": refused_by_the_sdk,
    "an error in a stream": error_in_a_stream,
    "a page of HTML": lambda: httpx.Response(200, text="<html>Bad gateway</html>").json(),
    "a page of HTML, for json": lambda: json.loads("<html>"),
    "an empty body": lambda: httpx.Response(200).json(),
    "bytes that are no text": b"\xff\xfe".decode,
    "an error object": lambda: {"error": {"code": 502}}["choices"],
    "an error object, by attribute": lambda: Namespace(error="overloaded").choices,
    "a text, by attribute": lambda: "<html>".choices,  # type: ignore[attr-defined]
    "choices null": lambda: json.loads('{"choices": null}')["choices"][0],
    "message null": lambda: Namespace(message=None).message.content,
    "choices empty": lambda: json.loads('{"choices": []}')["choices"][0],
    "validation of pydantic": lambda: Reply.model_validate({"error": {"message": "overloaded"}}),
    "the parser of a library": own_parser,
}


def ask(availability: Availability, upstream: Callable[[], object]) -> bool:
    """Ask the first of two models; whether the broken one was asked."""
    choice = availability.choose(["a", "b"])
    try:
        with availability.attempt(choice):
            if choice.model == "a":
                upstream()
    except Exception:  # noqa: BLE001 - the next request comes all the same
        return choice.model == "a"
    return False


@pytest.mark.parametrize("upstream", UPSTREAM.values(), ids=UPSTREAM)
def test_a_broken_upstream_opens_its_breaker_and_fails_its_probe(upstream: Callable[[], object]) -> None:
    clock = Clock()
    availability = Availability(limits=BreakerLimits(reset_timeout_s=30), clock=clock)
    assert sum(ask(availability, upstream) for _ in range(60)) == 5
    assert availability.status("a").state == "open"
    clock.now += 30
    assert sum(ask(availability, upstream) for _ in range(60)) == 1
    assert availability.status("a").state == "open"


def bug(raises: Callable[[], object]) -> Exception:
    try:
        raises()
    except Exception as error:  # noqa: BLE001 - that is what is wanted
        return error
    raise AssertionError


def with_fields(**fields: Any) -> Exception:
    error = Exception("no")
    for name, value in fields.items():
        setattr(error, name, value)
    return error


def caused_by(cause: Exception) -> Exception:
    try:
        raise RuntimeError("all attempts failed") from cause
    except RuntimeError as error:
        return error


class Grpc(enum.Enum):
    INVALID_ARGUMENT = 3
    UNAVAILABLE = 14


STATUSES = [
    (400, with_fields(code=400, status="INVALID_ARGUMENT")),  # google-genai
    (400, with_fields(status="INVALID_ARGUMENT")),
    (400, with_fields(response={"ResponseMetadata": {"HTTPStatusCode": 400}})),  # botocore
    (400, with_fields(code=lambda: Grpc.INVALID_ARGUMENT)),  # gRPC
    (503, with_fields(code=lambda: Grpc.UNAVAILABLE)),
    (422, with_fields(http_status=422)),
    (400, with_fields(status_code="400")),
    (404, urllib.error.HTTPError("http://x", 404, "no", Message(), None)),
    (429, with_fields(response=Namespace(status_code=429))),
    (401, openai.AuthenticationError("revoked", response=httpx.Response(401, request=REQUEST), body=None)),
    (400, caused_by(openai.BadRequestError("no", response=httpx.Response(400, request=REQUEST), body=None))),
    (503, caused_by(with_fields(status_code=503))),
    (None, with_fields(code="invalid_api_key", status=None)),
    (None, with_fields(code=7, status_code=True)),
    (None, with_fields(code=lambda wanted: wanted, response={})),
]


@pytest.mark.parametrize(("status", "error"), STATUSES, ids=lambda value: str(value) if isinstance(value, int) else "")
def test_a_status_is_read_where_clients_put_it(status: int | None, error: Exception) -> None:
    assert status_of(error) == status
    assert is_failure(error) == (status is None or status in {429, 503})


@pytest.mark.parametrize(
    "error",
    [
        bug(lambda: {"model": "a"}["prices"]),
        bug(lambda: int("many")),
        bug(lambda: "text" + 1),  # type: ignore[operator]
        bug(lambda: Namespace().my_setting),
        bug("\ud800".encode),  # a prompt that no client can send
        InputError("a query is int"),
        AttributeError("without a name"),
        KeyError(),
        KeyError(3),
    ],
    ids=repr,
)
def test_bugs_of_the_caller_do_not_count(error: Exception) -> None:
    assert not is_failure(error)


@pytest.mark.parametrize("error", [asyncio.CancelledError(), with_fields(status_code=401), GeneratorExit()], ids=repr)
def test_a_breaker_does_not_stay_half_open_when_no_probe_says_anything(error: BaseException) -> None:
    clock = Clock()
    availability = opened(clock)
    clock.now += 30
    reached = 0
    for _ in range(60):
        choice = availability.choose(["a", "b"])
        if choice.model == "a":
            reached += 1
            availability.record(choice, ok=False, error=error)
    assert reached == 3
    status = availability.status("a")
    assert (status.state, status.why) == ("open", "3 probes ended without saying whether the model is well")
    clock.now += 30
    availability.record(availability.choose(["a", "b"]), ok=True)
    assert availability.status("a").state == "closed"


def test_probes_that_say_nothing_are_counted_anew_after_each_opening() -> None:
    clock = Clock()
    availability = opened(clock)
    for _ in range(3):
        clock.now += 30
        for _ in range(2):
            availability.record(availability.choose(["a", "b"]), ok=False, error=asyncio.CancelledError())
        assert availability.status("a").state == "half-open"
        availability.record(availability.choose(["a", "b"]), ok=False)
        assert availability.status("a").state == "open"
