"""A small OpenAI-compatible server over a model, on loopback, that can be told to fail: for tests of its clients."""

import contextlib
import http.server
import json
import threading
import time

import torch

from mechxai.model.generation.generator import Writing
from mechxai.model.generation.local import LocalGenerator

FAULTS = ("429", "500", "401", "400", "cut", "garbage", "slow", "no_logprobs", "no_choices", "echo_key", "redirect")


class Server(http.server.ThreadingHTTPServer):
    """Answers ``/v1/completions`` and ``/v1/chat/completions``.

    With ``echo`` or ``logprobs`` by log-probabilities, else by writing as many tokens as asked, drawn with the
    request's seed.

    Attributes:
        seen: every request's body, in the order they came.
        faults: what the next requests meet instead of an answer, from the front; "" for none.
        always: a fault that every request meets.
        slowness: seconds that a slow answer takes.
        elsewhere: the address that a redirect names.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, model, key=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.model, self.key = model, key
        self.seen, self.faults, self.always = [], [], ""
        self.slowness, self.elsewhere = 1.5, ""
        self.lock = threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def next_fault(self):
        with self.lock:
            return self.always or (self.faults.pop(0) if self.faults else "")


@contextlib.contextmanager
def serving(model, key=None):
    """A running server.

    Yields:
        The server, which has its ``url``.
    """
    server = Server(model, key)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.seen.append(body)
        fault = self.server.next_fault()
        if self.server.key and self.headers.get("Authorization") != f"Bearer {self.server.key}":
            fault = "401"
        if fault in BROKEN:
            BROKEN[fault](self)
        elif fault.isdecimal():
            said = f"fault {fault}, you sent {self.headers.get('Authorization')}"
            self.send(int(fault), {"error": {"message": said, "type": "fault"}})
        else:
            if fault == "slow":
                time.sleep(self.server.slowness)
            answer = self.completion(body) if self.path.endswith("/v1/completions") else self.chat(body)
            self.send(200, self.spoiled(answer, fault))

    def spoiled(self, answer, fault):
        """The answer with what a fault does to it."""
        said = self.headers.get("Authorization", "")
        if fault == "no_logprobs":
            answer["choices"][0]["logprobs"] = None
        if fault == "no_choices":
            answer["choices"] = []
        if fault == "echo_key":
            answer |= {"system_fingerprint": said, said: said, "model": f"({said})"}
        return answer

    def cut(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b'{"choices": [')
        self.wfile.flush()
        self.close_connection = True

    def redirect(self):
        self.send_response(307)
        self.send_header("Location", f"{self.server.elsewhere}{self.path}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def garbage(self):
        self.send(200, "{'choices': [not json", raw=True)

    def send(self, code, content, raw=False):
        data = content.encode() if raw else json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(data)

    def logprobs(self, text):
        """Tokens as text, their log-probabilities (the first has none), and those of the next token."""
        model = self.server.model
        ids = model.text.ids(text)
        with self.server.lock:
            logits = model.logits(torch.tensor([ids]))[0].double().log_softmax(-1)
        texts = model.text.strings(ids)[1:]  # without <bos>
        own = logits[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].tolist()
        return list(texts), [None, *own[1:]], logits[-1]

    def written(self, text, body):
        """What the model writes behind a text."""
        stop = body.get("stop") or ()
        stop = (stop,) if isinstance(stop, str) else tuple(stop)
        how = Writing(body.get("max_tokens", 16), float(body.get("temperature", 1.0)), stop, body.get("seed", 0))
        with self.server.lock:
            return LocalGenerator(self.server.model).write([text], how)[0].text

    def completion(self, body):
        text = body["prompt"]
        if not body.get("echo"):
            choice = {"index": 0, "text": self.written(text, body), "finish_reason": "stop", "logprobs": None}
            return self.whole("text_completion", body, choice, len(self.server.model.text.ids(text)))
        texts, values, following = self.logprobs(text)
        best = int(following.argmax())
        texts.append(self.server.model.text.strings([best])[0])
        values.append(float(following[best]))
        spans = self.server.model.text.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ends = [end for _, end in spans["offset_mapping"]]
        offsets = [0, *ends]  # the space before a word is its own
        logprobs = {"tokens": texts, "token_logprobs": values, "text_offset": offsets}
        choice = {"index": 0, "text": text + texts[-1], "finish_reason": "length", "logprobs": logprobs}
        return self.whole("text_completion", body, choice, len(texts) - 1)

    def chat(self, body):
        if not body.get("logprobs"):
            said = body["messages"][-1]["content"]
            message = {"role": "assistant", "content": self.written(said, body)}
            choice = {"index": 0, "finish_reason": "stop", "message": message, "logprobs": None}
            return self.whole("chat.completion", body, choice, len(self.server.model.text.ids(said)))
        texts, _, following = self.logprobs(body["messages"][-1]["content"])
        values, ids = following.topk(body.get("top_logprobs", 20))
        names = self.server.model.text.strings(ids.tolist())
        top = [
            {"token": name, "logprob": value, "bytes": None} for name, value in zip(names, values.tolist(), strict=True)
        ]
        choice = {
            "index": 0,
            "finish_reason": "length",
            "message": {"role": "assistant", "content": names[0]},
            "logprobs": {"content": [{**top[0], "top_logprobs": top}]},
        }
        return self.whole("chat.completion", body, choice, len(texts))

    def whole(self, kind, body, choice, prompt_tokens):
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": 1, "total_tokens": prompt_tokens + 1}
        return {
            "id": "x", "object": kind, "created": 0, "model": body["model"], "choices": [choice], "usage": usage,
        }  # fmt: skip


BROKEN = {"cut": Handler.cut, "redirect": Handler.redirect, "garbage": Handler.garbage}
