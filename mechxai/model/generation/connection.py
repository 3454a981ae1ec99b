"""Requests to an OpenAI-compatible endpoint: retried, a few at a time, counted, and never asked twice."""

import hashlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from mechxai.core.errors import ArtifactError, ConfigError, ModelSupportError
from mechxai.core.files import write_atomic

Body = Mapping[str, object]
Answered = dict[str, Any]
ROUTES = ("completions", "chat.completions")
_PAUSE = 0.5  # seconds before a damaged answer is asked for again, doubled each time


@dataclass(frozen=True, eq=False)
class Connection:
    """How an endpoint is reached.

    The official ``openai`` client sends, waits and retries (connection lost, 408, 429, 5xx, with growing pauses); this
    keeps every answer on disk, so that a run which is killed pays for nothing twice.

    The key is read from the environment when first used. It is in no field, file or message.

    Attributes:
        base_url: where; by default what the environment says (``OPENAI_BASE_URL``), else the client's own.
        key_from: the environment variable that holds the key; a server at ``base_url`` may need none.
        cache: a folder for answers, one file each; None keeps them for this process only.
        at_once: requests under way together.
        retries: of one request.
        timeout: seconds to wait for one answer.
    """

    base_url: str | None = None
    key_from: str = "OPENAI_API_KEY"
    cache: str | None = None
    at_once: int = 4
    retries: int = 5
    timeout: float = 60.0
    spent: Counter[str] = field(default_factory=Counter[str], init=False, repr=False)
    _known: dict[str, Answered] = field(default_factory=dict[str, Answered], init=False, repr=False)
    _lock: Any = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.at_once < 1 or self.retries < 0 or self.timeout <= 0:
            raise ConfigError(
                "A connection to an endpoint",
                got=f"at_once={self.at_once}, retries={self.retries}, timeout={self.timeout}",
                allowed="at_once >= 1, retries >= 0, timeout > 0",
            )
        _check_url("base_url of an endpoint", self.base_url or "", self.key_from)

    @property
    def place(self) -> str:
        """Where requests go, as it may be shown.

        Raises:
            ConfigError: the environment's address holds a user, a password or a query.
        """
        from_environment = "" if self.base_url else os.environ.get("OPENAI_BASE_URL", "")
        _check_url("The environment's OPENAI_BASE_URL", from_environment, self.key_from)
        return self.base_url or from_environment or "the client's default"

    def ask_all(self, route: str, bodies: Sequence[Body]) -> list[Answered]:
        """The answers to many requests, in their order, `at_once` at a time; those that are known cost nothing.

        Args:
            route: ``completions`` or ``chat.completions``.
            bodies: the requests, as the endpoint takes them.

        Raises:
            ArtifactError: no answer, after all retries; what was answered before is kept.
            ConfigError: no key, or one that is refused.
            ModelSupportError: the endpoint does not take such requests.
        """
        different = {self._digest(route, body): body for body in bodies}
        missing = [digest for digest in different if digest not in self._known and not self._read(digest)]
        self.spent["answers reused"] += len(bodies) - len(missing)
        if missing:
            self._ask_first_then_rest(route, [(digest, different[digest]) for digest in missing])
        return [self._known[self._digest(route, body)] for body in bodies]

    def _ask_first_then_rest(self, route: str, asked: Sequence[tuple[str, Body]]) -> None:
        """One request alone, which shows what is wrong with all; then the others together."""
        self._ask(route, *asked[0])
        with ThreadPoolExecutor(self.at_once) as pool:
            waiting = [pool.submit(self._ask, route, digest, body) for digest, body in asked[1:]]
            try:
                for one in waiting:
                    one.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _ask(self, route: str, digest: str, body: Body) -> None:
        answer = self._sent(route, body)
        with self._lock:
            self._known[digest] = answer
            self.spent["requests"] += 1
            usage = answer.get("usage") or {}
            for name in ("prompt_tokens", "completion_tokens"):
                self.spent[name] += int(usage.get(name) or 0)
        if self.cache is not None:
            kept = {"place": self.place, "route": route, "request": body, "answer": answer}
            write_atomic(
                self._file(digest), json.dumps(kept, default=str)
            )  # as ASCII, for texts may hold halves of characters

    def _sent(self, route: str, body: Body) -> Answered:
        import openai  # noqa: PLC0415 - optional

        create = self._client.completions.create if route == ROUTES[0] else self._client.chat.completions.create
        for attempt in range(self.retries + 1):
            try:
                return _usable(create(**body).model_dump(mode="python", warnings="none"))
            except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
                raise ConfigError(
                    f"The endpoint at {self.place} was asked",
                    got=self._said(error),
                    fix=f"put a valid key into {self.key_from}",
                ) from None
            except (openai.BadRequestError, openai.NotFoundError, openai.UnprocessableEntityError) as error:
                raise ModelSupportError(
                    f"Model {body.get('model')!r} at {self.place} was asked ({route})", got=self._said(error)
                ) from None
            except openai.APIStatusError as error:  # the client has retried already
                raise self._no_answer(error) from None
            except (openai.APIConnectionError, openai.OpenAIError, ValueError, TypeError, AttributeError) as error:
                if isinstance(error, openai.APIConnectionError) or attempt == self.retries:
                    raise self._no_answer(error) from None
                time.sleep(_PAUSE * 2**attempt)
        raise AssertionError  # pragma: no cover - the loop returns or raises

    def _no_answer(self, error: Exception) -> ArtifactError:
        return ArtifactError(
            f"The endpoint at {self.place} was asked",
            got=f"no usable answer after {self.retries} retries: {self._said(error)}",
            fix="check base_url and the server; run again to go on, as answers so far are kept where cache is set",
        )

    def _said(self, error: Exception) -> str:
        """An error's message, without the key."""
        message = f"{type(error).__name__}: {error}"
        return message.replace(self._key, "***") if self._key else message

    @cached_property
    def _key(self) -> str:
        return os.environ.get(self.key_from, "")

    @cached_property
    def _client(self) -> Any:
        try:
            import openai  # noqa: PLC0415 - optional
        except ImportError:
            raise ConfigError(
                "An endpoint was asked", got="no openai package", fix="pip install 'mechxai[endpoint]'"
            ) from None
        if not self._key and self.base_url is None and "OPENAI_BASE_URL" not in os.environ:
            raise ConfigError(
                "An endpoint was asked",
                got=f"no key in {self.key_from} and no base_url",
                fix=f"set {self.key_from}, or give the base_url of a server that needs no key",
            )
        return openai.OpenAI(
            api_key=self._key or "none", base_url=self.base_url, max_retries=self.retries, timeout=self.timeout
        )

    def _digest(self, route: str, body: Body) -> str:
        whole = json.dumps([self.place, route, body], sort_keys=True, default=str)
        return hashlib.sha256(whole.encode()).hexdigest()

    def _file(self, digest: str) -> Path:
        return Path(self.cache or ".") / digest[:2] / f"{digest}.json"

    def _read(self, digest: str) -> bool:
        """Takes an answer from disk; False where there is none, or a damaged one, which is asked for again."""
        if self.cache is None:
            return False
        try:
            self._known[digest] = _usable(json.loads(self._file(digest).read_text(encoding="utf-8"))["answer"])
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return True


def _usable(answer: object) -> Answered:
    """An answer that holds a choice at least; a ValueError says that it holds none, so that it is asked for again."""
    own = cast("Answered", answer).get("choices") if isinstance(answer, dict) else None
    if not (isinstance(own, list) and own and isinstance(own[0], dict)):
        raise ValueError("no choices in the answer")
    return cast("Answered", answer)


def _check_url(what: str, url: str, key_from: str) -> None:
    parts = urlsplit(url)
    if not url or (parts.netloc and "@" not in parts.netloc and not parts.query):
        return
    raise ConfigError(
        what,
        got="one with a user, a password or a query in it" if parts.netloc else repr(url),
        allowed="http(s)://host/path",
        fix=f"put the key into the environment variable {key_from}" if parts.netloc else "begin it with http://",
    )


def choices(answers: Iterable[Answered]) -> list[Mapping[str, Any]]:
    """The first choice of every answer; those of a `Connection` have one."""
    return [answer["choices"][0] for answer in answers]
