"""Log in with OAuth 2 and PKCE, keep the tokens, and refresh them once for everyone."""
