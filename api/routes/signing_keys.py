"""Route for the public keys that artifacts are verified by."""

from api.dependencies import State
from api.http.routing import Router
from secateur_wire.provenance import KEYS_PATH, SigningKeys

router = Router(tags=["artifacts"])


@router.get(KEYS_PATH)
def list_signing_keys(state: State) -> SigningKeys:
    """Return the public keys of this installation, the one that signs artifacts now and earlier ones.

    The list is empty where artifacts are not signed. Anybody may read it, without a key of the API.
    """
    return SigningKeys(keys=list(state.signing_keys))
