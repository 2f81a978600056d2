"""People sign in to the portal with accounts of an OpenID Connect provider."""
