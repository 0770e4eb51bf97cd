"""Tests of the page's server: python3 -m unittest, in this folder. Real sockets, an API that answers as told."""

import http.client
import json
import re
import threading
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import server

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
VIDEO = {"id": "1", "name": "</script><script>alert(1)</script>", "state": "ready", "renditions": []}


class Api(ThreadingHTTPServer):
    """Answers every request the same way and remembers it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ApiHandler)
        self.status, self.body = 200, {"videos": [VIDEO], "next_before": None}
        self.seen: list[tuple[str, dict[str, str]]] = []


class ApiHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.seen.append((self.path, dict(self.headers)))
        body = json.dumps(self.server.body).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class Page(unittest.TestCase):
    def setUp(self) -> None:
        self.api = self.serve(Api())
        self.web = self.serve(server.Server(0, f"http://127.0.0.1:{self.api.server_address[1]}"))

    def serve(self, running):
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.addCleanup(running.server_close)
        self.addCleanup(running.shutdown)
        return running

    def get(self, path: str, headers: dict[str, str] | None = None, method: str = "GET"):
        connection = http.client.HTTPConnection("127.0.0.1", self.web.server_address[1], timeout=5)
        self.addCleanup(connection.close)
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        return answer, answer.read().decode()

    def first(self, page: str):
        return json.loads(re.search(r'id="first">(.*?)</script>', page, re.S)[1])

    def test_the_first_list_is_in_the_page_and_cannot_break_out_of_it(self) -> None:
        answer, page = self.get("/", {"Palisade-User": "Ada <b>"})
        self.assertEqual((answer.status, answer.headers["Cache-Control"]), (200, "no-store"))
        self.assertEqual(self.first(page)["videos"], [VIDEO])
        self.assertNotIn("alert(1)</script>", page)
        self.assertIn("Ada &lt;b&gt;", page)
        self.assertNotIn("{{", page)

    def test_a_name_that_looks_like_a_field_stays_a_name(self) -> None:
        _, page = self.get("/", {"Palisade-User": "{{first}}"})
        self.assertEqual(page.count("{{first}}"), 1)
        self.assertEqual(len(self.first(page)["videos"]), 1)

    def test_token_and_trace_go_along_and_nothing_else_does(self) -> None:
        self.get("/", {"Txn-Token": "opaque", "traceparent": TRACE, "Cookie": "session=1", "Palisade-User": "ada"})
        path, headers = self.api.seen[0]
        self.assertTrue(path.startswith("/api/videos?limit="))
        self.assertEqual((headers["Txn-Token"], headers["traceparent"]), ("opaque", TRACE))
        self.assertNotIn("Cookie", headers)
        self.assertNotIn("Palisade-User", headers)

    def test_who_is_not_signed_in_is_sent_there(self) -> None:
        self.api.status = 401
        answer, _ = self.get("/")
        self.assertEqual((answer.status, answer.headers["Location"]), (302, "/auth/login?return=/"))

    def test_an_api_in_trouble_leaves_a_page_that_says_so(self) -> None:
        self.api.status, self.api.body = 503, {"error": "No store.", "hint": "Wait."}
        _, page = self.get("/")
        self.assertEqual((self.first(page)["error"], self.first(page)["hint"]), ("No store.", "Wait."))
        self.web.api_url = "http://127.0.0.1:1"
        answer, page = self.get("/")
        self.assertEqual(answer.status, 200)
        self.assertIn("cannot be listed", self.first(page)["error"])

    def test_files_come_with_a_tag_and_are_not_sent_twice(self) -> None:
        for path, media_type in [("/static/app.js", "text/javascript"), ("/static/app.css", "text/css"), ("/static/mark.svg", "image/svg+xml")]:
            answer, body = self.get(path)
            self.assertEqual(answer.status, 200)
            self.assertTrue(answer.headers["Content-Type"].startswith(media_type) and body)
            again, nothing = self.get(path, {"If-None-Match": f'W/"other", {answer.headers["ETag"]}'})
            self.assertEqual((again.status, nothing), (304, ""))

    def test_nothing_in_the_page_needs_more_than_its_own_origin(self) -> None:
        _, page = self.get("/")
        self.assertIsNone(re.search(r"\son\w+=|\sstyle=|https?://|<style", page))
        for script in re.findall(r"<script[^>]*>", page):
            self.assertTrue("src=" in script or 'type="application/json"' in script, script)
        _, style = self.get("/static/app.css")
        self.assertNotIn("url(", style)

    def test_health_unknown_paths_head_and_other_methods(self) -> None:
        self.assertEqual(self.get("/healthz")[0].status, 200)
        for path in ("/nothing", "/static/../server.py", "/static/page.html", "/server.py"):
            self.assertEqual(self.get(path)[0].status, 404, path)
        answer, body = self.get("/static/app.js", method="HEAD")
        self.assertEqual((answer.status, body), (200, ""))
        self.assertGreater(int(answer.headers["Content-Length"]), 1000)
        self.assertEqual(self.get("/", method="POST")[0].status, 501)


if __name__ == "__main__":
    unittest.main()
