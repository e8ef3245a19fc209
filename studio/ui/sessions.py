"""What the page's process remembers of each open page: its states and the components that were changed for it, and no more.

Gradio 6.31 copies the description of the whole page for each session (0.6 MB), keeps ten thousand of them, and describes a
component anew at each of its updates: for links that share a page's state, which this page does not offer. It also keeps another
copy of each component that was returned by one event and is then taken in by another.
"""

import datetime
from collections import ChainMap
from copy import copy
from typing import Any

from gradio.blocks import Blocks
from gradio.components import State
from gradio.state_holder import SessionState, StateHolder

OPEN_KEPT, CLOSED_KEPT = 1000, 50
"""Pages: of those used longest ago the page is forgotten, and then begins as a new one. A closed one may come back by reload."""


class Session(SessionState):
    """One page's states, and its own versions of the components that the page has."""

    def __init__(self, blocks: Blocks):
        self.blocks_config = copy(blocks.default_config)
        self.blocks_config.blocks = ChainMap({}, blocks.default_config.blocks)
        self.blocks_config.fns = blocks.default_config.fns
        self._page = blocks.default_config.blocks
        self.config_values: dict[int, Any] = {}
        self.state_data: dict[int, Any] = {}
        self._state_ttl: dict[int, Any] = {}
        self.is_closed = False
        self.STATE_TTL_WHEN_CLOSED = 3600

    def __setitem__(self, key: int, value: Any) -> None:
        block = self.blocks_config.blocks.get(key)
        if isinstance(block, State):
            self._state_ttl[key] = block.time_to_live, datetime.datetime.now()
            self.state_data[key] = value
        elif key in self._page:  # else a version of a component, under the number of that version
            self.blocks_config.blocks[key] = value

    def _update_config(self, key: int) -> None:
        """Nothing: only links that share a page's state need it."""

    def _update_value_in_config(self, key: int, value: Any) -> None:
        """Nothing, likewise."""


class Sessions(StateHolder):
    """The sessions of a page, bounded."""

    def __init__(self, blocks: Blocks):
        super().__init__()
        blocks.state_session_capacity = OPEN_KEPT
        self.set_blocks(blocks)

    def __getitem__(self, session_id: str) -> SessionState:
        session = self.session_data.get(session_id)
        if session is None:
            session = self.session_data[session_id] = Session(self.blocks)
            self._forget_closed_ones()
        session.is_closed = False  # whoever asks is there
        self.update(session_id)
        self.time_last_used[session_id] = datetime.datetime.now()
        return session

    def _forget_closed_ones(self) -> None:
        closed = [session_id for session_id, session in list(self.session_data.items()) if session.is_closed]
        for session_id in closed[: max(0, len(closed) - CLOSED_KEPT)]:
            with self.lock:
                self.session_data.pop(session_id, None)
                self.time_last_used.pop(session_id, None)


def bound(app: Any, blocks: Blocks) -> None:
    """Let a mounted page keep its sessions so."""
    app.state_holder = Sessions(blocks)
