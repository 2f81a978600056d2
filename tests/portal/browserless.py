"""The portal without a browser: as forms alone."""

from typing import Any

import httpx


class Browserless:
    """Somebody who signed in and whose browser runs no script."""

    def __init__(self, live_api: httpx.Client, key: str) -> None:
        self.http = httpx.Client(base_url=live_api.base_url)
        assert self.http.post("/portal/sign-in", data={"key": key}).status_code == 303

    def main(self, page: str) -> str:
        """Return the content of a page, without what all pages have around it."""
        shown = self.http.get(page)
        assert shown.status_code == 200, shown.text
        return shown.text.partition("<main")[2].partition("</main>")[0]

    def post(self, page: str, path: str, fields: dict[str, str], files: Any = None) -> httpx.Response:
        return self.http.post(path, data={"csrf": self.token(page), **fields}, files=files)

    def token(self, page: str) -> str:
        """What the forms of a page carry."""
        return self.http.get(page).text.partition('name="csrf" value="')[2].partition('"')[0]

    def close(self) -> None:
        self.http.close()
