"""A login's token, fresh for every call, refreshed once for every thread, task and process."""

import asyncio
import json
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import Items
from filelock import FileLock
from issuer import CLIENT, Issuer, log_in, provider, rewrite, wait_for
from keyring.errors import KeyringLocked
from ways import Ask, each_way

import arawn_llm
from arawn_llm import auth, errors
from arawn_llm.testing import Simulator

Write = Callable[[str, str], Path]


@each_way
def test_a_call_carries_the_token_as_bearer_and_refreshes_it_once_refused(
    issuer: Issuer, serve: Callable[..., Simulator], ask: Ask, private_home: Path
) -> None:
    gateway = serve("claude-oauth")
    issuer.change = lambda answer: setattr(gateway, "key", answer["access_token"]) or answer
    with (private_home / "xdg/arawn/config.toml").open("a") as file:
        file.write(f'[llm]\nbackend = "claude-oauth"\nmodel = "m"\nbase_url = "{gateway.base_url}"\n')
    arawn_llm.reload()
    log_in()
    gateway.key = "revoked"
    assert ask(arawn_llm.get_backend()).text == "This reply is simulated."
    sent = [each.headers["authorization"] for each in gateway.requests]
    assert sent == [f"Bearer {each.values['access_token']}" for each in issuer.tokens] and len(sent) == 2


@each_way
def test_the_example_of_a_token_provider_works(serve: Callable[..., Simulator], write: Write, ask: Ask) -> None:
    server = serve("custom", key="the-first")
    page = (Path(__file__).parents[1] / "docs/how-to/token-provider.md").read_text()
    lines = f'[llm.corp]\nbackend = "custom"\nmodel = "m"\nbase_url = "{server.base_url}"\n'
    write("xdg/arawn/config.toml", lines)
    file = write("token", "the-first\n")
    scope: dict[str, Any] = {"__name__": "example"}
    exec(page.split("```python\n")[1].split("```")[0], scope)
    backend = scope["corp_backend"](str(file))
    assert ask(backend).text == "This reply is simulated."
    server.key = "the-second"
    with pytest.raises(errors.AuthenticationError) as caught:
        ask(backend)
    assert f"the file {file}" in caught.value.hints[0] and len(server.requests) == 2
    file.write_text("the-second")
    assert ask(backend).text == "This reply is simulated."


def test_an_expired_token_is_refreshed_and_kept(expired: Issuer) -> None:
    assert provider().token() == expired.tokens[1].values["access_token"]
    assert provider().token() == expired.tokens[1].values["access_token"]
    assert expired.refreshes() == 1 and expired.asked[0]["client_id"] == CLIENT


@pytest.mark.parametrize(
    ("lifetime", "age", "refreshes"),
    [
        pytest.param(3600, 3299, 0, id="an hour, 301 s left"),
        pytest.param(3600, 3301, 1, id="an hour, 299 s left"),
        pytest.param(100, 89, 0, id="100 s, 11 s left"),
        pytest.param(100, 91, 1, id="100 s, 9 s left"),
        pytest.param(None, 1e7, 0, id="no lifetime said"),
        pytest.param(3600, -3600, 1, id="the clock was set back"),
        pytest.param(3600, 3.2e7, 1, id="last year's"),
    ],
)
def test_a_token_is_refreshed_early_and_not_earlier(
    issuer: Issuer, tokens_file: Path, lifetime: float | None, age: float, refreshes: int
) -> None:
    log_in()
    rewrite(tokens_file, lifetime=lifetime, issued_at=time.time() - age)
    assert provider().token() == issuer.tokens[refreshes].values["access_token"]
    assert issuer.refreshes() == refreshes


def test_an_answer_may_leave_out_lifetime_and_refresh_token(expired: Issuer, tokens_file: Path) -> None:
    kept = json.loads(tokens_file.read_text())["claude"]["refresh"]
    expired.change = lambda answer: {
        "access_token": "sk-ant-oat01-new",
        "expires_in": "soon",
        "expires_at": "?",
    }
    assert provider().token() == "sk-ant-oat01-new"
    record = json.loads(tokens_file.read_text())["claude"]
    assert (record["refresh"], record["lifetime"], record["scope"]) == (kept, None, "talk")


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(lambda: ("busy", 503), id="503"),
        pytest.param(lambda: ({"error": {"type": "rate_limit_error"}}, 429), id="429"),
        pytest.param(lambda: ({"error": "temporarily_unavailable"}, 400), id="a passing OAuth error"),
        pytest.param(lambda: "<html>a hotel's login page</html>", id="HTML"),
        pytest.param(lambda: ("moved", 302, {"location": "http://127.0.0.1:9/"}), id="redirect"),
        pytest.param(lambda: ("null", 200, {"content-type": "application/json"}), id="null"),
    ],
)
def test_a_passing_failure_is_tried_again(expired: Issuer, fault: Callable[[], Any]) -> None:
    expired.steps.append(fault)
    assert provider().token() == expired.tokens[1].values["access_token"]
    assert expired.refreshes() == 2


