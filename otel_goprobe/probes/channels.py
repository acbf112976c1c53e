"""Channels: what is probed with ``--span-links``, to know which requests a goroutine's items come from.

Declared with each client library that can be linked (`http_client.LIBRARY`); the C source is bpf/channels.bpf.c. Six
places, each passed once for an item that is sent or received and none by what only waits: all are under the channel's
lock, on emulated instructions but for the two functions' starts up to Go 1.20.
"""

from __future__ import annotations

from otel_goprobe.probes.base import Fact, Field, Hook, Role, Way
from otel_goprobe.probes.places import AtCallInTurn, AtStart, Place

OPTION = "span_links"
COUNTERS = ("links_cut", "links_lost")
"""Spans with more links than are kept, and those whose links found no room."""

_LOST = "span links by channels"
_MOVE, _CLEAR = "runtime.typedmemmove", "runtime.typedmemclr"


def _hook(program: str, place: Place) -> Hook:
    return Hook(Role.DETAIL, (Way(program, place),), lost=_LOST, option=OPTION)


HOOKS = (
    _hook("channel_give", AtStart("runtime.send", arguments=(1, 2))),
    _hook("channel_meet", AtStart("runtime.recv", arguments=(1, 2))),
    _hook("channel_put", AtCallInTurn("runtime.chansend", _MOVE, before=_CLEAR)),
    _hook("channel_put", AtCallInTurn("runtime.selectgo", _MOVE, before=_CLEAR)),
    _hook("channel_take", AtCallInTurn("runtime.chanrecv", _CLEAR, behind=_MOVE)),
    _hook("channel_take", AtCallInTurn("runtime.selectgo", _CLEAR, behind=_MOVE)),
)
FACTS: tuple[Fact, ...] = (
    Field("hchan_dataqsiz", "runtime.hchan", "dataqsiz"),
    Field("hchan_buf", "runtime.hchan", "buf"),
    Field("hchan_elemsize", "runtime.hchan", "elemsize"),
    Field("hchan_recvx", "runtime.hchan", "recvx"),
    Field("sudog_g", "runtime.sudog", "g"),
)
"""Source of the names: src/runtime/chan.go, src/runtime/runtime2.go."""
