"""Questions whose words are embedded in one pass: each is answered as if it had come alone."""

import http.client
import io
import json
import socket
import threading
from urllib.parse import quote

import pytest
from PIL import Image

from fovea.indexer.switching.switch import switch_model
from fovea.web.app import create_app
from loopback import answering
from toys import NEW, TolerantEncoder, WideEncoder, described, lazily

PATIENCE_S = 60


class Gated(TolerantEncoder):
    """Embeds texts once it may, and never ``broken`` ones; notes each pass."""

    def __init__(self):
        super().__init__()
        self.passes, self.may = [], threading.Event()

    def encode_texts(self, texts):
        self.passes.append(list(texts))
        assert self.may.wait(PATIENCE_S)
        if "broken" in texts:
            raise RuntimeError("this text cannot be embedded")
        return super().encode_texts(texts)


def until(met):
    for _ in range(PATIENCE_S * 100):
        if met():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it has not come to that")


class Asking:
    """Asks in threads, so that one question is being embedded, and all others wait for it."""

    def __init__(self, encoder, ask):
        self.gate, self.lazy, self.ask = encoder, lazily(encoder), ask
        self.lazy._together._free = 1  # as on two cores
        self.threads, self.answers = [], {}

    def start(self, questions):
        for number, question in enumerate(questions):
            thread = threading.Thread(target=self._note, args=(question,), daemon=True)
            self.threads.append(thread)
            thread.start()
            if number:
                until(lambda count=number: len(self.lazy._together._waiting) == count)
            else:
                until(lambda: self.gate.passes)

    def _note(self, question):
        self.answers[question] = self.ask(question)

    def end(self):
        self.gate.may.set()
        for thread in self.threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
        assert self.lazy._together._free == 1 and not self.lazy._together._waiting
        return self.answers


@pytest.fixture
def asking(colour_library):
    """Asks an app by its test client."""

    def ask(question):
        return posed(made.app.test_client(), question)

    made = Asking(Gated(), ask)
    made.app = create_app(colour_library.folder, encoder_of=lambda row: made.lazy, testing=True)
    yield made
    made.app.extensions["fovea"].close()


def posed(client, question):
    """Ask; a question that ends in ``+`` and a colour also has a picture of it."""
    text, _, colour = question.partition(" + ")
    if not colour:
        return client.get("/api/search", query_string={"q": text})
    file = io.BytesIO()
    Image.new("RGB", (32, 24), colour).save(file, "PNG")
    file.seek(0)
    return client.post("/api/search", data={"q": text, "picture": (file, "one.png")})


def told(answer):
    found = dict(answer.json)
    return {name: found[name] for name in ("query", "model", "total", "order", "kind", "hits")}


def test_each_question_of_a_pass_is_answered_as_alone(asking, client):
    questions = [
        "a first one", "red", "blue in:photos", "lime -in:photos", "a cyan -yellow",
        "red name:blue", "blue sort:name", "magenta sort:date is:square", "lime like:3",
        "red + blue", "something + lime", "red in:photos + yellow",
    ]  # fmt: skip
    asking.start(questions)
    answers = asking.end()
    together = ["red", "blue", "lime", "a cyan", "yellow", "magenta", "something"]
    assert asking.gate.passes == [["a first one"], together]
    for question in questions:
        assert told(answers[question]) == told(posed(client, question)), question


def test_only_the_question_with_the_broken_text_fails(asking):
    asking.start(["first", "red", "broken", "blue", "red -broken"])
    answers = asking.end()
    assert answers["broken"].status_code == answers["red -broken"].status_code == 500
    for colour in ("red", "blue"):
        assert answers[colour].json["hits"][0]["name"] == f"{colour}.png"
    assert asking.ask("lime").json["hits"][0]["name"] == "lime.png"


def test_a_model_that_changes_meanwhile_answers_the_next_question(asking, colour_library):
    new = lazily(WideEncoder())
    new.identity, new.dim = NEW, WideEncoder.dim
    engine = asking.app.extensions["fovea"]
    engine._encoder_of = lambda row: new if row.identity == NEW else asking.lazy
    colours = ["cyan", "red", "blue"]
    asking.start(colours)
    switch_model(colour_library, model=described(NEW), load_encoder=WideEncoder, workers=1)
    assert asking.ask("lime").json["model"] == "model-d1", "it waits for none of the others"
    for colour, answer in asking.end().items():
        assert answer.json["model"] == "colour"
        assert answer.json["hits"][0]["name"] == f"{colour}.png"
    for colour in colours:
        again = asking.ask(colour).json
        assert again["model"] == "model-d1" and again["hits"][0]["name"] == f"{colour}.png"


@pytest.fixture
def served(asking):
    """The same app behind a server: its address, and its threads."""

    def ask(question):
        connection = http.client.HTTPConnection(*server.place, timeout=PATIENCE_S)
        connection.request("GET", f"/api/search?q={quote(question)}")
        answer = connection.getresponse()
        found = answer.status, json.load(answer)["hits"][0]["name"]
        connection.close()
        return found

    asking.ask = ask
    with answering(asking.app) as server:
        yield server
        asking.gate.may.set()


@pytest.mark.parametrize("place", [0, 1])
def test_clients_that_leave_hinder_no_other(asking, served, place):
    """Whether theirs is the question being embedded, or one of those that wait."""
    leaving = socket.create_connection(served.place, timeout=PATIENCE_S)
    asking.start(["cyan"][:place])
    leaving.sendall(b"GET /api/search?q=magenta HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    if place:
        until(lambda: len(asking.lazy._together._waiting) == 1)
    else:
        until(lambda: asking.gate.passes)
    [channel] = [
        one for one in list(served.active_channels.values()) if one.addr == leaving.getsockname()
    ]
    leaving.close()
    until(lambda: not channel.connected)
    waiting = len(asking.lazy._together._waiting)
    for number, colour in enumerate(("red", "blue"), waiting + 1):
        thread = threading.Thread(target=asking._note, args=(colour,), daemon=True)
        asking.threads.append(thread)
        thread.start()
        until(lambda count=number: len(asking.lazy._together._waiting) == count)
    answers = asking.end()
    assert answers == {name: (200, f"{name}.png") for name in (*["cyan"][:place], "red", "blue")}
    assert asking.ask("lime") == (200, "lime.png")


def test_a_server_that_stops_answers_what_is_being_embedded(asking, served):
    colours = ["cyan", "red", "blue"]
    asking.start(colours)
    stopping = threading.Thread(target=served.threads.shutdown, args=(True, PATIENCE_S))
    stopping.start()
    until(lambda: served.threads.stop_count)
    answers = asking.end()
    stopping.join(PATIENCE_S)
    assert answers == {colour: (200, f"{colour}.png") for colour in colours}
    assert not served.threads.threads
