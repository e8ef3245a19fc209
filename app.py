"""Start the studio: python app.py [--host 127.0.0.1] [--port 7860] [--runs runs]; let somebody in: --add-user NAME."""

import argparse
import getpass
import os
import secrets
import shutil
import socket
import sys
from pathlib import Path

# Read by the libraries when they are imported.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# Gradio 6.31 works out statistics of its last 10,000 events after every event in its queue: 75 ms of computing with a thousand of them.
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "1")
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000000")

from studio.installed import missing

if told := missing():
    raise SystemExit(told)

from studio import collector, names, shares
from studio.access import Users
from studio.doors import LOOPBACK, Doors, names_of
from studio.errors import StudioError
from studio.shares import Shares

HERE = Path(__file__).resolve().parent
SPACE = os.environ.get("SPACE_HOST", "") if os.environ.get("SPACE_ID") else ""
"""The name under which the Space is reached, on one."""
PORTS = range(7860, 7960)
BACKLOG = 256
"""Connections that may wait to be taken."""
SHORTEST_KEY = 16
PROXIES_HERE = ("127.0.0.1", "::1")
SPACE_PROXIES = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "fc00::/7", "::1")
"""A Space is reached through several of the Hub's proxies, each at a private address, and a visitor comes from a public one: the last
public address of X-Forwarded-For is what the outermost of them saw. What stands before it, the visitor may have made up."""
OWNER = "owner"
"""The user whose password a Space or a container is given in its environment."""


def arguments() -> argparse.Namespace:
    """What was asked for on the command line; a Space and a container are asked through the environment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default=os.environ.get("GRADIO_SERVER_NAME") or ("0.0.0.0" if SPACE else "127.0.0.1"),
                        help="address to listen on; beyond 127.0.0.1 only users with a password are let in")
    parser.add_argument("--port", type=int, default=int(os.environ.get("GRADIO_SERVER_PORT") or 0),
                        help="port to listen on; without it the first free one from 7860 on")
    parser.add_argument("--runs", type=Path, default=Path(os.environ.get("ORPO_STUDIO_RUNS") or HERE / "runs"),
                        help="folder that keeps the runs")
    parser.add_argument("--models", type=Path, action="append", default=[], help="a folder from which users may take models")
    parser.add_argument("--name", action="append", default=[], help="a further name under which browsers reach the studio")
    parser.add_argument("--behind-proxy", action="store_true", help="a proxy of yours on this machine ends TLS in front of the studio")
    parser.add_argument("--proxy", action="append", default=[], metavar="ADDRESS",
                        help="the address or network of such a proxy elsewhere; what it says of whom it speaks for is believed")
    parser.add_argument("--user-disk", type=float, default=Shares.disk / 1e9, metavar="GB", help="disk that each user may take")
    parser.add_argument("--user-runs", type=int, default=Shares.waiting, metavar="N", help="runs of each user that may wait or train")
    parser.add_argument("--user-processes", type=int, default=Shares.processes, metavar="N",
                        help="merges, exports and examinations of each user at once")
    parser.add_argument("--add-user", metavar="NAME", help="let somebody in, or change their password, and end")
    parser.add_argument("--admin", action="store_true", help="with --add-user: this user sees and stops everybody's runs")
    parser.add_argument("--remove-user", metavar="NAME", help="let somebody in no longer, and end; their runs stay")
    return parser.parse_args()


def listening(host: str, port: int = 0) -> socket.socket:
    """A socket that listens, without a port on the first from 7860 on that nobody else listens on.

    It comes before everything that a start touches: where another studio listens, nothing of it is.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for one in (port,) if port else PORTS:
        try:
            door = socket.create_server((host, one), family=family, backlog=BACKLOG)
            # asyncio does so by itself only for sockets of its own: each answer in two parts would wait 40 ms for its second.
            door.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return door
        except OSError as error:
            why = error.strerror
    if port:
        raise SystemExit(f"Nobody can be served on {host}, port {port} ({why}). Another studio may run there. "
                         "Choose another port with --port.")
    raise SystemExit(f"No port from {PORTS[0]} to {PORTS[-1]} is free on {host}. Choose one with --port.")


def change_users(users: Users, asked: argparse.Namespace) -> None:
    """Add or remove a user. The password is typed, or the first line of what is piped in: never an argument."""
    if asked.remove_user:
        users.remove(asked.remove_user)
        print(f"{asked.remove_user} is no longer let in.")
        return
    typed = sys.stdin.isatty()
    password = getpass.getpass(f"Password for {asked.add_user}: ") if typed else sys.stdin.readline().rstrip("\n")
    if typed and password != getpass.getpass("Once more: "):
        raise StudioError("The two are not the same. Nobody was added; try again.")
    users.add(asked.add_user, password, asked.admin)
    print(f"{asked.add_user} can sign in{' and is an administrator' if asked.admin else ''}.")


