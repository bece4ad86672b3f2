"""Cases between the client and the server of the library `websockets`.

Each says what the other side has to see; run direct they hold by the library's own making,
run through Tidegate they hold only if it changes nothing.
"""

import asyncio
import contextlib
import inspect
import random

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, InvalidStatus, NegotiationError
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import CloseCode


@contextlib.asynccontextmanager
async def pair(handler, client: dict | None = None, path: str = "/", **server):
    """A server on a free port and a client connected to it."""
    async with serve(handler, "127.0.0.1", 0, **server) as running:
        port = running.sockets[0].getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}{path}", proxy=None, **(client or {})) as one:
            yield one


async def echo(websocket):
    async for message in websocket:
        await websocket.send(message)


def in_loop(test):
    """An async test without another plugin."""

    def run(**arguments):
        asyncio.run(test(**arguments))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    if hasattr(test, "pytestmark"):
        run.pytestmark = test.pytestmark
    run.__signature__ = inspect.signature(test)
    return run


_SIZES = [0, 1, 125, 126, 127, 65535, 65536, 100_000, 1_000_000]


@in_loop
@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("size", _SIZES)
async def test_binary_messages_of_every_length_form(size, compression):
    payload = random.Random(size).randbytes(size)
    options = {"compression": compression}
    async with pair(echo, options, max_size=None, **options) as client:
        await client.send(payload)
        assert await client.recv() == payload


@in_loop
@pytest.mark.parametrize("text", ["", "a", "äöü€𝄞", "\0", "x" * 70_000])
async def test_text_messages(text):
    async with pair(echo) as client:
        await client.send(text)
        assert await client.recv() == text


@in_loop
async def test_a_message_in_fragments_arrives_in_the_same_fragments():
    seen = []

    async def collect(websocket):
        async for fragment in websocket.recv_streaming():
            seen.append(fragment)
        await websocket.send("done")

    async with pair(collect, {"compression": None}, compression=None) as client:
        await client.send(["one", "", "two", "three"])
        assert await client.recv() == "done"
    assert "".join(seen) == "onetwothree" and seen[0] == "one", seen


@in_loop
async def test_control_frames_between_fragments():
    async def slowly():
        yield b"a"
        await asyncio.sleep(0)
        yield b"b"

    async with pair(echo) as client:
        sending = asyncio.ensure_future(client.send(slowly()))
        pong = await client.ping(b"between")
        await pong
        await sending
        assert await client.recv() == b"ab"


@in_loop
@pytest.mark.parametrize("data", [b"", b"x", b"y" * 125])
async def test_pings_of_the_client_are_answered_with_their_data(data):
    async with pair(echo) as client:
        latency = await (await client.ping(data))
        assert latency >= 0


@in_loop
async def test_pings_of_the_server_are_answered():
    async def ping(websocket):
        await (await websocket.ping(b"server"))
        await websocket.send("ponged")

    async with pair(ping) as client:
        assert await client.recv() == "ponged"


_CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999,
          4000, 4999]


@in_loop
@pytest.mark.parametrize("reason", ["", "why", "r" * 123])
@pytest.mark.parametrize("code", _CODES)
async def test_the_client_sees_the_servers_code_and_reason(code, reason):
    async def close(websocket):
        await websocket.close(code, reason)

    async with pair(close) as client:
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert (client.close_code, client.close_reason) == (code, reason)


@in_loop
@pytest.mark.parametrize("code", _CODES)
async def test_the_server_sees_the_clients_code_and_reason(code):
    seen = asyncio.Queue()

    async def wait(websocket):
        await websocket.wait_closed()
        await seen.put((websocket.close_code, websocket.close_reason))

    async with pair(wait) as client:
        await client.close(code, "gone")
        assert await asyncio.wait_for(seen.get(), 5) == (code, "gone")


@in_loop
async def test_a_connection_that_breaks_is_seen_by_the_other_side():
    seen = asyncio.Queue()

    async def wait(websocket):
        await websocket.wait_closed()
        await seen.put(websocket.close_code)

    async with pair(wait) as client:
        client.transport.abort()
        assert await asyncio.wait_for(seen.get(), 5) == CloseCode.ABNORMAL_CLOSURE


@in_loop
async def test_a_server_that_breaks_is_seen_by_the_client():
    async def abort(websocket):
        websocket.transport.abort()

    async with pair(abort) as client:
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == CloseCode.ABNORMAL_CLOSURE


@in_loop
async def test_the_subprotocol_is_negotiated():
    async with pair(echo, {"subprotocols": ["one", "two"]}, subprotocols=["two"]) as client:
        assert client.subprotocol == "two"


@in_loop
async def test_without_a_common_subprotocol_the_server_refuses():
    with pytest.raises((InvalidStatus, NegotiationError)):
        async with pair(echo, {"subprotocols": ["one"]}, subprotocols=["two"]):
            pass


