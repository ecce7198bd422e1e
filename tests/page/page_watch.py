"""What a page must not do: ask for anything but itself, or have an error."""


def watch(page, address, wrong):
    """Note in `wrong` each error of `page` and each request but the one for `address`."""

    def asked(request):
        if request.url.partition("#")[0] != address and not request.url.startswith("data:"):
            wrong.append(f"request: {request.url}")

    def said(message):
        if message.type in ("error", "warning"):
            wrong.append(f"console: {message.text}")

    page.on("request", asked)
    page.on("console", said)
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
