"""One line of a request log, and what finds its fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ..routers.errors import DataError, InputError
from ..routers.query import Query
from .labels import feedback_score, number
from .log_messages import as_json, logged_query

#: Where a line may hold its outcome, if the user names no other place: a value, or an object with one of `_VALUES`.
_PLACES: tuple[str, ...] = ("", "metadata", "metadata.requester_metadata", "metadata.spend_logs_metadata")
_PLACES += (
    "request.metadata",
    "proxy_server_request.metadata",
)
OUTCOMES = tuple(
    f"{place}.{name}".lstrip(".") for place in _PLACES for name in ("outcome", "feedback", "score", "user_feedback")
)
_VALUES = ("score", "value", "rating", "thumb", "thumbs")
#: Where a line may hold the probability of its decision, and the model that was decided.
_DECISIONS = {
    "propensity": "decided_model",
    "metadata.propensity": "metadata.decided_model",
    "metadata.routelearn.decision.propensity": "metadata.routelearn.model",
}
_TIMES = ("startTime", "time", "timestamp", "start_time", "created_at", "response.created", "response.body.created")
_COSTS = ("response_cost", "spend", "cost_usd", "cost", "response.usage.cost", "response.body.usage.cost")
_USAGES = ("", "response.usage", "response.body.usage", "usage")
#: Seconds since 1970 are below this, milliseconds above.
_MILLISECONDS = 1e11
_LONGEST_TIME, MOST_USD, _MOST_TOKENS = 1e15, 1e6, 1e12


@dataclass(frozen=True, slots=True)
class LogFields:
    """Where lines hold what the formats do not fix. Names of nested fields are joined by dots.

    Attributes:
        outcome: the field of the outcome; None: the usual names.
        model: the field of the model's name; None: that of the format.
        task: the field of the task; None: the use case of a decision of routelearn, otherwise none.
        score_scale: the highest outcome.

    Example:
        >>> from routelearn.data import LogFields
        >>> LogFields(outcome="metadata.feedback.stars", score_scale=5).task is None
        True
    """

    outcome: str | None = None
    model: str | None = None
    task: str | None = None
    score_scale: float = 1.0


class Line:
    """A line, and what finds its fields."""

    def __init__(self, file: str, row: int, line: Mapping[str, Any], fields: LogFields) -> None:
        self.file, self.row, self.fields = file, row, fields
        self._known: dict[str, object] = {"": line}

    def at(self, path: str) -> object:
        """The value of a field; None: there is none. Texts that hold JSON are read."""
        if path not in self._known:
            place, _, name = path.rpartition(".")
            parent = self.at(place)
            self._known[path] = as_json(parent.get(name)) if isinstance(parent, Mapping) else None
        return self._known[path]

    def error(self, field: str | None, problem: object, expected: str) -> DataError:
        """The error of a field."""
        return DataError(self.file, self.row, field, str(problem), expected)

    def text(self, *paths: str) -> str | None:
        """The first of some fields that is a text; whole numbers count."""
        for path in paths:
            value = self.at(path)
            if isinstance(value, (str, int)) and not isinstance(value, bool) and value != "":
                return str(value)
        return None

    def needed_text(self, expected: str, *paths: str) -> str:
        """As `text`.

        Raises:
            DataError: there is none.
        """
        found = self.text(*paths)
        if found is None:
            raise self.error(paths[0], "missing", expected)
        return found

    def texts(self, *paths: str) -> tuple[str, ...]:
        """The texts of some fields, each once."""
        return tuple(dict.fromkeys(found for path in paths if (found := self.text(path)) is not None))

    def first_number(self, paths: Sequence[str], most: float) -> float | None:
        """The first of some fields that is a number from 0 to `most`."""
        for path in paths:
            try:
                return number(self.at(path), 0, most)
            except InputError:
                continue
        return None

    def model(self, *paths: str) -> str:
        """The name of the model: in the field that the user named, otherwise in the first of these.

        Raises:
            DataError: there is none.
        """
        places = (self.fields.model,) if self.fields.model else paths
        return self.needed_text("the name of a model; --model-field names another field", *places)

    def common(self, outcomes: Sequence[str] = OUTCOMES) -> dict[str, Any]:
        """What the calls of all kinds have.

        Args:
            outcomes: the fields that may hold the outcome, where the user names none.

        Raises:
            DataError: a field is not as expected.
        """
        decision = next((path for path in _DECISIONS if self.at(path) is not None), None)
        return {
            "file": self.file,
            "row": self.row,
            "time": self.time(),
            "cost_usd": self.first_number(_COSTS, MOST_USD),
            "tokens": self.tokens(),
            "propensity": None if decision is None else self.propensity(decision),
            "decided": None if decision is None else self.text(_DECISIONS[decision]),
            "outcome": self.outcome([self.fields.outcome] if self.fields.outcome else outcomes),
            "task": self.text(self.fields.task) if self.fields.task else None,
        }

    def propensity(self, path: str) -> float:
        """The probability of a decision.

        Raises:
            DataError: it is none.
        """
        try:
            value = number(self.at(path))
        except InputError as error:
            raise self.error(path, error, "a probability above 0, and at most 1") from error
        if not value:
            raise self.error(path, "0", "a probability above 0, and at most 1")
        return value

    def outcome(self, paths: Sequence[str]) -> float | None:
        """The first of some fields that says how good the answer was, in [0, 1].

        Raises:
            DataError: it is neither a score nor a word for one.
        """
        for path in paths:
            value = self.at(path)
            if isinstance(value, Mapping):
                value = next((value[name] for name in _VALUES if value.get(name) is not None), None)
            if value is None or value == "":
                continue
            try:
                return feedback_score(value, self.fields.score_scale)
            except InputError as error:
                expected = "a number from 0 to 1, or a word such as thumbs_up or bad"
                raise self.error(path, error, expected) from error
        return None

    def time(self) -> float | None:
        """Seconds since 1970."""
        for path in _TIMES:
            value = self.at(path)
            if isinstance(value, str) and not value.replace(".", "", 1).isdigit():
                moment = _moment(value)
                if moment is not None:
                    return moment
                continue
            try:
                seconds = number(value, 0, _LONGEST_TIME)
            except InputError:
                continue
            return seconds / 1000 if seconds > _MILLISECONDS else seconds
        return None

    def tokens(self) -> tuple[float, float] | None:
        """Input tokens and output tokens."""
        for usage in _USAGES:
            place = f"{usage}." if usage else ""
            read = self.first_number((f"{place}prompt_tokens", f"{place}input_tokens"), _MOST_TOKENS)
            written = self.first_number((f"{place}completion_tokens", f"{place}output_tokens"), _MOST_TOKENS)
            if read is not None and written is not None:
                return read, written
        return None

    def query(self, *paths: str) -> Query | None:
        """The query in the first of some fields that has one.

        Raises:
            DataError: a field holds no request.
        """
        for path in paths:
            try:
                query = logged_query(self.at(path))
            except InputError as error:
                problem, _, expected = str(error).partition("; expected ")
                raise self.error(path, problem, expected or "the messages of a request") from error
            if query is not None:
                return query
        return None


def _moment(text: str) -> float | None:
    """A date and time of ISO 8601 as seconds since 1970; without a time zone it is UTC."""
    try:
        moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, OverflowError):
        return None