@in_loop
@pytest.mark.parametrize("bits", [9, 12, 15])
async def test_compression_parameters_are_negotiated(bits):
    factory = ClientPerMessageDeflateFactory(
        server_no_context_takeover=True, client_no_context_takeover=True,
        server_max_window_bits=bits, client_max_window_bits=bits)
    async with pair(echo, {"extensions": [factory]}) as client:
        names = [extension.name for extension in client.protocol.extensions]
        assert names == ["permessage-deflate"]
        for message in ("the same text " * 500, "and another " * 500):
            await client.send(message)
            assert await client.recv() == message


@in_loop
async def test_headers_path_and_query_reach_the_server_and_its_headers_the_client():
    async def tell(websocket):
        request = websocket.request
        await websocket.send(f"{request.path} {request.headers['X-Mine']}")

    def add(_connection, _request, response):
        response.headers["X-Yours"] = "server"

    options = {"additional_headers": {"X-Mine": "client"}}
    async with pair(tell, options, "/a/b%20c?q=1&q=2", process_response=add) as client:
        assert await client.recv() == "/a/b%20c?q=1&q=2 client"
        assert client.response.headers["X-Yours"] == "server"


@in_loop
@pytest.mark.parametrize("status", [400, 401, 403, 404, 426, 500, 503])
async def test_a_refusal_reaches_the_client(status):
    def refuse(connection, _request):
        return connection.respond(status, "no\n")

    with pytest.raises(InvalidStatus) as refused:
        async with pair(echo, process_request=refuse):
            pass
    assert refused.value.response.status_code == status


@in_loop
async def test_the_server_may_speak_first():
    async def greet(websocket):
        await websocket.send("hello")
        await websocket.wait_closed()

    async with pair(greet) as client:
        assert await client.recv() == "hello"


@in_loop
async def test_both_sides_send_at_the_same_time():
    count = 2000

    async def send_and_receive(websocket):
        async def send():
            for i in range(count):
                await websocket.send(f"message {i}")

        sending = asyncio.ensure_future(send())
        got = [await websocket.recv() for _ in range(count)]
        await sending
        return got

    seen = asyncio.Queue()

    async def handler(websocket):
        await seen.put(await send_and_receive(websocket))
        await websocket.wait_closed()

    async with pair(handler) as client:
        expected = [f"message {i}" for i in range(count)]
        assert await send_and_receive(client) == expected
        assert await asyncio.wait_for(seen.get(), 20) == expected


@in_loop
async def test_a_slow_reader_holds_the_writer_back_and_loses_nothing():
    count, payload = 64, b"x" * 250_000

    async def pour(websocket):
        for _ in range(count):
            await websocket.send(payload)

    options = {"max_queue": 1, "compression": None}
    async with pair(pour, options, compression=None, write_limit=1024) as client:
        await asyncio.sleep(0.2)
        for _ in range(count):
            assert len(await client.recv()) == len(payload)


@in_loop
async def test_many_connections_do_not_meet_each_other():
    async with serve(echo, "127.0.0.1", 0) as running:
        port = running.sockets[0].getsockname()[1]

        async def one(i):
            async with connect(f"ws://127.0.0.1:{port}/", proxy=None) as client:
                for j in range(20):
                    await client.send(f"{i} {j}")
                    assert await client.recv() == f"{i} {j}"

        await asyncio.gather(*(one(i) for i in range(50)))


@in_loop
@pytest.mark.parametrize("frame", [
    b"\x83\x80\0\0\0\0",  # an opcode that does not exist
    b"\xf1\x80\0\0\0\0",  # reserved bits
    b"\x89\xfe\0\x7e\0\0\0\0" + b"x" * 126,  # a ping that is too long
    b"\x09\x80\0\0\0\0",  # a ping in fragments
    b"\x80\x80\0\0\0\0",  # a continuation of nothing
    b"\x81\x81\0\0\0\0\xff",  # text that is not UTF-8
    b"\x88\x81\0\0\0\0x",  # a close of one byte
    b"\x81\x01x",  # not masked
])
async def test_broken_frames_reach_the_server_and_its_verdict_the_client(frame):
    seen = asyncio.Queue()

    async def wait(websocket):
        with contextlib.suppress(ConnectionClosed):
            async for _ in websocket:
                pass
        await websocket.wait_closed()
        await seen.put(websocket.protocol.close_sent.code)

    async with pair(wait, {"compression": None}, compression=None) as client:
        client.transport.write(frame)
        code = await asyncio.wait_for(seen.get(), 5)
        assert code in (1002, 1007), code
        await client.wait_closed()
        assert client.protocol.close_rcvd.code == code
