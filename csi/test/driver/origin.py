# SPDX-License-Identifier: Apache-2.0
"""An S3 endpoint, a token service and a web server that do as they are told, in a thread of the test."""

import email.utils
import hashlib
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STS = """<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>
<AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{session}</SessionToken>
<Expiration>{end}</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        o, url = self.server.origin, urllib.parse.urlsplit(self.path)
        o.seen.append((self.command, self.path, self.headers.get("Authorization", "")))
        o.sessions.add(self.headers.get("x-amz-security-token"))
        if o.once:
            self.answer(*o.once.pop())
        elif o.answer:
            self.answer(*o.answer)
        elif o.moved:
            self.answer(302, Location=o.moved)
        elif o.keys is not None and not any(f"Credential={k}/" in o.seen[-1][2] for k in o.keys):
            self.answer(403, b"<?xml version='1.0'?><Error><Code>InvalidAccessKeyId</Code></Error>")
        elif "list-type=2" in url.query:
            self.list(o, urllib.parse.parse_qs(url.query).get("prefix", [""])[0])
        else:
            self.send_object(o, urllib.parse.unquote(url.path))

    do_HEAD = do_GET

    def list(self, o, prefix):
        entries = "".join(
            f"<Contents><Key>{k}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>\"{hashlib.md5(v).hexdigest()}\"</ETag><Size>{len(v)}</Size></Contents>"
            for k, v in sorted(o.objects.items()) if k.startswith(prefix))
        self.answer(200, (f"<?xml version='1.0'?><ListBucketResult><IsTruncated>false</IsTruncated>{entries}"
                          "</ListBucketResult>").encode())

    def send_object(self, o, path):
        content = o.objects.get(path.removeprefix("/bucket/"))
        if content is None:
            return self.answer(404, b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>")
        headers = {"ETag": f'"{hashlib.md5(content).hexdigest()}"',
                   "Last_Modified": email.utils.formatdate(1767225600, usegmt=True)}
        wanted = self.headers.get("Range")
        if not wanted:
            return self.answer(200, content, **headers)
        first, last = (int(n) for n in wanted.removeprefix("bytes=").split("-"))
        last = min(last, len(content) - 1)
        return self.answer(206, content[first:last + 1],
                           Content_Range=f"bytes {first}-{last}/{len(content)}", **headers)

    def do_POST(self):
        o = self.server.origin
        form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        if form.get("WebIdentityToken", [""])[0] not in o.tokens:
            return self.answer(400, b"<ErrorResponse><Error><Code>InvalidIdentityToken</Code></Error></ErrorResponse>")
        key, secret, session = o.tokens[form["WebIdentityToken"][0]]
        end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        return self.answer(200, STS.format(key=key, secret=secret, session=session, end=end).encode())


class Origin:
    """s3://bucket at `endpoint`. keys: the access keys that are let in (None: everybody); answer: (status, body) to
    whatever is asked, and once: to so many requests; moved: where every GET is sent; tokens: what the token service gives out keys for."""

    def __init__(self, objects, port=0):
        self.objects, self.keys, self.answer, self.moved, self.tokens, self.seen = objects, None, None, None, {}, []
        self.sessions, self.once = set(), []
        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.server.origin = self
        self.port = self.server.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
