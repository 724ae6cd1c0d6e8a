"""GET /docs: the API's description as a page, by Swagger UI, with every file from this host and none from another.

Needs no API key: it shows what the source does. Swagger UI's files are those of the package offapi.
"""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from aiohttp import web

from audioproto.errors import NotFound

# Found, not imported: importing it reads nine megabytes.
_FILES = Path(cast(str, cast(ModuleSpec, find_spec("offapi")).origin)).parent

_LIBRARY = {"swagger-ui.js": "swagger_bundle.js", "swagger-ui.css": "swagger_style.css"}

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; media-src blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger UI has its images in its style sheet, and plays the audio of answers."""

# All addresses are relative, so that the page works behind a proxy that puts a path before audiod's.
_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>audiod: the HTTP API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
<div id="page"></div>
<script src="docs/swagger-ui.js"></script>
<script src="docs/page.js"></script>
</html>
"""

# Unless told not to, Swagger UI has descriptions checked by a host of its makers'. To play the audio of an answer it
# would ask for it a second time, by GET; here it plays what it got.
_SCRIPT = """\
const playable = new WeakMap();
function addressOf(blob) {
  if (!playable.has(blob)) playable.set(blob, URL.createObjectURL(blob));
  return playable.get(blob);
}
const playsAnswers = () => ({ wrapComponents: { responseBody: (Original, { React }) => (props) =>
  React.createElement(Original, props.content instanceof Blob ? { ...props, url: addressOf(props.content) } : props)
}});
SwaggerUIBundle({
  url: "openapi.json", dom_id: "#page", validatorUrl: null, plugins: [playsAnswers],
  deepLinking: true, tryItOutEnabled: true, displayRequestDuration: true, defaultModelsExpandDepth: 0,
});
"""


async def page(request: web.Request) -> web.Response:
    """The page itself."""
    return web.Response(text=_PAGE, content_type="text/html", headers={"Content-Security-Policy": _POLICY})


async def file(request: web.Request) -> web.StreamResponse:
    """What it is made of."""
    name = request.match_info["file"]
    if name == "page.js":
        return web.Response(text=_SCRIPT, content_type="text/javascript")
    if name not in _LIBRARY:
        raise NotFound(f"the documentation has no file {name}")
    return web.FileResponse(_FILES / _LIBRARY[name])
