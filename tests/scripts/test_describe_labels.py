"""scripts/describe_labels.py against a server of chat completions on this machine."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import describe_labels
import pytest

from ramctl.engine.label_rows import read_words


class Chat(BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, self.headers.get("Authorization"), asked))
        status, headers, body = 200, {}, None
        if self.server.failures:
            status, headers = self.server.failures.pop(0)
        elif self.server.broken_at and self.server.broken_at in asked["messages"][0]["content"]:
            status, body = 401, {"error": "no such key"}
        n = min(asked["n"], self.server.at_most)
        number = len(self.server.asked)
        choices = [{"message": {"content": f" answer {number}.{i}\n"}} for i in range(n)]
        content = json.dumps(body or {"choices": choices}).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def chat():
    server = HTTPServer(("127.0.0.1", 0), Chat)
    server.asked, server.failures, server.broken_at, server.at_most = [], [], "", 10
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def run(chat, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    labels, output = tmp_path / "labels.txt", tmp_path / "descriptions.json"
    labels.write_text("ibex\nharp\nibex\n")

    def go(*more):
        arguments = [str(labels), "-o", str(output), "--model", "m", "--endpoint", chat.url]
        return describe_labels.main([*arguments, *more]), output

    return go


def test_descriptions_have_the_published_form_and_are_read_as_labels(run, chat):
    code, output = run("--answers", "2")
    assert code == 0
    first, second = json.loads(output.read_text())
    assert list(first) == ["ibex"]
    assert list(second) == ["harp"]
    assert first["ibex"][:3] == ["a photo of a ibex.", "answer 1.0", "answer 1.1"]
    assert len(first["ibex"]) == 11
    assert [asked["messages"][0]["content"] for _, _, asked in chat.asked[:5]] == [
        "Describe concisely what a(n) ibex looks like:",
        "How can you identify a(n) ibex concisely?",
        "What does a(n) ibex look like concisely?",
        "What are the identifying characteristics of a(n) ibex:",
        "Please provide a concise description of the visual characteristics of ibex:",
    ]
    path, key, asked = chat.asked[0]
    assert (path, key) == ("/v1/chat/completions", "Bearer sk-1")
    assert {asked[name] for name in ("temperature", "max_tokens", "n")} == {0.99, 77, 2}
    system = read_words(str(output))
    assert system.tags == ["ibex", "harp"]
    assert system[0].descriptions == tuple(first["ibex"])
    assert not output.with_name("descriptions.json.done").exists()


def test_a_run_that_failed_goes_on_behind_the_finished_labels(run, chat, capsys):
    chat.broken_at = "harp"
    code, output = run("--answers", "1")
    assert (code, output.exists()) == (1, False)
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"describe_labels: {chat.url}: 401 no such key"
    with output.with_name("descriptions.json.done").open("a") as part:
        part.write('{"harp": ["cut o')  # as a kill in mid-line leaves it
    chat.broken_at, before = "", len(chat.asked)
    assert run("--answers", "1")[0] == 0
    assert all("harp" in asked["messages"][0]["content"] for _, _, asked in chat.asked[before:])
    described = json.loads(output.read_text())
    assert [len(texts) for row in described for texts in row.values()] == [6, 6]


def test_a_busy_server_and_one_that_gives_single_answers_are_asked_again(run, chat):
    chat.failures = [(429, {"Retry-After": "0"}), (503, {"Retry-After": "0"})]
    chat.at_most = 1
    code, output = run("--answers", "3")
    assert code == 0
    texts = json.loads(output.read_text())[0]["ibex"]
    assert len(texts) == len(set(texts)) == 16
    assert [asked["n"] for _, _, asked in chat.asked[:5]] == [3, 3, 3, 2, 1]


def test_an_endpoint_that_is_no_such_server_is_one_line(run, chat, capsys):
    chat.at_most = 0
    assert run()[0] == 1
    assert f"describe_labels: {chat.url}: not a chat completion" in capsys.readouterr().err
