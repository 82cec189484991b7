"""What goes wrong on the wire, for each backend and way: each failure in its class, in time."""

import asyncio
import logging
import pickle
import socket
import ssl
import time
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import trustme
from conftest import Make
from ways import PROMPT, Ask, each_backend, each_stream, each_way, each_whole

from arawn_llm import errors
from arawn_llm.testing import KEY, Fault, Simulator

Serve = Callable[..., Simulator]
NAMES = {"anthropic": "Anthropic", "openai": "OpenAI", "groq": "Groq", "ollama": "Ollama"}
ONCE = "retry_max = 0"

STATUSES = [
    pytest.param(400, errors.InvalidRequestError, id="400"),
    pytest.param(401, errors.AuthenticationError, id="401"),
    pytest.param(403, errors.AuthenticationError, id="403"),
    pytest.param(404, errors.ModelNotAvailableError, id="404"),
    pytest.param(413, errors.InvalidRequestError, id="413"),
    pytest.param(429, errors.RateLimitError, id="429"),
    pytest.param(500, errors.BackendServerError, id="500"),
    pytest.param(502, errors.BackendServerError, id="502"),
    pytest.param(503, errors.BackendServerError, id="503"),
    pytest.param(529, errors.BackendServerError, id="529"),
]


def shown(error: BaseException) -> str:
    frames = traceback.TracebackException.from_exception(error, capture_locals=False)
    return str(error) + repr(error) + repr(vars(error)) + "".join(frames.format())


@each_backend
@each_way
@pytest.mark.parametrize(("status", "kind"), STATUSES)
def test_a_status_becomes_its_error(
    serve: Serve, make: Make, name: str, ask: Ask, status: int, kind: type[errors.BackendError]
) -> None:
    server = serve(name)
    server.script(Fault(status=status, message=f"no: {PROMPT} {KEY}"))
    with pytest.raises(errors.BackendError) as caught:
        ask(make(name, server, ONCE))
    error = caught.value
    assert type(error) is kind and error.status_code == status and error.hints and error.__cause__
    assert (error.backend, error.model, error.profile) == (name, "some-model", "default")
    assert error.request_id == "req_simulated"
    assert KEY not in shown(error) and PROMPT not in str(error) + repr(vars(error))
    assert KEY.encode() not in pickle.dumps(error)
    response = getattr(error.__cause__, "response", None)
    assert response is None or KEY not in response.text
    assert type(pickle.loads(pickle.dumps(error))) is kind


@each_backend
@each_way
def test_an_unknown_model_is_named(serve: Serve, make: Make, name: str, ask: Ask) -> None:
    with pytest.raises(errors.ModelNotAvailableError) as caught:
        ask(make(name, serve(name, models=["another"])))
    assert str(caught.value) == 'Model "some-model" not available'


@each_backend
@each_way
def test_a_refused_key_is_said_exactly(serve: Serve, make: Make, name: str, ask: Ask) -> None:
    server = serve(name, key="the-only-key")
    with pytest.raises(errors.AuthenticationError) as caught:
        ask(make(name, server.base_url))
    assert str(caught.value) == f'Authentication failed for backend "{name}"'
    assert "the configuration file" in caught.value.hints[0] and len(server.requests) == 1


@each_backend
@each_way
def test_a_prompt_too_long_for_the_model_is_a_context_window_error(
    serve: Serve, make: Make, name: str, ask: Ask
) -> None:
    server = serve(name)
    server.script(Fault("overflow"))
    with pytest.raises(errors.ContextWindowError) as caught:
        ask(make(name, server))
    assert caught.value.status_code == 400 and len(server.requests) == 1


@each_backend
@each_way
def test_a_passing_failure_is_tried_again_and_retry_after_kept(
    serve: Serve, make: Make, name: str, ask: Ask
) -> None:
    server = serve(name)
    server.script(Fault(status=503), Fault(status=429, headers={"retry-after": "0"}))
    assert ask(make(name, server)).text
    assert len(server.requests) == 3


@each_backend
@each_whole
def test_what_fails_for_good_is_tried_once(serve: Serve, make: Make, name: str, ask: Ask) -> None:
    server = serve(name)
    server.script(Fault(status=400))
    with pytest.raises(errors.InvalidRequestError):
        ask(make(name, server))
    assert len(server.requests) == 1


@each_backend
@each_way
def test_a_long_retry_after_is_left_to_the_caller(serve: Serve, make: Make, name: str, ask: Ask) -> None:
    server = serve(name)
    server.script(Fault(status=429, headers={"retry-after": "3600"}))
    with pytest.raises(errors.RateLimitError) as caught:
        ask(make(name, server))
    assert (caught.value.retry_after, len(server.requests)) == (3600.0, 1)


