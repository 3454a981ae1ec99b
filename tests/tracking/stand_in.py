"""A stand-in for W&B's server on this machine: it answers what a run and `wandb sync` ask, and remembers it all."""

import json
import re
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class StandIn:
    """What the server knows: runs and artifacts by id, who made and who used them, uploads by address."""

    def __init__(self):
        self.asked = []
        self.runs = {}
        self.artifacts = {}
        self.used = []  # (run, artifact's name)
        self.made = []
        self.uploads = {}
        self.streamed = []
        self.silent = threading.Event()  # set: every later request waits for an answer that never comes
        self.ended = threading.Event()
        self.url = ""

    def wait(self, found, seconds=60):
        deadline = time.monotonic() + seconds
        while not found():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {seconds} s; asked: {self.asked}")
            time.sleep(0.02)

    def history(self, run_id):
        files = [one["files"] for path, one in self.streamed if f"/{run_id}/" in path and one.get("files")]
        return [line for one in files for line in one.get("wandb-history.jsonl", {}).get("content", [])]

    def answer(self, name, variables):
        handler = getattr(self, f"_{name.lower()}", None)
        return handler(variables) if handler else {}

    def _viewer(self, _):
        return {"viewer": {"id": "v", "entity": "lab", "username": "lab", "flags": "{}", "teams": {"edges": []}}}

    def _serverfeaturesquery(self, _):
        return {"serverInfo": {"features": []}}

    def _upsertbucket(self, asked):
        run = self.runs.setdefault(asked["name"], {"resumed": 0})
        run |= {key: value for key, value in asked.items() if value is not None}
        run["resumed"] += 1
        project = {"id": "p", "name": run["project"], "entity": {"id": "e", "name": "lab"}}
        bucket = {"id": asked["name"], "name": asked["name"], "displayName": run.get("displayName"), "config": "{}"}
        return {
            "upsertBucket": {
                "bucket": {**bucket, "sweepName": run.get("sweep"), "project": project, "historyLineCount": 0},
                "inserted": run["resumed"] == 1,
            }
        }

    def _runresumestatus(self, asked):
        project = {"id": "p", "name": asked["project"], "entity": {"id": "e", "name": "lab"}}
        run = self.runs.get(asked["name"])
        lines = self.history(asked["name"])
        counts = {f"{kind}LineCount": 0 for kind in ("log", "events")} | {"historyLineCount": len(lines)}
        tails = {"historyTail": json.dumps(lines[-1:]), "eventsTail": "[]", "summaryMetrics": "{}", "config": "{}"}
        bucket = {
            "id": "b",
            "name": asked["name"],
            "displayName": "",
            "tags": [],
            "notes": "",
            "wandbConfig": '{"t": 1}',
        }
        return {"model": {**project, "bucket": None if run is None else {**bucket, **counts, **tails}}}

    def _artifacttype(self, _):
        return {"project": {"artifact": None}}

    def _createartifact(self, asked):
        asked = asked["input"]
        key = f"{asked['artifactCollectionName']}@{asked['digest']}"
        found = self.artifacts.setdefault(key, {**asked, "state": "PENDING"})
        self.made.append((asked["runName"], asked["artifactCollectionName"]))
        sequence = {"id": "s", "name": asked["artifactCollectionName"], "latestArtifact": None}
        return {"createArtifact": {"artifact": {"id": key, "state": found["state"], "artifactSequence": sequence}}}

    def _createartifactmanifest(self, asked):
        file = {"id": "f", "uploadUrl": f"{self.url}/upload/manifest/{asked['artifactID']}", "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": "m", "file": file}}}

    def _createartifactfiles(self, asked):
        nodes = [
            {
                "storagePath": one["name"],
                "uploadUrl": f"{self.url}/upload/{one['artifactID']}/{one['name']}",
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": one["artifactID"]},
            }
            for one in asked["input"]["artifactFiles"]
        ]
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def _commitartifact(self, asked):
        self.artifacts[asked["artifactID"]]["state"] = "COMMITTED"
        return {"commitArtifact": {"artifact": {"id": asked["artifactID"], "digest": ""}}}

    def _useartifact(self, asked):
        asked = asked["input"]
        self.used.append((asked["runName"], asked["artifactID"].partition("@")[0]))
        return {"useArtifact": {"artifact": {"id": asked["artifactID"]}}}

    def _createrunfiles(self, asked):
        files = [{"name": name, "uploadUrl": f"{self.url}/upload/run/{name}"} for name in asked["files"]]
        return {"createRunFiles": {"runID": asked["run"], "uploadHeaders": [], "files": files}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _told(self):
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.known.asked.append(self.path)
        while self.server.known.silent.is_set() and not self.server.known.ended.is_set():
            time.sleep(0.05)
        return raw

    def _reply(self, content):
        raw = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def do_POST(self):
        raw = self._told()
        known = self.server.known
        if not self.path.endswith("/graphql"):
            known.streamed.append((self.path, json.loads(raw)))
            return self._reply({})
        body = json.loads(raw)
        name = body.get("operationName") or re.search(r"(?:query|mutation)\s+(\w+)", body["query"])[1]
        known.asked[-1] = name
        return self._reply({"data": known.answer(name, body.get("variables") or {})})

    def do_PUT(self):
        self.server.known.uploads[self.path.removeprefix("/upload/")] = self._told()
        self._reply({})

    def do_GET(self):
        self._told()
        self._reply({})

    def log_message(self, *_):
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # a connection that is cut at a run's end


@contextmanager
def stand_in():
    server = _Server(("127.0.0.1", 0), _Handler)
    known = server.known = StandIn()
    known.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield known
    finally:
        known.ended.set()
        server.shutdown()
        server.server_close()
