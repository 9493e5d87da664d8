# SPDX-License-Identifier: Apache-2.0
"""/metrics of the driver: what Prometheus gets, and what it must bear from anybody else."""

import re
import shutil
import socket
import subprocess
import unittest
import urllib.error
import urllib.request

from client import DIR, Client, Daemon

SOCKET = f"{DIR}/csi-metrics.sock"
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class MetricsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.port = free_port()
        cls.csi = Daemon("csi", "--endpoint", SOCKET, "--service", "controller", "--metrics-listen", f"127.0.0.1:{cls.port}")
        cls.client = Client(SOCKET)

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        assert cls.csi.end() == 0

    def scrape(self, path="/metrics"):
        return opener.open(f"http://127.0.0.1:{self.port}{path}", timeout=60).read().decode()

    def count(self, method, code):
        found = re.search(rf'^warpdrive_rpc_seconds_count{{method="csi.v1.{method}",code="{code}"}} (\d+)$', self.scrape(), re.M)
        return int(found[1]) if found else 0

    def test_calls_are_counted_by_method_and_code(self):
        before = self.count("Identity/GetPluginInfo", "OK")
        self.client.call("GetPluginInfo")
        self.client.call("GetPluginInfo")
        self.assertEqual(self.count("Identity/GetPluginInfo", "OK"), before + 2)
        self.client.code("CreateVolume", {"name": "x"})
        self.assertEqual(self.count("Controller/CreateVolume", "INVALID_ARGUMENT"), 1)
        self.assertEqual(self.count("Controller/CreateVolume", "OK"), 0)

    def test_a_volumes_name_is_in_no_label(self):
        self.client.code("DeleteVolume", {"volume_id": "a-name-that-nobody-else-has"})
        self.assertNotIn("a-name-that-nobody-else-has", self.scrape())

    @unittest.skipUnless(shutil.which("promtool"), "no promtool on PATH")
    def test_promtool_has_nothing_to_say(self):
        self.client.call("GetPluginInfo")
        said = subprocess.run(["promtool", "check", "metrics"], input=self.scrape(), text=True, capture_output=True)
        self.assertEqual((said.returncode, said.stdout + said.stderr), (0, ""))

    def test_nothing_else_is_there(self):
        for path in ("/", "/metrics/x", "/metricsx"):
            with self.assertRaises(urllib.error.HTTPError) as e:
                self.scrape(path)
            self.assertEqual(e.exception.code, 404)

    def test_who_says_nothing_or_too_much_keeps_nobody_out_for_long(self):
        silent = socket.create_connection(("127.0.0.1", self.port))
        loud = socket.create_connection(("127.0.0.1", self.port))
        loud.sendall(b"GET /metrics " + b"x" * 8179)
        self.assertIn("warpdrive_rpc_seconds", self.scrape())
        self.assertEqual(silent.recv(1), b"")  # it was left
        silent.close()
        loud.close()


class ListenTest(unittest.TestCase):
    def test_an_address_that_is_none_is_refused_in_one_line(self):
        for address in ("9842", "localhost:9842", "127.0.0.1:", "[::1:9842", "127.0.0.1:http"):
            with self.assertRaises(RuntimeError) as e:
                Daemon("csi", "--endpoint", f"{DIR}/none.sock", "--service", "controller", "--metrics-listen", address,
                       log=f"{DIR}/none.txt")
            self.assertIn(f"metrics-listen '{address}'", str(e.exception))
