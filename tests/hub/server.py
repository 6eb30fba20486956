"""A hub on loopback: the part of the API that huggingface_hub 2.4.0 and ownlm use, with faults on demand."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.hub.state import TOKEN, Hub, Repository, Request, git_hash, is_large


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes; the second would wait for 40 ms
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.hub.requests.append(Request(self.command, path, headers, body))
        for pattern, status, extra in self.hub.status:
            if re.search(pattern, path):
                return self._send(status, {"error": "said by the test"}, extra)
        for pattern, method in self.ROUTES:
            if found := re.fullmatch(pattern, path):
                return method(self, *found.groups(), body=body)
        return self._send(404, {"error": "no such route"})

    do_GET = do_HEAD = do_POST = do_PUT = _handle

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        self._bytes(
            status, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})}
        )

    def _bytes(self, status: int, data: bytes, headers: dict[str, str], name: str = "") -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if name in self.hub.cut and self.hub.cuts > 0:
            self.hub.cuts -= 1
            self.wfile.write(data[: self.hub.cut[name]])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        else:
            self.wfile.write(data)

    # ---- reading

    def _find(self, name: str, revision: str, for_file: bool = False) -> tuple[Repository, str] | None:
        """The repository and commit, else the hub's answer to who may not or asks in vain."""
        repository = self.hub.repositories.get(name)
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repository is None or (repository.private and not known):
            self._send(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif repository.gated and for_file and not known:
            self._send(401, {"error": "Access is restricted"}, {"X-Error-Code": "GatedRepo"})
        elif (commit := repository.find(revision)) is None:
            self._send(404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"})
        else:
            return repository, commit
        return None

    def info(self, name: str, revision: str | None, body: bytes) -> None:
        if name in self.hub.aliases:
            rest = f"/revision/{revision}" if revision else ""
            place = f"/api/models/{self.hub.aliases[name]}{rest}?{urlsplit(self.path).query}"
            return self._send(307, {}, {"Location": place})
        if found := self._find(name, revision or "main"):
            repository, commit = found
            rows = [self._row(file, data) for file, data in repository.commits[commit].items()]
            answer = {
                "id": name,
                "sha": commit,
                "private": repository.private,
                "siblings": rows,
                "cardData": {"license": repository.licence},
            }
            self._send(200, answer)

    def _row(self, name: str, data: bytes) -> dict[str, Any]:
        row: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": git_hash(data)}
        if is_large(name):
            row["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        return row | self.hub.listed.get(name, {})

    def tree(self, name: str, revision: str, body: bytes) -> None:
        if found := self._find(name, revision):
            rows = []
            for file, data in found[0].commits[found[1]].items():
                row = {"type": "file", "path": file, "size": len(data), "oid": git_hash(data)}
                if is_large(file):
                    oid = hashlib.sha256(data).hexdigest()
                    row["lfs"] = {"oid": oid, "size": len(data), "pointerSize": 134}  # type: ignore[assignment]
                rows.append(row)
            self._send(200, rows)

    def resolve(self, name: str, revision: str, file: str, body: bytes) -> None:
        found = self._find(self.hub.aliases.get(name, name), revision, for_file=True)
        if not found:
            return None
        data = found[0].commits[found[1]].get(file)
        if data is None:
            return self._send(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        if not is_large(file):
            etag = {"ETag": f'"{git_hash(data)}"', "X-Repo-Commit": found[1]}
            return self._content(file, self.hub.replaced.get(file, data), etag)
        oid = hashlib.sha256(data).hexdigest()
        self.hub.objects[oid] = self.hub.replaced.get(file, data)
        # Another host name: what the hub calls its CDN. A token must not go there.
        place = self.hub.endpoint.replace("127.0.0.1", "localhost") + f"/cdn/{oid}/{file}"
        linked = {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(data)), "X-Repo-Commit": found[1]}
        return self._send(302, {}, {"Location": place, **linked})

    def cdn(self, oid: str, file: str, body: bytes) -> None:
        self._content(file, self.hub.objects[oid], {"ETag": f'"{oid}"'})

    def _content(self, file: str, data: bytes, headers: dict[str, str]) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not asked or not self.hub.ranges:
            return self._bytes(200, data, headers, file)
        start = int(asked[1])
        if start >= len(data):
            return self._send(416, {"error": "no such range"}, {"Content-Range": f"bytes */{len(data)}"})
        part = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        return self._bytes(206, data[start:], headers | part, file)

    # ---- writing

    def whoami(self, body: bytes) -> None:
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        self._send(200 if known else 401, {"name": "tester"} if known else {"error": "Invalid token"})

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
        there = name in self.hub.repositories
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.hub.repositories.setdefault(name, Repository(private=private))
        if not there:
            self.hub.repositories[name].commit({".gitattributes": b"*.safetensors filter=lfs\n"})
        self._send(409 if there else 200, {"url": f"{self.hub.endpoint}/{name}"})

    def validate(self, body: bytes) -> None:
        self._send(200, {"errors": [], "warnings": []})

    def preupload(self, name: str, body: bytes) -> None:
        rows = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if is_large(file["path"]) else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        self._send(200, {"files": rows})

    def batch(self, name: str, body: bytes) -> None:
        rows = [
            {**wanted, "actions": {"upload": {"href": f"{self.hub.endpoint}/lfs/{wanted['oid']}"}}}
            for wanted in json.loads(body)["objects"]
        ]
        self._send(200, {"objects": rows, "transfer": "basic"})

    def lfs(self, oid: str, body: bytes) -> None:
        good = hashlib.sha256(body).hexdigest() == oid
        if good:
            self.hub.objects[oid] = body
        self._send(200 if good else 400, {})

    def new_commit(self, name: str, body: bytes) -> None:
        repository = self.hub.repositories[name]
        files = dict(repository.commits[repository.refs["main"]])
        for line in body.splitlines():
            row = json.loads(line)
            value = row["value"]
            if row["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif row["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        commit = repository.commit(files)
        self._send(200, {"commitUrl": f"{self.hub.endpoint}/{name}/commit/{commit}", "commitOid": commit})

    NAME = r"([^/]+(?:/[^/]+)?)"
    ROUTES = (
        (r"/api/whoami-v2", whoami),
        (r"/api/repos/create", create),
        (r"/api/validate-yaml", validate),
        (rf"/api/models/{NAME}/preupload/main", preupload),
        (rf"/api/models/{NAME}/commit/main", new_commit),
        (rf"/api/models/{NAME}/tree/(.+)", tree),
        (rf"/api/models/{NAME}/revision/(.+)", info),
        (rf"/api/models/{NAME}()", info),
        (rf"/{NAME}\.git/info/lfs/objects/batch", batch),
        (r"/lfs/([0-9a-f]{64})", lfs),
        (r"/cdn/([0-9a-f]{64})/(.+)", cdn),
        (rf"/{NAME}/resolve/([^/]+)/(.+)", resolve),
    )


@contextmanager
def serve() -> Iterator[Hub]:
    """A running hub."""
    hub = Hub()
    handler = type("TheHandler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def silent_port() -> Iterator[str]:
    """The address of a port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def closed_port() -> str:
    """The address of a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"http://127.0.0.1:{port}"
