"""``network --emit bpftrace``: the connections of some processes, counted by a script; called by network.py's `TOOL`.

What it has of the tool: what is dialled, by address, with outcomes and bytes; what is accepted and listened on. What it
hasn't: names, Go's functions, routes and traces, connections from before, ``sendfile`` and ``splice``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_goprobe.emit import bpftrace

if TYPE_CHECKING:
    from collections.abc import Sequence

_READS = ("read", "readv", "recvfrom", "recvmsg")
_WRITES = ("write", "writev", "sendto", "sendmsg")

_TYPES = "struct peer { unsigned short family; unsigned short port; unsigned char v4[4]; unsigned char v6[16]; };"

_PROBES = """
// AF_UNIX 1, AF_INET 2, AF_INET6 10; EISCONN 106, EINPROGRESS 115; SOL_SOCKET 1, SO_ERROR 4
// Texts are cut at 64 bytes. @state: 1 connecting, 2 open, 3 failed; @ip and @port, or @path, say where to
{enter_connect} /{watched}/ {{
	$family = ((struct peer *)uptr(args->uservaddr))->family;
	if ($family == 2 || $family == 10) {{
		@to[tid] = (uint64)args->uservaddr;
		@descriptor[tid] = args->fd;
	}} else if ($family == 1) {{
		@unix_to[tid] = 1;
		@descriptor[tid] = args->fd;
		@path[pid, args->fd] = str(uptr((uint64)args->uservaddr + 2));
	}}
}}
{exit_connect} /@to[tid] && args->ret != -106/ {{
	$fd = @descriptor[tid];
	$error = args->ret < 0 ? -args->ret : 0;
	$peer = (struct peer *)uptr(@to[tid]);
	if ($peer->family == 2) {{
		@ip[pid, $fd] = ntop($peer->v4);
	}} else {{
		@ip[pid, $fd] = ntop($peer->v6);
	}}
	@port[pid, $fd] = ($peer->port >> 8) | (($peer->port & 0xff) << 8);
	@state[pid, $fd] = $error == 0 ? 2 : $error == 115 ? 1 : 3;
	@dialled[@ip[pid, $fd], @port[pid, $fd]] = count();
	if ($error == 0) {{
		@opened[@ip[pid, $fd], @port[pid, $fd]] = count();
	}} else if ($error != 115) {{
		@failed[@ip[pid, $fd], @port[pid, $fd], $error] = count();
	}}
	delete(@to[tid]);
}}
{exit_connect} /@unix_to[tid]/ {{
	$fd = @descriptor[tid];
	$error = args->ret < 0 ? -args->ret : 0;
	@state[pid, $fd] = $error == 0 ? 2 : 3;
	@unix_dialled[@path[pid, $fd], $error] = count();
	delete(@unix_to[tid]);
}}
{enter_getsockopt} /({watched}) && args->level == 1 && args->optname == 4 && @state[pid, args->fd] == 1/ {{
	@asked[tid] = (uint64)args->optval;
	@descriptor[tid] = args->fd;
}}
{exit_getsockopt} /@asked[tid]/ {{
	$fd = @descriptor[tid];
	$error = *(int32 *)uptr(@asked[tid]);
	if (args->ret == 0 && $error != 115) {{
		if ($error == 0 || $error == 106) {{
			@state[pid, $fd] = 2;
			@opened[@ip[pid, $fd], @port[pid, $fd]] = count();
		}} else {{
			@state[pid, $fd] = 3;
			@failed[@ip[pid, $fd], @port[pid, $fd], $error] = count();
		}}
	}}
	delete(@asked[tid]);
}}
{exit_accept} /({watched}) && args->ret >= 0/ {{ @accepted[pid] = count(); }}
{exit_listen} /({watched}) && args->ret == 0/ {{ @listens[pid] = count(); }}
{enter_read} /{watched}/ {{ @reads[tid] = args->fd + 1; }}
{exit_read} /@reads[tid]/ {{
	$fd = @reads[tid] - 1;
	if (args->ret > 0 && @state[pid, $fd]) {{
		if (@port[pid, $fd]) {{ @received[@ip[pid, $fd], @port[pid, $fd]] = sum(args->ret); }}
		else {{ @unix_received[@path[pid, $fd]] = sum(args->ret); }}
	}}
	delete(@reads[tid]);
}}
{enter_write} /{watched}/ {{ @writes[tid] = args->fd + 1; }}
{exit_write} /@writes[tid]/ {{
	$fd = @writes[tid] - 1;
	if (args->ret > 0 && @state[pid, $fd]) {{
		if (@port[pid, $fd]) {{ @sent[@ip[pid, $fd], @port[pid, $fd]] = sum(args->ret); }}
		else {{ @unix_sent[@path[pid, $fd]] = sum(args->ret); }}
	}}
	delete(@writes[tid]);
}}
{enter_close} /({watched}) && @state[pid, args->fd]/ {{
	$fd = (int32)args->fd;
	if (@port[pid, $fd]) {{
		@closed[@ip[pid, $fd], @port[pid, $fd]] = count();
		if (@state[pid, $fd] == 1) {{ @given_up[@ip[pid, $fd], @port[pid, $fd]] = count(); }}
	}} else {{
		@unix_closed[@path[pid, $fd]] = count();
	}}
	delete(@state[pid, $fd]);
	delete(@ip[pid, $fd]);
	delete(@port[pid, $fd]);
	delete(@path[pid, $fd]);
}}
END {{
	clear(@to); clear(@unix_to); clear(@descriptor); clear(@state); clear(@ip); clear(@port); clear(@path);
	clear(@asked); clear(@reads); clear(@writes);
}}
"""


def script(pids: Sequence[int]) -> str:
    """Return the script for some processes; for every process where none is named."""
    probes = _PROBES.format(
        watched=bpftrace.watched(pids),
        enter_connect=bpftrace.entries("connect"),
        exit_connect=bpftrace.exits("connect"),
        enter_getsockopt=bpftrace.entries("getsockopt"),
        exit_getsockopt=bpftrace.exits("getsockopt"),
        exit_accept=bpftrace.exits("accept", "accept4"),
        exit_listen=bpftrace.exits("listen"),
        enter_read=bpftrace.entries(*_READS),
        exit_read=bpftrace.exits(*_READS),
        enter_write=bpftrace.entries(*_WRITES),
        exit_write=bpftrace.exits(*_WRITES),
        enter_close=bpftrace.entries("close"),
    )
    return bpftrace.script(_TYPES + "\n" + probes.rstrip(), pids, MAP_KEYS_MAX=131072)
