#!/usr/bin/env bash
# The browser tests drive a Chromium that is on the machine; on Debian and Ubuntu this installs it where it is missing.
# The headless shell, where there is a package of it, draws no window: a test takes less of the processor.
set -eu
for name in chromium-headless-shell chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null 2>&1; then exit 0; fi
done
if ! command -v apt-get >/dev/null 2>&1; then
    echo "No Chromium found and no apt-get to install one: install Chromium, then run make test again." >&2
    exit 1
fi
as_root=""
[ "$(id -u)" = 0 ] || as_root="sudo"
$as_root apt-get update -qq
browser=chromium-headless-shell
apt-cache show "$browser" >/dev/null 2>&1 || browser=chromium
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$browser" fonts-liberation
