"""An authorization server on 127.0.0.1, by authlib: PKCE, rotating refresh tokens, reuse revokes the family."""

import json
import threading
import time
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from authlib.common.security import generate_token
from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import AuthorizationCodeMixin, ClientMixin, TokenMixin, grants
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7636 import CodeChallenge
from flask import Flask, Response, request
from werkzeug.datastructures import ImmutableMultiDict
from werkzeug.serving import make_server

import arawn_llm
from arawn_llm import auth
from arawn_llm._credentials import TokenProvider, choose_provider
from arawn_llm._resolve import resolve

CLIENT = "a-client-of-this-test"


class Client(ClientMixin):
    def get_client_id(self) -> str:
        return CLIENT

    def get_allowed_scope(self, scope: str) -> str:
        return scope or ""

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri.startswith("http://127.0.0.1:") or redirect_uri.endswith(("/callback", "/shown"))

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "none"

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in {"authorization_code", "refresh_token"}


@dataclass
class Code(AuthorizationCodeMixin):
    redirect_uri: str
    scope: str
    code_challenge: str
    code_challenge_method: str

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope


@dataclass
class Token(TokenMixin):
    family: str
    values: dict[str, Any]
    used: bool = False

    def check_client(self, client: ClientMixin) -> bool:
        return True

    def get_scope(self) -> str:
        return str(self.values.get("scope", ""))


@dataclass
class Issuer:
    """Answer like an issuer, after the scripted steps; remember every token request and every secret."""

    lifetime: int = 3600
    asked: list[dict[str, str]] = field(default_factory=list)
    steps: list[Callable[[], Any]] = field(default_factory=list)
    change: Callable[[dict[str, Any]], Any] = dict
    consents: bool = True
    codes: dict[str, Code] = field(default_factory=dict)
    tokens: list[Token] = field(default_factory=list)
    dead: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        app = Flask("issuer")
        app.config["OAUTH2_REFRESH_TOKEN_GENERATOR"] = True
        server = AuthorizationServer(
            app, lambda client_id: Client() if client_id == CLIENT else None, self.save
        )
        server.register_grant(_code_grant(self), [CodeChallenge(required=True)])
        server.register_grant(_refresh_grant(self))
        server.register_endpoint(_revocation(self))
        app.add_url_rule("/authorize", "authorize", view_func=lambda: self.authorize(server))
        app.add_url_rule("/token", "token", view_func=lambda: self.token(server), methods=["POST"])
        app.add_url_rule(
            "/revoke", "revoke", lambda: server.create_endpoint_response("revocation"), methods=["POST"]
        )
        self.http = make_server("127.0.0.1", 0, app, threaded=True)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def authorize(self, server: AuthorizationServer) -> Any:
        user = "somebody" if self.consents else None
        grant = server.get_consent_grant(end_user=user)
        return server.create_authorization_response(grant_user=user, grant=grant)

    def token(self, server: AuthorizationServer) -> Any:
        if request.is_json:  # an issuer that reads JSON instead of a form
            request.form = ImmutableMultiDict(request.get_json())  # type: ignore[misc]
        self.asked.append(dict(request.form) | {"type": request.mimetype})
        early = self.steps.pop(0)() if self.steps else None
        if early is not None:
            return early
        response = server.create_token_response()
        if response.status_code != 200:
            return response
        return Response(json.dumps(self.change(json.loads(response.data))), content_type="application/json")

    def save(self, token: dict[str, Any], oauth_request: Any) -> None:
        before = getattr(oauth_request, "refresh_token", None)
        token["expires_in"] = self.lifetime
        self.tokens.append(Token(before.family if before else generate_token(8), dict(token)))

    def refreshes(self) -> int:
        return sum(each["grant_type"] == "refresh_token" for each in self.asked)

    def secrets(self) -> set[str]:
        found = {each.values[kind] for each in self.tokens for kind in ("access_token", "refresh_token")}
        return found | set(self.codes) | {v for each in self.asked for k, v in each.items() if k in SECRET}


SECRET = {"code", "code_verifier", "refresh_token"}


def _code_grant(issuer: Issuer) -> type:
    class Grant(grants.AuthorizationCodeGrant):
        TOKEN_ENDPOINT_AUTH_METHODS = ("none",)

        def save_authorization_code(self, code: str, oauth_request: Any) -> None:
            data = oauth_request.payload.data
            issuer.codes[code] = Code(
                data["redirect_uri"],
                data.get("scope", ""),
                data["code_challenge"],
                data["code_challenge_method"],
            )

        def query_authorization_code(self, code: str, client: ClientMixin) -> Code | None:
            return None if code in issuer.dead else issuer.codes.get(code)

        def delete_authorization_code(self, authorization_code: Code) -> None:
            issuer.dead |= {code for code, each in issuer.codes.items() if each is authorization_code}

        def authenticate_user(self, authorization_code: Code) -> str:
            return "somebody"

    return Grant


def _refresh_grant(issuer: Issuer) -> type:
    class Grant(grants.RefreshTokenGrant):
        TOKEN_ENDPOINT_AUTH_METHODS = ("none",)
        INCLUDE_NEW_REFRESH_TOKEN = True

        def authenticate_refresh_token(self, refresh_token: str) -> Token | None:
            found = next((t for t in issuer.tokens if t.values["refresh_token"] == refresh_token), None)
            if found is None or found.used or found.family in issuer.dead:
                issuer.dead |= {found.family} if found else set()
                return None
            found.used = True
            return found

        def authenticate_user(self, refresh_token: Token) -> str:
            return "somebody"

        def revoke_old_credential(self, refresh_token: Token) -> None:
            pass

    return Grant


def _revocation(issuer: Issuer) -> type:
    class Endpoint(RevocationEndpoint):
        CLIENT_AUTH_METHODS = ("none",)

        def query_token(self, token_string: str, token_type_hint: str) -> Token | None:
            return next((t for t in issuer.tokens if token_string in t.values.values()), None)

        def revoke_token(self, token: Token, oauth_request: Any) -> None:
            issuer.dead |= {token.family}

    return Endpoint


def wait_for(condition: Callable[[], Any], limit: float = 20.0) -> None:
    """Wait until something is so, in another thread or process."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "it never came about"
        threading.Event().wait(0.005)


class Person(webbrowser.BaseBrowser):
    """A browser in whose place a test acts."""

    def __init__(self) -> None:
        super().__init__("person")
        self.visit: Callable[[str], object] = requests.get

    def open(self, url: str, new: int = 0, autoraise: bool = True) -> bool:
        self.visit(url)
        return True


PERSON = Person()
webbrowser.register("person", None, PERSON, preferred=True)


def log_in(**options: Any) -> auth.LoginStatus:
    options = {"browser": True, "tell": lambda text: None, "timeout": 20} | options
    return auth.login(**options)


def provider() -> TokenProvider:
    arawn_llm.reload()
    return choose_provider(resolve(arawn_llm.load_config(), "claude-oauth"))


def rewrite(file: Path, **fields: Any) -> None:
    """Change the fields of the kept login, as time or another program would."""
    records = json.loads(file.read_text())
    records["claude"] |= fields
    file.write_text(json.dumps(records))
