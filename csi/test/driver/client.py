# SPDX-License-Identifier: Apache-2.0
"""A CSI client for tests, and the daemons of one node.

Messages come from the descriptors that protoc makes of csi/csi.proto and common/control.proto (CSI_DESCRIPTORS names
the file), so that nothing is generated.
"""

import os
import signal
import subprocess

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

BIN = os.environ["E2E_BIN"]
DIR = os.environ["E2E_DIR"]
DEADLINE = 60.0  # seconds; long, since what is tested is never how fast this machine is
CODE = grpc.StatusCode

READ_ONLY_MANY = {"mount": {}, "access_mode": {"mode": "MULTI_NODE_READER_ONLY"}}
READ_WRITE_MANY = {"mount": {}, "access_mode": {"mode": "MULTI_NODE_MULTI_WRITER"}}


def _read_descriptors():
    pool, methods = descriptor_pool.DescriptorPool(), {}
    files = descriptor_pb2.FileDescriptorSet()
    with open(os.environ["CSI_DESCRIPTORS"], "rb") as f:
        files.ParseFromString(f.read())
    for file in files.file:
        pool.Add(file)
        for service in file.service:
            for m in service.method:
                methods[m.name] = (
                    f"/{file.package}.{service.name}/{m.name}",
                    message_factory.GetMessageClass(pool.FindMessageTypeByName(m.input_type[1:])),
                    message_factory.GetMessageClass(pool.FindMessageTypeByName(m.output_type[1:])),
                )
    return methods


METHODS = _read_descriptors()


def encode(method, fields):
    return json_format.ParseDict(fields, METHODS[method][1]()).SerializeToString()


class Client:
    """One connection. call() gives the response or raises grpc.RpcError; code() gives (code, text)."""

    def __init__(self, path):
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        self.channel = grpc.insecure_channel("unix:" + path, options)

    def close(self):
        self.channel.close()

    def start(self, method, fields=None, timeout=DEADLINE, raw=None):
        """A call under way (a grpc future): result(), code(), details(), cancel()."""
        path, _, out = METHODS[method]
        stub = self.channel.unary_unary(path, lambda b: b, out.FromString)
        data = encode(method, fields or {}) if raw is None else raw
        return stub.future(data, timeout=timeout, wait_for_ready=True)

    def call(self, method, fields=None, timeout=DEADLINE):
        return self.start(method, fields, timeout).result()

    def stream(self, method, fields=None, timeout=DEADLINE):
        """The messages of a server's stream, as they come; cancel() ends it."""
        path, _, out = METHODS[method]
        return self.channel.unary_stream(path, lambda b: b, out.FromString)(
            encode(method, fields or {}), timeout=timeout, wait_for_ready=True)

    def code(self, method, fields=None, timeout=DEADLINE, raw=None):
        call = self.start(method, fields, timeout, raw)
        return call.code(), call.details()


class Daemon:
    """warpdrive-NAME, started until it says that it is ready."""

    def __init__(self, name, *arguments, log=None):
        self.log = log or f"{DIR}/run/{name}.log"
        os.makedirs(f"{DIR}/run", exist_ok=True)
        ready, tell = os.pipe()
        with open(self.log, "ab") as log_file:
            self.process = subprocess.Popen(
                [f"{BIN}/warpdrive-{name}", "--run-dir", f"{DIR}/run", *arguments, "--ready-fd", str(tell)],
                pass_fds=[tell], stdout=log_file, stderr=log_file)
        os.close(tell)
        is_ready = os.read(ready, 1)
        os.close(ready)
        if not is_ready:
            self.process.wait()
            raise RuntimeError(f"{name} did not start: {self.read_log()[-600:]}")

    @property
    def pid(self):
        return self.process.pid

    def read_log(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def send(self, number):
        self.process.send_signal(number)

    def end(self, number=signal.SIGTERM, timeout=60):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
