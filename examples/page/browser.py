#!/usr/bin/env python3
"""Serves the page, opens it in a browser without a window, and looks at what it says.

    browser.py CHROMIUM FOLDER [OPTION...]

Checks the answer; that nothing was asked for but the page's own files; and leaves picture.png in the folder.
"""
import functools
import http.server
import pathlib
import re
import subprocess
import sys
import tempfile
import threading

ALLOWED = {"/", "/index.html", "/page.js", "/worker.js", "/model.mjs", "/answer.wasm", "/favicon.ico", "/model/config.json",
           "/model/generation_config.json", "/model/tokenizer.json", "/model/model.safetensors"}


class Handler(http.server.SimpleHTTPRequestHandler):
    asked = set()
    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript", ".wasm": "application/wasm"}

    def do_GET(self):
        Handler.asked.add(self.path.split("?")[0])
        super().do_GET()

    def log_message(self, *_):
        pass


def main():
    chromium, folder, *more = sys.argv[1:]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}/?ask"
    with tempfile.TemporaryDirectory() as profile:
        # No name but this machine's is found: whatever the page wanted from elsewhere would fail.
        common = [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                  "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", f"--user-data-dir={profile}",
                  "--window-size=800,560", "--virtual-time-budget=60000", *more]
        page = subprocess.run([*common, "--dump-dom", address], capture_output=True, text=True, timeout=300, check=False)
        picture = pathlib.Path(folder) / "picture.png"
        picture.unlink(missing_ok=True)
        subprocess.run([*common, f"--screenshot={picture}", address], capture_output=True, timeout=300, check=False)
    answer = re.search(r'<pre id="answer"[^>]*>(.*?)</pre>', page.stdout, re.S)
    status = re.search(r'<small id="status">(.*?)</small>', page.stdout, re.S)
    print(answer.group(1) if answer else page.stdout + page.stderr)
    print(status.group(1) if status else "no status")
    failures = []
    if not answer or "boxed{632}" not in answer.group(1):
        failures.append("no answer 632")
    if not status or "tokens in" not in status.group(1):
        failures.append("it did not come to an end")
    if Handler.asked - ALLOWED:
        failures.append("asked for " + ", ".join(sorted(Handler.asked - ALLOWED)))
    if not {"/worker.js", "/answer.wasm"} <= Handler.asked:
        failures.append("no worker, or no module")
    if not picture.exists() or picture.stat().st_size < 4000:
        failures.append("no picture, or an empty one")
    for failure in failures:
        print(f"browser: {failure}", file=sys.stderr)
    sys.exit(1 if failures else 0)


main()
