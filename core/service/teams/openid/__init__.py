"""Sign-in of people with accounts of an OpenID Connect provider: authorization code flow with PKCE.

Authlib has the protocol, joserfc the signatures. Requests go through `core.http.outbound`.
"""