def doors_of(home: Path, asked: argparse.Namespace, port: int) -> Doors:
    """Who may come in. Raises StudioError where nobody could, and where everybody could."""
    users, password = Users(home), os.environ.pop("ORPO_STUDIO_PASSWORD", "")
    if password and users.check(OWNER, password) is None:
        users.add(OWNER, password, admin=True)
    beyond = asked.host not in LOOPBACK
    if beyond and not users and not SPACE:
        raise StudioError(f"On {asked.host} others can reach the studio, and only users with a password are let in. "
                          "Add one with python app.py --add-user NAME, give a container ORPO_STUDIO_PASSWORD, or leave out --host.")
    named = beyond or bool(users)
    hosts = names_of(asked.host) | {name.lower() for name in (*asked.name, SPACE) if name}
    proxies = SPACE_PROXIES if SPACE else (*asked.proxy, *(PROXIES_HERE if asked.behind_proxy else ()))
    return Doors(home, named, hosts, port, key="" if named else key_of(os.environ.pop("ORPO_STUDIO_KEY", "")),
                 proxies=proxies, framed_by="https://huggingface.co" if SPACE else "'none'")


def key_of(given: str) -> str:
    """The key by which the studio opens: the one that was given, or a new one. Raises StudioError for one that can be guessed."""
    if given and (len(given) < SHORTEST_KEY or len(set(given)) < SHORTEST_KEY // 2):
        raise StudioError(f"ORPO_STUDIO_KEY can be guessed, and anyone with it can use the studio. Use {SHORTEST_KEY} characters or more, "
                          "made by chance, or leave it out: a new key is made at each start.")
    return given or secrets.token_urlsafe(24)


def serve(home: Path, doors: Doors, door: socket.socket, models: tuple[Path, ...]) -> None:
    """Serve the page until somebody ends it."""
    collector.load()
    import uvicorn

    from studio import connections
    from studio.chat import Chat
    from studio.jobs import Queue
    from studio.meter import Meter, at_work
    from studio.ui.served import served, visitor_of_event
    from studio.ui.studio import Studio

    temporary = home / names.TEMPORARY / str(doors.port)
    shutil.rmtree(temporary, ignore_errors=True)  # of one that was killed
    temporary.mkdir(parents=True, mode=0o700)
    os.environ["GRADIO_TEMP_DIR"] = str(temporary)
    chat = Chat()
    queue = Queue(home, before_start=chat.close).open()
    meter = Meter(queue, lambda: at_work(queue) or chat.pid is not None)
    studio = Studio(home, queue, chat, who=lambda: visitor_of_event(doors.sessions), models=models, meter=meter, has_users=doors.named)
    try:
        config = uvicorn.Config(served(studio, doors, temporary), log_level="warning", server_header=False,
                                http=connections.bounded(), backlog=BACKLOG, timeout_keep_alive=connections.KEEP_ALIVE_SECONDS,
                                proxy_headers=doors.proxied, forwarded_allow_ips=",".join(doors.proxies), ws="none",
                                timeout_graceful_shutdown=2)
        collector.settle()
        uvicorn.Server(config).run(sockets=[door])
    finally:
        meter.close()
        chat.close()
        queue.close()
        shutil.rmtree(temporary, ignore_errors=True)


def main() -> None:
    asked = arguments()
    os.umask(0o077)  # runs hold data of whoever uses the studio: nobody else on this machine reads them
    home = asked.runs.resolve()
    home.mkdir(parents=True, exist_ok=True)
    try:
        if asked.add_user or asked.remove_user:
            return change_users(Users(home), asked)
        door = listening(asked.host, asked.port)
        doors = doors_of(home, asked, door.getsockname()[1])
    except StudioError as error:
        raise SystemExit(str(error)) from None
    if doors.named:  # the login of this machine is its owner's, and no user works with it
        os.environ["HF_HUB_DISABLE_IMPLICIT_TOKEN"] = "1"
    shares.give(Shares(asked.user_disk * 1e9, asked.user_runs, asked.user_processes))
    key = f"/?key={doors.key}" if doors.key else ""
    print(f"ORPO Studio: http://{asked.host}:{doors.port}{key}  (runs in {home})", flush=True)
    return serve(home, doors, door, tuple(folder.resolve() for folder in asked.models))


if __name__ == "__main__":
    main()