def test_retry_after_may_be_a_date(serve: Serve, make: Make) -> None:
    server = serve("openai")
    server.script(Fault(status=429, headers={"retry-after": "Fri, 31 Dec 2100 23:59:59 GMT"}))
    with pytest.raises(errors.RateLimitError) as caught:
        make("openai", server).complete(PROMPT)
    assert (caught.value.retry_after or 0) > 1e9


@each_backend
@each_way
def test_a_refused_connection_names_the_address(make: Make, name: str, ask: Ask) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(errors.BackendConnectionError) as caught:
            ask(make(name, url, ONCE))
    assert str(caught.value) == f"Cannot connect to {NAMES.get(name, 'the custom server')} at {url}"


@each_backend
@each_way
def test_an_unknown_host_is_a_connection_error(
    make: Make, name: str, ask: Ask, looked_up: list[object]
) -> None:
    with pytest.raises(errors.BackendConnectionError, match=r"nowhere\.invalid"):
        ask(make(name, "http://nowhere.invalid", ONCE))
    assert set(looked_up) == {"nowhere.invalid"}
    looked_up.clear()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@each_backend
@each_way
def test_a_certificate_of_an_unknown_authority_is_refused_once(
    serve: Serve, make: Make, name: str, ask: Ask, authority: trustme.CA
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    server = serve(name, tls=tls)
    with pytest.raises(errors.BackendConnectionError) as caught:
        ask(make(name, server))
    assert server.requests == [] and any("SSL_CERT_FILE" in hint for hint in caught.value.hints)


@each_backend
@each_way
def test_a_silent_server_is_left_at_the_deadline(serve: Serve, make: Make, name: str, ask: Ask) -> None:
    server = serve(name)
    server.script(Fault("silence"))
    began = time.monotonic()
    with pytest.raises(errors.BackendTimeoutError) as caught:
        ask(make(name, server), timeout=0.4)
    assert time.monotonic() - began < 3 and "0.4 s" in str(caught.value)
    assert server.requests[0].left.wait(5)


@each_backend
@each_whole
def test_bytes_that_drip_do_not_outlive_the_deadline(serve: Serve, make: Make, name: str, ask: Ask) -> None:
    server = serve(name)
    server.script(Fault("drip"))
    began = time.monotonic()
    with pytest.raises(errors.BackendTimeoutError):
        ask(make(name, server), timeout=0.6)
    assert time.monotonic() - began < 3


@each_backend
@each_way
@pytest.mark.parametrize("body", [b"<html>hi</html>", b'{"choices": [', b"", b"null"], ids=repr)
def test_a_body_that_is_no_answer_is_never_one(
    serve: Serve, make: Make, name: str, ask: Ask, body: bytes
) -> None:
    server = serve(name)
    server.script(Fault("body", body=body))
    with pytest.raises((errors.BackendServerError, errors.StreamInterruptedError)):
        ask(make(name, server, ONCE))


@each_backend
@each_way
def test_a_reply_without_an_answer_is_the_servers_fault(serve: Serve, make: Make, name: str, ask: Ask) -> None:
    server = serve(name)
    server.script(Fault("no_answer"))
    with pytest.raises(errors.BackendServerError):
        ask(make(name, server, ONCE))


@each_backend
@each_whole
@pytest.mark.parametrize("kind", ["cut", "drop"])
def test_a_connection_that_breaks_is_a_connection_error_and_not_sent_twice(
    serve: Serve, make: Make, name: str, ask: Ask, kind: Any
) -> None:
    server = serve(name)
    server.script(Fault(kind))
    with pytest.raises(errors.BackendConnectionError):
        ask(make(name, server, ONCE))
    assert len(server.requests) == 1


@each_backend
@each_way
def test_no_redirect_is_followed(serve: Serve, make: Make, name: str, ask: Ask) -> None:
    server, elsewhere = serve(name), serve(name)
    target = elsewhere.base_url.replace("127.0.0.1", "localhost") + "/x"
    server.script(Fault(status=307, headers={"location": target}))
    with pytest.raises(errors.InvalidRequestError):
        ask(make(name, server, ONCE))
    assert elsewhere.requests == []


@each_backend
@each_stream
@pytest.mark.parametrize("kind", ["cut", "error", "garbage"])
def test_a_broken_stream_is_interrupted_and_keeps_its_text(
    serve: Serve, make: Make, name: str, ask: Ask, kind: Any
) -> None:
    server = serve(name)
    server.script(Fault(kind, message="the model fell over"))
    with pytest.raises(errors.StreamInterruptedError) as caught:
        ask(make(name, server))
    error = caught.value
    assert error.partial == "Hello there" and len(server.requests) == 1 and error.status_code is None
    assert kind != "error" or "the model fell over" in str(error)


@each_stream
def test_an_error_in_the_first_line_of_ollamas_stream_is_the_servers(
    serve: Serve, make: Make, ask: Ask
) -> None:
    server = serve("ollama")
    line = b'{"error": "model runner crashed"}\n'
    server.script(Fault("body", body=line, headers={"content-type": "application/x-ndjson"}))
    with pytest.raises(errors.BackendServerError, match="model runner crashed") as caught:
        ask(make("ollama", server, ONCE))
    assert caught.value.status_code is None


@each_backend
@each_stream
def test_a_stalled_stream_ends_at_the_deadline(serve: Serve, make: Make, name: str, ask: Ask) -> None:
    server = serve(name)
    server.script(Fault("stall"))
    with pytest.raises(errors.StreamTimeoutError) as caught:
        ask(make(name, server), timeout=0.6)
    assert caught.value.partial == "Hello there" and server.requests[0].left.wait(5)


@each_backend
def test_a_stream_that_is_left_early_is_closed(serve: Serve, make: Make, name: str) -> None:
    server = serve(name)
    server.script(Fault("stall"))
    with make(name, server).stream(PROMPT) as answer:
        assert next(iter(answer)) == "Hello"
    assert server.requests[0].left.wait(5)
    with pytest.raises(errors.StreamInterruptedError) as caught:
        _ = answer.completion
    assert caught.value.partial == "Hello"


@each_backend
def test_an_async_stream_that_is_left_early_is_closed(serve: Serve, make: Make, name: str) -> None:
    server = serve(name)
    server.script(Fault("stall"))

    async def ask() -> bool:
        async with make(name, server).astream(PROMPT) as answer:
            async for _ in answer:
                break
        return await asyncio.to_thread(server.requests[0].left.wait, 5)

    assert asyncio.run(ask())


@each_backend
@pytest.mark.parametrize("kind", ["silence", "stall"])
def test_cancelling_closes_the_connection(serve: Serve, make: Make, name: str, kind: Any) -> None:
    server = serve(name)
    server.script(Fault(kind))
    backend = make(name, server)

    async def ask() -> bool:
        task = asyncio.create_task(backend.acomplete(PROMPT))
        while not server.requests:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await asyncio.to_thread(server.requests[0].left.wait, 5)

    assert asyncio.run(ask())


@pytest.mark.parametrize("fault", [Fault(status=401), Fault("cut"), Fault("silence"), Fault("body", body=b"<")])
@each_way
@each_backend
def test_no_frame_and_no_log_holds_the_key(
    serve: Serve, make: Make, name: str, ask: Ask, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(name)
    server.script(fault)
    backend = make(name, server, ONCE)
    with caplog.at_level(logging.DEBUG), pytest.raises(errors.BackendError) as caught:
        ask(backend, timeout=1)
    trace = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert KEY not in "".join(trace.format()) and KEY not in caplog.text
    assert PROMPT not in caplog.text


@each_backend
def test_a_caller_who_handles_another_error_sees_ours(serve: Serve, make: Make, name: str) -> None:
    server = serve(name)
    server.script(Fault(status=429))
    try:
        raise TimeoutError("another matter")
    except TimeoutError:
        with pytest.raises(errors.RateLimitError):
            make(name, server, ONCE).complete(PROMPT)


def test_a_parameter_that_the_model_refuses_is_found_before_sending(serve: Serve, make: Make) -> None:
    server = serve("openai")
    with pytest.raises(errors.InvalidRequestError):
        make("openai", server, model="gpt-5").complete(PROMPT, temperature=0.3)
    assert server.requests == []


@pytest.mark.parametrize("option", [{"api_key": "x"}, {"base_url": "http://x"}, {"stream": True}])
def test_a_call_cannot_redirect_itself(serve: Serve, make: Make, option: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidRequestError):
        make("openai", serve("openai")).complete(PROMPT, **option)


@pytest.mark.parametrize("prompt", ["", "  ", [], ["text"], [{"content": "x"}]])
def test_what_is_no_prompt_is_refused(make: Make, prompt: Any) -> None:
    with pytest.raises(errors.InvalidRequestError):
        make("openai", "http://localhost:1").complete(prompt)