def test_an_issuer_that_wants_time_gets_it_within_limits(expired: Issuer) -> None:
    expired.steps = [lambda: ("busy", 429, {"retry-after": "1"})]
    start = time.monotonic()
    assert provider().token() == expired.tokens[1].values["access_token"]
    assert time.monotonic() - start >= 1 and expired.refreshes() == 2


def test_an_issuer_that_wants_an_hour_is_left_alone(expired: Issuer) -> None:
    expired.steps = [lambda: ("busy", 429, {"retry-after": "3600"})] * 3
    with pytest.raises(errors.CredentialError, match="HTTP 429"):
        provider().token()
    assert expired.refreshes() == 1


def test_an_issuer_that_stays_away_costs_no_token(expired: Issuer, tokens_file: Path) -> None:
    kept = json.loads(tokens_file.read_text())
    expired.steps = [lambda: ("busy", 503)] * 10
    with pytest.raises(errors.CredentialError, match=r"gave no tokens: HTTP 503") as caught:
        provider().token()
    assert not isinstance(caught.value, errors.LoginRequiredError)
    assert json.loads(tokens_file.read_text()) == kept


def test_a_token_that_is_still_good_outlives_a_failing_refresh(issuer: Issuer, tokens_file: Path) -> None:
    log_in()
    rewrite(tokens_file, issued_at=time.time() - 3500)
    issuer.steps = [lambda: ("busy", 503)] * 10
    giver = provider()
    assert giver.token() == giver.token() == issuer.tokens[0].values["access_token"]
    assert issuer.refreshes() == 1


def test_a_refusal_for_good_asks_for_a_login_and_asks_the_issuer_once(expired: Issuer) -> None:
    expired.dead |= {expired.tokens[0].family}
    giver = provider()
    for _ in range(2):
        with pytest.raises(errors.LoginRequiredError) as caught:
            giver.token()
        assert "arawn auth" in caught.value.hints[0]
    assert expired.refreshes() == 1
    log_in()
    assert giver.token() == expired.tokens[1].values["access_token"]


def test_a_refused_token_is_refreshed_once_by_all_who_held_it(issuer: Issuer) -> None:
    log_in()
    giver, barrier, turn = provider(), threading.Barrier(8), threading.Lock()

    def call(_: int) -> str:
        giver.token()
        barrier.wait()
        with turn:  # the later ones learn of the refusal when a new token is there
            assert giver.invalidate()
            return giver.token()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(call, range(8))) == {issuer.tokens[1].values["access_token"]}
    assert issuer.refreshes() == 1


def test_many_tasks_refresh_once_and_the_loop_goes_on(expired: Issuer) -> None:
    gate = threading.Event()
    expired.steps.append(lambda: None if gate.wait(20) else ("never", 500))

    async def run() -> set[str]:
        giver = provider()
        tasks = [asyncio.create_task(giver.atoken()) for _ in range(50)]
        while not expired.asked:  # the loop turns while the refresh waits
            await asyncio.sleep(0)
        gate.set()
        return set(await asyncio.gather(*tasks))

    assert asyncio.run(run()) == {expired.tokens[1].values["access_token"]}
    assert expired.refreshes() == 1


CHILD = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
import arawn_llm
from arawn_llm._credentials import choose_provider
from arawn_llm._resolve import resolve
import authlib.integrations.requests_client, filelock
giver = choose_provider(resolve(arawn_llm.load_config(), "claude-oauth"))
print("ready", flush=True)
sys.stdin.readline()
if sys.argv[1] == "alone":
    print(giver.token())
with ThreadPoolExecutor(4) as pool:
    print(*pool.map(lambda _: giver.token(), range(4)))
