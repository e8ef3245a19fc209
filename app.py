"""Start the studio: python app.py [--host 127.0.0.1] [--port 7860] [--runs runs]."""

import argparse
import os
import socket
from pathlib import Path

# Read by the libraries when they are imported.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from studio.chat import Chat
from studio.jobs import Queue
from studio.ui.page import build
from studio.ui.studio import Studio
from studio.ui.theme import launch_options

HERE = Path(__file__).resolve().parent
ON_SPACE = bool(os.environ.get("SPACE_ID"))
PORTS = range(7860, 7960)


def arguments() -> argparse.Namespace:
    """What was asked for on the command line; a Space and a container are asked through the environment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default=os.environ.get("GRADIO_SERVER_NAME") or ("0.0.0.0" if ON_SPACE else "127.0.0.1"),
                        help="address to listen on; beyond 127.0.0.1 anyone who reaches it can start runs")
    parser.add_argument("--port", type=int, default=int(os.environ.get("GRADIO_SERVER_PORT") or 0),
                        help="port to listen on; without it the first free one from 7860 on")
    parser.add_argument("--runs", type=Path, default=Path(os.environ.get("ORPO_STUDIO_RUNS") or HERE / "runs"),
                        help="folder that keeps the runs")
    return parser.parse_args()


def free_port(host: str) -> int:
    """The first port from 7860 on that nobody listens on."""
    for port in PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
                return port
            except OSError:
                continue
    raise SystemExit(f"No port from {PORTS[0]} to {PORTS[-1]} is free on {host}. Choose one with --port.")


def main() -> None:
    asked = arguments()
    root = asked.runs.resolve()
    root.mkdir(parents=True, exist_ok=True)
    chat = Chat()
    studio = Studio(root, Queue(root, before_start=chat.close).open(), chat)
    port = asked.port or free_port(asked.host)
    print(f"ORPO Studio: http://{asked.host}:{port}  (runs in {root})", flush=True)
    try:
        build(studio).launch(server_name=asked.host, server_port=port, show_error=True, quiet=True, ssr_mode=False,
                             run_history=False, footer_links=[], max_file_size="2gb", **launch_options())
    finally:
        studio.chat.close()
        studio.queue.close()


if __name__ == "__main__":
    main()
