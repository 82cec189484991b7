"""Log in, look and log out: against authlib's own authorization server on 127.0.0.1."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from issuer import CLIENT, PERSON, Issuer, log_in, provider, rewrite, wait_for

import arawn_llm
from arawn_llm import auth, errors

Write = Callable[[str, str], Path]


def test_after_a_login_the_token_is_given(issuer: Issuer, tokens_file: Path) -> None:
    pages: list[requests.Response] = []
    PERSON.visit = lambda url: pages.append(requests.get(url))
    status = log_in()
    assert (status.logged_in, status.renewable, status.scope) == (True, True, "talk")
    assert provider().token() == issuer.tokens[0].values["access_token"]
    assert "Logged in" in pages[0].text and pages[0].status_code == 200
    sent = parse_qs(urlsplit(pages[0].history[0].url).query)
    assert sent["code_challenge_method"] == ["S256"] and len(sent["state"][0]) >= 32
    assert (tokens_file.stat().st_mode & 0o777, tokens_file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_the_listener_answers_only_its_own_redirect(issuer: Issuer) -> None:
    statuses: list[int] = []

    def visit(url: str) -> None:
        callback = parse_qs(urlsplit(url).query)["redirect_uri"][0]
        origin = callback.removesuffix("/callback")
        port = urlsplit(callback).port
        assert port
        with socket.create_connection(("127.0.0.1", port)):  # a port scan says nothing
            for bad in (f"{origin}/favicon.ico", f"{callback}?code=x", f"{callback}?code=x&state=wrong"):
                statuses.append(requests.get(bad).status_code)
            issuer.steps.append(lambda: statuses.append(requests.get(answer).status_code))
            answer = requests.get(url, allow_redirects=False).headers["location"]
            statuses.append(requests.get(answer).status_code)

    PERSON.visit = visit
    said: list[str] = []
    assert log_in(tell=said.append).logged_in
    assert statuses[:4] == [404, 400, 400, 409]
    assert sum("was ignored" in text for text in said) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(lambda code, state: f"{code}#{state}", "", id="code#state"),
        pytest.param(lambda code, state: code, "", id="bare code"),
        pytest.param(lambda code, state: f"https://x.invalid/cb?code={code}&state={state}\n", "", id="url"),
        pytest.param(lambda code, state: f"{code}#wrong", "belongs to another login", id="wrong state"),
        pytest.param(lambda code, state: f"http://x/?code={code}", "belongs to another login", id="no state"),
        pytest.param(lambda code, state: "", "holds no code", id="nothing"),
        pytest.param(lambda code, state: "http://x/?error=access_denied", "consent was denied", id="denied"),
        pytest.param(lambda code, state: "x" + code, "invalid_grant: nothing was saved", id="wrong code"),
    ],
)
def test_what_the_page_showed_can_be_pasted(issuer: Issuer, answer: Callable[..., str], words: str) -> None:
    said: list[str] = []

    def ask(question: str) -> str:
        sent = requests.get(said[-1].split("\n")[-1], allow_redirects=False).headers["location"]
        shown = parse_qs(urlsplit(sent).query)
        return answer(shown["code"][0], shown["state"][0])

    if not words:
        assert log_in(browser=False, tell=said.append, ask=ask).logged_in
        return
    with pytest.raises(errors.CredentialError, match=words):
        log_in(browser=False, tell=said.append, ask=ask)
    assert not auth.status().logged_in


def test_denied_consent_is_said_in_the_browser_and_here(issuer: Issuer) -> None:
    issuer.consents = False
    pages: list[str] = []
    PERSON.visit = lambda url: pages.append(requests.get(url).text)
    with pytest.raises(errors.CredentialError, match="consent was denied: nothing was saved"):
        log_in()
    wait_for(lambda: pages)
    assert "consent was denied" in pages[0] and not auth.status().logged_in


def test_a_browser_that_does_not_come_back_has_a_time_limit(issuer: Issuer) -> None:
    PERSON.visit = lambda url: None
    with pytest.raises(errors.CredentialError, match=r"did not come back within 0\.1 s: nothing was saved"):
        log_in(timeout=0.1)


def test_without_a_client_id_there_are_three_lines(write: Write) -> None:
    with pytest.raises(errors.LoginRequiredError) as caught:
        log_in()
    lines = str(caught.value).splitlines()
    assert len(lines) == 3 and "API key" in lines[1] and "[oauth.claude]" in lines[2]


def test_a_client_id_is_taken_from_the_call_then_the_environment(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARAWN_OAUTH_CLIENT_ID", "from-the-environment")
    urls: list[str] = []
    PERSON.visit = urls.append
    for given in (None, "given"):
        with pytest.raises(errors.CredentialError):
            log_in(client_id=given, timeout=0.2)
    assert [parse_qs(urlsplit(url).query)["client_id"][0] for url in urls] == ["from-the-environment", "given"]


@pytest.mark.parametrize("open_mode", [0o777, 0o720, 0o755])
def test_a_folder_open_to_others_is_refused_before_the_browser_opens(
    issuer: Issuer, tokens_file: Path, open_mode: int
) -> None:
    tokens_file.parent.mkdir(parents=True)
    tokens_file.parent.chmod(open_mode)
    PERSON.visit = lambda url: pytest.fail("the browser was opened")
    with pytest.raises(errors.CredentialError, match="is open to others"):
        log_in()


def test_an_issuer_that_reads_json_gets_json_with_the_state(
    issuer: Issuer, tokens_file: Path, write: Write
) -> None:
    write(
        "xdg/arawn/config.toml",
        f'[oauth.claude]\nclient_id = "{CLIENT}"\nauthorize_url = "{issuer.url}/authorize"\n'
        f'token_url = "{issuer.url}/token"\ntoken_request = "json"\n',
    )
    arawn_llm.reload()
    log_in()
    rewrite(tokens_file, issued_at=0)
    assert provider().token() == issuer.tokens[1].values["access_token"]
    assert [each["type"] for each in issuer.asked] == ["application/json"] * 2 and issuer.asked[0]["state"]


@pytest.mark.parametrize("key", ["token_url", "revoke_url"])
def test_a_found_file_does_not_decide_where_tokens_go(issuer: Issuer, write: Write, key: str) -> None:
    log_in()
    path = write("work/arawn.toml", f'# found\n[oauth.claude]\n{key} = "https://evil.invalid/t"\n')
    for use in (provider, log_in, auth.status, auth.logout):
        with pytest.raises(errors.ConfigError) as caught:
            use()
        assert f"{path}:3: sends a login's codes and tokens to evil.invalid" in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        'token_url = "http://login.invalid/t"\nauthorize_url = "https://login.invalid/a"',
        'token_url = "https://login.invalid/t"',
        'redirect_uri = "ftp://login.invalid/"',
        'client_id = ""',
        '[oauth.cluade]\nclient_id = "x"',
    ],
)
def test_a_login_that_is_not_safe_is_refused_with_its_line(write: Write, line: str) -> None:
    path = write("own.toml", f"[oauth.claude]\n{line}\n")
    with pytest.raises(errors.ConfigError, match=r"oauth\.cl") as caught:
        arawn_llm.load_config(path)
    assert f"{path}:" in str(caught.value)


def test_logout_revokes_removes_and_says_so(issuer: Issuer, tokens_file: Path) -> None:
    log_in()
    report = auth.logout()
    assert report.revocation == f"revoked at {urlsplit(issuer.url).netloc}"
    assert report.removed == (str(tokens_file),) and not tokens_file.exists()
    assert issuer.tokens[0].family in issuer.dead and auth.logout().removed == ()


def test_the_command_line_logs_in_looks_and_logs_out(issuer: Issuer, tokens_file: Path) -> None:
    get = "import sys, urllib.request as r; r.build_opener(r.ProxyHandler({})).open(sys.argv[1])"
    script = tokens_file.parents[2] / "browser.py"
    script.write_text(get)
    environment = os.environ | {"BROWSER": f"{sys.executable} {script} %s"}

    def arawn(*words: str, given: str = "") -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", "from arawn_llm.cli import main; main()", *words]
        return subprocess.run(
            command, input=given, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    done = arawn("auth")
    assert done.returncode == 0 and f"kept in {tokens_file}" in done.stdout, done.stderr
    assert "keyring cannot be used" in done.stderr
    assert "is renewed by itself" in arawn("auth", "status").stdout
    assert f"Removed from: {tokens_file}" in arawn("auth", "logout").stdout
    assert arawn("auth", "status").returncode == 4
    environment["ANTHROPIC_AUTH_TOKEN"] = "a-token-that-is-lent"
    shown = arawn("auth", "status")
    assert shown.returncode == 0 and "the environment (ANTHROPIC_AUTH_TOKEN) stands in" in shown.stdout
    assert "a-token" not in shown.stdout + shown.stderr
    assert "holds no code" in arawn("auth", "login", "--no-browser", given="").stderr
    assert not any(secret in done.stdout + done.stderr for secret in issuer.secrets())