"""


def child(way: str = "together") -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", CHILD, way], stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_many_processes_with_many_threads_refresh_once(expired: Issuer) -> None:
    children = [child() for _ in range(8)]
    for each in children:
        assert each.stdout and each.stdout.readline() == "ready\n"
    for each in children:
        assert each.stdin
        each.stdin.write("\n")
        each.stdin.flush()
    results = [each.communicate(timeout=60) for each in children]
    assert [error for _, error in results if error] == []
    assert {t for out, _ in results for t in out.split()} == {expired.tokens[1].values["access_token"]}
    assert expired.refreshes() == 1


def test_a_process_killed_while_it_waits_for_the_answer_leaves_a_usable_login(expired: Issuer) -> None:
    gate = threading.Event()
    expired.steps.append(lambda: ("late", 503) if gate.wait(20) else None)
    killed = child()
    killed.stdin.write("\n")  # type: ignore[union-attr]
    killed.stdin.flush()  # type: ignore[union-attr]
    wait_for(lambda: expired.asked)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert provider().token() == expired.tokens[1].values["access_token"]
    gate.set()


def test_ctrl_c_falls_after_the_new_tokens_are_kept(expired: Issuer, tokens_file: Path) -> None:
    gate = threading.Event()
    expired.steps.append(lambda: None if gate.wait(20) else ("never", 500))
    interrupted = child("alone")
    interrupted.stdin.write("\n")  # type: ignore[union-attr]
    interrupted.stdin.flush()  # type: ignore[union-attr]
    wait_for(lambda: expired.asked)
    interrupted.send_signal(signal.SIGINT)
    gate.set()
    assert "KeyboardInterrupt" in interrupted.communicate(timeout=30)[1]
    assert provider().token() == expired.tokens[1].values["access_token"] and expired.refreshes() == 1


@pytest.mark.parametrize("whole", [True, False])
def test_a_process_killed_while_it_writes_loses_nothing_whole(
    expired: Issuer, tokens_file: Path, whole: bool
) -> None:
    before = tokens_file.read_text()
    token = provider().token()
    written = tokens_file.read_text()
    tokens_file.write_text(before)
    left = tokens_file.with_suffix(".new")
    left.write_text(written if whole else written[:50])
    if whole:
        assert provider().token() == token and expired.refreshes() == 1
    else:
        with pytest.raises(errors.LoginRequiredError):  # the issuer takes an old refresh token for a theft
            provider().token()
    assert not left.exists()


def test_tokens_go_back_to_no_other_issuer(expired: Issuer, write: Write) -> None:
    write(
        "xdg/arawn/config.toml",
        '[oauth.claude]\nauthorize_url = "http://127.0.0.1:9/a"\ntoken_url = "http://127.0.0.1:9/t"\n',
    )
    with pytest.raises(errors.LoginRequiredError, match=r"now says 127\.0\.0\.1:9"):
        provider().token()
    assert expired.asked == []


def test_the_environment_stands_in_for_a_login_and_is_not_refreshed(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "given-by-the-environment")
    giver = provider()
    assert giver.token() == "given-by-the-environment" and giver.invalidate() is False
    monkeypatch.delenv("ANTHROPIC_AUTH_TOKEN")
    with pytest.raises(errors.LoginRequiredError, match="looked in the keyring"):
        giver.token()
    log_in()  # and is noticed without a restart
    assert giver.token() == issuer.tokens[0].values["access_token"]


def test_the_environment_stands_in_for_a_login_that_has_ended(
    expired: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    expired.steps = [lambda: ({"error": "invalid_grant"}, 400)]
    giver = provider()
    with pytest.raises(errors.LoginRequiredError, match="invalid_grant"):
        giver.token()
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "given-by-the-environment")
    assert giver.token() == "given-by-the-environment" and "ANTHROPIC_AUTH_TOKEN" in giver.source


def test_a_keyring_keeps_the_login_and_a_failing_one_loses_no_refresh(
    issuer: Issuer, ring: Items, tokens_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert log_in().place == "the keyring (arawn, oauth_claude)" and not tokens_file.exists()
    assert [name for name, _ in ring.items] == ["own oauth_claude"]
    giver = provider()
    giver.token()
    ring.failure = KeyringLocked("no")
    assert giver.invalidate() and giver.token() == issuer.tokens[1].values["access_token"]
    assert "KeyringLocked" in caplog.text and tokens_file.exists()
    ring.failure = None  # unlocked: the file's tokens are the newer ones
    assert provider().token() == issuer.tokens[1].values["access_token"]
    assert len(auth.logout().removed) == 2 and ring.items == []


def test_no_secret_is_in_a_message_a_log_or_a_frame(expired: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for step in (lambda: ("busy", 503), lambda: ({"error": "invalid_grant"}, 400)):
        expired.steps = [step] * 4
        giver = provider()
        with pytest.raises(errors.CredentialError) as caught:
            giver.token()
        assert caught.tb.tb_next  # below this test's own frame
        error = caught.value.with_traceback(caught.tb.tb_next)
        whole = traceback.TracebackException.from_exception(error, capture_locals=True)
        shown = "".join(whole.format()) + repr(giver) + str(vars(caught.value))
        assert "held = " in shown
        assert not any(secret in shown + caplog.text for secret in expired.secrets())


def test_an_issuer_is_not_asked_while_there_is_nowhere_to_keep_its_answer(
    expired: Issuer, tokens_file: Path
) -> None:
    blocked = tokens_file.with_suffix(".new")
    blocked.mkdir()
    with pytest.raises(errors.CredentialError, match="cannot be used to keep"):
        provider().token()
    assert expired.refreshes() == 0
    blocked.rmdir()
    assert provider().token() == expired.tokens[1].values["access_token"]


def test_a_token_that_could_not_be_kept_is_used_and_kept_later(expired: Issuer, tokens_file: Path) -> None:
    blocked, given = tokens_file.with_suffix(".new"), provider()

    def block(answer: dict[str, Any]) -> dict[str, Any]:
        blocked.mkdir(exist_ok=True)
        return answer

    expired.change = block
    new = given.token()
    assert new == given.token() == expired.tokens[1].values["access_token"]
    assert json.loads(tokens_file.read_text())["claude"]["access"] != new
    blocked.rmdir()
    assert given.token() == new and expired.refreshes() == 1
    assert json.loads(tokens_file.read_text())["claude"]["access"] == new


def test_a_request_that_may_have_arrived_is_not_sent_again(issuer: Issuer) -> None:
    from arawn_llm._oauth import client
    from arawn_llm._oauth.tokens import Tokens

    came = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            while True:
                try:
                    connection = server.accept()[0]
                except OSError:
                    return
                came.append(connection.recv(65536))
                connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/token"
        with pytest.raises(errors.CredentialError, match="gave no tokens"):
            client.refresh(Tokens("id", url, "form", refresh="r"), client.TRIES, lambda tokens: None)
        server.shutdown(socket.SHUT_RDWR)
    assert len(came) == 1


@each_way
def test_a_refresh_is_within_the_calls_timeout_and_kept_all_the_same(
    expired: Issuer, ask: Ask, tokens_file: Path, private_home: Path
) -> None:
    release = threading.Event()
    expired.steps.append(lambda: release.wait(20) and None)
    with (private_home / "xdg/arawn/config.toml").open("a") as file:
        file.write('[llm]\nbackend = "claude-oauth"\nmodel = "m"\nbase_url = "http://127.0.0.1:9"\n')
    arawn_llm.reload()
    backend = arawn_llm.get_backend()
    with pytest.raises(errors.BackendTimeoutError):
        ask(backend, timeout=0.5)
    release.set()
    wait_for(lambda: len(expired.tokens) > 1)
    wait_for(lambda: expired.tokens[1].values["access_token"] in tokens_file.read_text())


def test_a_good_token_is_used_while_another_holds_the_lock(issuer: Issuer, tokens_file: Path) -> None:
    log_in()
    rewrite(tokens_file, lifetime=3600, issued_at=time.time() - 3400)
    with FileLock(tokens_file.with_suffix(".lock")):
        assert provider().token() == issuer.tokens[0].values["access_token"]
    assert issuer.refreshes() == 0


def test_an_absurd_lifetime_is_no_obstacle(expired: Issuer) -> None:
    expired.change = lambda answer: answer | {"expires_in": 99_999_999_999_999}
    assert provider().token() and auth.status().expires_at is not None


@pytest.mark.parametrize("content", ["{", '{"claude": 5}', ""])
def test_logout_removes_and_login_replaces_what_cannot_be_read(
    issuer: Issuer, tokens_file: Path, content: str
) -> None:
    log_in()
    tokens_file.write_text(content)
    report = auth.logout()
    assert (
        not tokens_file.exists() and str(tokens_file) in report.removed and "not revoked" in report.revocation
    )
    log_in()
    tokens_file.write_text(content)
    log_in()
    assert provider().token() == issuer.tokens[-1].values["access_token"]


def test_a_file_that_others_could_read_is_closed_and_said(
    issuer: Issuer, tokens_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log_in()
    tokens_file.chmod(0o644)
    assert provider().token() and tokens_file.stat().st_mode & 0o777 == 0o600
    assert "could be read by others" in caplog.text


def test_a_link_in_place_of_the_tokens_file_is_refused(issuer: Issuer, tokens_file: Path) -> None:
    log_in()
    elsewhere = tokens_file.with_name("elsewhere.json")
    tokens_file.rename(elsewhere)
    tokens_file.symlink_to(elsewhere)
    with pytest.raises(errors.CredentialError, match="is a link"):
        provider().token()
