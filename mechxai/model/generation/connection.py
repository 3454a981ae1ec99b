"""Requests to an OpenAI-compatible endpoint: retried, concurrent, counted, and stored so that none is sent twice."""

import hashlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlsplit

from mechxai.core.cached import cached_property
from mechxai.core.errors import ArtifactError, ConfigError, ModelSupportError
from mechxai.core.files import set_aside, write_atomic
from mechxai.core.pieces import sealed, unsealed
from mechxai.core.secrets import MASK, masked

Body = Mapping[str, object]
Response = dict[str, Any]
ROUTES = ("completions", "chat.completions")
_SHORTEST_KEY = 6  # characters; shorter words are no secrets
_PAUSE = 0.5  # seconds before a request with a damaged response is sent again, doubled each time


@dataclass(frozen=True, eq=False)
class Connection:
    """The address of an endpoint and how requests are sent there.

    The official ``openai`` client sends, waits and retries (lost connections, 408, 429, 5xx, with growing pauses).
    Every response is stored on disk, so that an interrupted run resumes without paying twice.

    The key is read from the environment at first use. No field, file or message contains it.

    Attributes:
        base_url: the address; by default ``OPENAI_BASE_URL`` of the environment, else the client's own.
        key_from: the environment variable that holds the key; a server at ``base_url`` may need none.
        cache: a folder for responses, one file each; None stores them for this process only.
        at_once: concurrent requests.
        retries: of one request.
        timeout: seconds to wait for one response.
        spent: requests, reused responses and tokens so far.
    """

    base_url: str | None = None
    key_from: str = "OPENAI_API_KEY"
    cache: str | None = None
    at_once: int = 4
    retries: int = 5
    timeout: float = 60.0
    spent: Counter[str] = field(default_factory=Counter[str], init=False, repr=False)
    _responses: dict[str, Response] = field(default_factory=dict[str, Response], init=False, repr=False)
    _lock: Any = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.at_once < 1:
            raise ConfigError(f"at_once is {self.at_once}: it must be at least 1")
        if self.retries < 0:
            raise ConfigError(f"retries is {self.retries}: it must be at least 0")
        if self.timeout <= 0:
            raise ConfigError(f"timeout is {self.timeout}: it must be above 0")
        _check_url("base_url", self.base_url or "", self.key_from)

    @property
    def place(self) -> str:
        """The address of the endpoint, without secrets.

        Raises:
            ConfigError: the address in the environment is not an http address, or has secrets in it.
        """
        from_environment = "" if self.base_url else os.environ.get("OPENAI_BASE_URL", "")
        _check_url("OPENAI_BASE_URL", from_environment, self.key_from)
        self._check_no_key(self.base_url or from_environment)
        return self.base_url or from_environment or "the client's default"

    def _check_no_key(self, url: str) -> None:
        if self._without_key(url) != url:
            raise ConfigError("The endpoint's address has the key in it", fix=f"Leave the key in {self.key_from} only")

    def ask_all(self, route: str, bodies: Sequence[Body]) -> list[Response]:
        """The responses to many requests, in their order, ``at_once`` at a time; stored responses cost nothing.

        Args:
            route: ``completions`` or ``chat.completions``.
            bodies: the requests, in the endpoint's format.

        Raises:
            ArtifactError: no response after all retries; earlier responses stay stored.
            ConfigError: no key, or a key that the endpoint refuses.
            ModelSupportError: the endpoint does not support such requests.
        """
        by_digest = {self._digest(route, body): body for body in bodies}
        missing = [
            digest
            for digest, body in by_digest.items()
            if digest not in self._responses and not self._load(digest, route, body)
        ]
        self.spent["answers reused"] += len(bodies) - len(missing)
        if missing:
            self._send_first_then_rest(route, [(digest, by_digest[digest]) for digest in missing])
        return [self._responses[self._digest(route, body)] for body in bodies]

    def _send_first_then_rest(self, route: str, requests: Sequence[tuple[str, Body]]) -> None:
        """Sends one request alone, which fails if all would; then the others concurrently."""
        self._send(route, *requests[0])
        with ThreadPoolExecutor(self.at_once) as pool:
            futures = [pool.submit(self._send, route, digest, body) for digest, body in requests[1:]]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _send(self, route: str, digest: str, body: Body) -> None:
        """Sends one request, and stores the response."""
        answer = self._without_key(self._response(route, body))
        with self._lock:
            self._responses[digest] = answer
            self.spent["requests"] += 1
            usage = answer.get("usage") or {}
            for name in ("prompt_tokens", "completion_tokens"):
                self.spent[name] += int(usage.get(name) or 0)
        if self.cache is not None:
            record = {"place": self.place, "route": route, "request": self._without_key(body), "answer": answer}
            write_atomic(self._file(digest), sealed(record))

    def _response(self, route: str, body: Body) -> Response:
        import openai  # noqa: PLC0415 - optional

        create = self._client.completions.create if route == ROUTES[0] else self._client.chat.completions.create
        for attempt in range(self.retries + 1):
            try:
                answer = create(**body).model_dump(mode="python", warnings="none")
                return _usable(answer)
            except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
                raise ConfigError(
                    f"The endpoint at {self.place} refuses the key: {self._message(error)}",
                    fix=f"Put a valid key into {self.key_from}",
                ) from None
            except (openai.BadRequestError, openai.NotFoundError, openai.UnprocessableEntityError) as error:
                raise ModelSupportError(
                    f"Model {body.get('model')!r} at {self.place} refuses the request ({route}): {self._message(error)}"
                ) from None
            except openai.APIStatusError as error:  # the client has retried
                if error.response.is_redirect:
                    raise self._redirected(error.response.headers.get("location", "")) from None
                raise self._no_answer(error) from None
            except (openai.APIConnectionError, openai.OpenAIError, ValueError, TypeError, AttributeError) as error:
                if isinstance(error, openai.APIConnectionError) or attempt == self.retries:
                    raise self._no_answer(error) from None
                time.sleep(_PAUSE * 2**attempt)
        raise AssertionError  # pragma: no cover - the loop returns or raises

    def _no_answer(self, error: Exception) -> ArtifactError:
        return ArtifactError(
            f"The endpoint at {self.place} gave no usable answer after {self.retries} retries: {self._message(error)}",
            fix="Check base_url and the server. Run again to resume: responses are stored where cache is set",
        )

    def _redirected(self, location: str) -> ConfigError:
        """A request holds the prompts and the key, so it goes to no other address than the one given."""
        there = urlsplit(location)
        origin = f"{there.scheme}://{there.hostname}" if there.scheme and there.hostname else "another address"
        return ConfigError(
            f"The endpoint at {self.place} sends requests on to {self._without_key(origin)}, which is not followed",
            fix="Give the address where the server answers itself as base_url",
        )

    def _message(self, error: Exception) -> str:
        """An error's message, without the key."""
        return self._without_key(f"{type(error).__name__}: {error}")

    def _without_key(self, value: Any) -> Any:
        """A value with the key masked in every text of it, as it is and as addresses have it."""
        key = self._key.strip()
        if len(key) < _SHORTEST_KEY:  # a word such as none or EMPTY, for servers that need no key
            return value
        return masked(value, dict.fromkeys((key, quote(key, safe="")), MASK), keys=False)

    @cached_property
    def _key(self) -> str:
        return os.environ.get(self.key_from, "")

    @cached_property
    def _client(self) -> Any:
        try:
            import openai  # noqa: PLC0415 - optional
        except ImportError:
            raise ConfigError(
                "Endpoints need the openai package", fix='Install it with: pip install "mechxai[endpoint]"'
            ) from None
        if not self._key and self.base_url is None and "OPENAI_BASE_URL" not in os.environ:
            raise ConfigError(
                f"There is no key in {self.key_from} and no base_url",
                fix=f"Set {self.key_from}, or give the base_url of a server that needs no key",
            )
        return openai.OpenAI(
            api_key=self._key or "none",
            base_url=self.base_url,
            max_retries=self.retries,
            timeout=self.timeout,
            http_client=openai.DefaultHttpxClient(follow_redirects=False),  # the key goes to this address alone
        )

    def _digest(self, route: str, body: Body) -> str:
        request = json.dumps([self.place, route, body], sort_keys=True, default=str)
        return hashlib.sha256(request.encode()).hexdigest()

    def _file(self, digest: str) -> Path:
        return Path(self.cache or ".") / digest[:2] / f"{digest}.json"

    def _load(self, digest: str, route: str, body: Body) -> bool:
        """Loads a stored response; False where there is none, a damaged one, or one to another request."""
        if self.cache is None:
            return False
        try:
            record = unsealed(self._file(digest).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            return False
        asked = json.loads(
            json.dumps({"place": self.place, "route": route, "request": self._without_key(body)}, default=str)
        )
        if record is None or {key: record.get(key) for key in asked} != asked:
            set_aside(self._file(digest))
            return False
        self._responses[digest] = _usable(record["answer"])
        return True


def _usable(answer: object) -> Response:
    """The response, if it has a choice; a ValueError without one, so that the request is sent again."""
    listed = cast("Response", answer).get("choices") if isinstance(answer, dict) else None
    if not (isinstance(listed, list) and listed and isinstance(listed[0], dict)):
        raise ValueError("no choices in the answer")
    return cast("Response", answer)


def _check_url(field: str, url: str, key_from: str) -> None:
    """Refuses an address that is no web address, or that contains a user, a password, a query or a fragment."""
    if not url:
        return
    allowed = "http(s)://host/path"
    if {"@", "?", "#"} & set(url):
        raise ConfigError(
            f"{field} has a user, a password or a query in it, or a fragment",
            allowed=allowed,
            fix=f"Put the key into the environment variable {key_from}",
        )
    if not _is_web_address(url):
        raise ConfigError(f"{field}={url!r} is not a URL", allowed=allowed, fix="Begin it with http:// or https://")


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port or a host that is none
        return False
    plain = url.isprintable() and not {" ", "\\"} & set(url)
    return usable and plain and parts.scheme in ("http", "https") and url.lower().startswith(f"{parts.scheme}://")


def choices(answers: Iterable[Response]) -> list[Mapping[str, Any]]:
    """The first choice of every response; the responses of a `Connection` have one."""
    return [answer["choices"][0] for answer in answers]
