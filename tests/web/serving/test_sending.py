"""How answers leave: headers with the body, and the main thread woken only where it is needed."""

import socket
import threading
from types import SimpleNamespace

import pytest
from flask import Flask, Response, request

from fovea.web.serving.connections import Channel
from loopback import answering
from worker_programs import until

LARGE = 24 << 20  # bytes, more than the system takes at once


@pytest.fixture
def app():
    made = Flask("sending")
    made.extensions["fovea.guard"] = lambda asked: None
    made.extensions["fovea.proxies"] = SimpleNamespace(unwrapped=lambda environ: environ)

    @made.get("/bytes/<int:count>")
    def some(count):
        return Response(b"x" * count)

    @made.get("/parts")
    def parts():
        return Response(iter([b"one ", b"two ", b"three"]))

    @made.get("/said")
    def said():
        return request.args["word"]

    return made


@pytest.fixture
def server(app):
    """A running server, its address in ``place``."""
    with answering(app) as made:
        yield made


@pytest.fixture
def sent(monkeypatch):
    """The bytes of each packet that is sent."""
    packets, send = [], Channel.send

    def noted(self, data, **options):
        packets.append(bytes(data))  # first: the client may have it before ``send`` returns
        return send(self, data, **options)

    monkeypatch.setattr(Channel, "send", noted)
    return packets


@pytest.fixture
def connection(server):
    with socket.create_connection(server.place, timeout=60) as made:
        with made.makefile("rb") as said:
            yield SimpleNamespace(send=made.sendall, said=said)


def ask(connection, path):
    connection.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())


def body(connection):
    """Read one answer."""
    assert connection.said.readline() == b"HTTP/1.1 200 OK\r\n"
    length, out = None, b""
    while row := connection.said.readline().strip():
        name, _, value = row.partition(b": ")
        length = int(value) if name.lower() == b"content-length" else length
    if length is not None:
        return connection.said.read(length)
    while size := int(connection.said.readline(), 16):
        out += connection.said.read(size)
        connection.said.readline()
    connection.said.readline()
    return out


def test_headers_and_a_short_body_are_one_packet(connection, sent):
    ask(connection, "/bytes/100")
    assert body(connection) == b"x" * 100
    assert len(sent) == 1 and sent[0].endswith(b"\r\n\r\n" + b"x" * 100)


@pytest.mark.parametrize("count", [0, 1, 100_000, LARGE])
def test_a_body_of_any_length_arrives_whole(connection, count):
    for _ in range(2):
        ask(connection, f"/bytes/{count}")
        assert body(connection) == b"x" * count


def test_a_body_in_parts_arrives_whole(connection):
    ask(connection, "/parts")
    assert body(connection) == b"one two three"


def test_requests_sent_at_once_are_answered_in_order(connection):
    words = [f"word{number}" for number in range(9)]
    said = (f"GET /said?word={word} HTTP/1.1\r\nHost: localhost\r\n\r\n" for word in words)
    connection.send("".join(said).encode())
    assert [body(connection).decode() for _ in words] == words
    ask(connection, "/said?word=later")
    assert body(connection) == b"later"


def test_the_main_thread_is_not_woken_by_an_answer_that_is_sent(server, connection, monkeypatch):
    woken, pull, pause = [], server.trigger.pull_trigger, threading.Event()
    monkeypatch.setattr(server.trigger, "pull_trigger", lambda: (woken.append(1), pull()))
    for number in range(20):
        ask(connection, f"/said?word={number}")
        assert body(connection).decode() == str(number)
        while any(channel.requests for channel in server.active_channels.values()):
            pause.wait(0.01)  # a request that comes before the last one's end needs the thread
    usual = len(woken)
    assert usual < 15  # of 20: on a busy machine it is now and then, never for each
    ask(connection, f"/bytes/{LARGE}")  # what the client is slow to take, the main thread sends
    until(lambda: len(woken) > usual)  # before the client takes any
    assert len(body(connection)) == LARGE


def test_a_connection_that_is_to_end_is_closed_at_once(server, connection):
    connection.send(b"GET /bytes/9 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert body(connection) == b"x" * 9
    assert connection.said.read() == b""
