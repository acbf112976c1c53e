"""What is found in executables of each release of Go, built in each way."""

from __future__ import annotations

import goprograms
import pytest
from test_gobinary import FUNCTIONS, KINDS, STRUCTS, assert_dwarf_agrees

from otel_goprobe import gobinary, probes
from otel_goprobe.model import Cost
from otel_goprobe.probes.base import Role
from otel_goprobe.probes.places import AtCalls


@pytest.mark.versions
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("release", ["1.19", "1.21", "1.22", "1.23", "1.24", "1.25", "1.26", "1.27"])
def test_every_release(release: str, kind: str) -> None:
    """Each release of Go in each kind, as the plain tests have it for one."""
    program = goprograms.go_binary("http_server", go=release, **KINDS[kind])
    present = tuple(name for name in STRUCTS if release >= "1.22" or name != "net/http.pattern")
    assert_dwarf_agrees(program, present)
    with gobinary.open_binary(program) as binary:
        functions = binary.functions(FUNCTIONS)
        assert set(functions) == set(FUNCTIONS)
        pushes = [binary.start_site(each).expected == b"\x55" for each in functions.values()]
        assert all(pushes) is any(pushes) is (release >= "1.21")
        considered = {one.library.stem: one for one in probes.consider(binary)}
        assert set(considered) == {"http_client", "http_server", "http2_server", "http_streams"}
        http_client, http_server = considered["http_client"], considered["http_server"]
        called = [hook for hook in http_client.hooks if hook.hook.role is not Role.DETAIL]
        assert all(hook.sites for hook in called)
        (start,) = called[-1].sites
        assert start.cost is Cost.EMULATED
        always = [hook for hook in http_server.hooks if hook.hook.role is not Role.DETAIL and not hook.hook.option]
        sites = [site for hook in always for site in hook.sites]
        assert len(sites) == 3
        assert {site.cost for site in sites} == {Cost.EMULATED}
        assert all(binary.return_sites(functions[name]) for name in FUNCTIONS[:5])
        assert binary.calls(functions["net/http.(*conn).serve.func1"], functions["net/http.(*conn).hijacked"])
        assert [site.cost for site in AtCalls("runtime.newproc.func1", "runtime.runqput").sites(binary)] == [
            Cost.EMULATED
        ]
        assert binary.itab("*net/http.response", "net/http.ResponseWriter")
        assert (binary.field("runtime.g", "parentGoid") is not None) is (release >= "1.21")
        header = binary.field("net/http.Request", "Header")
        assert header is not None
        assert header.type_name == "net/http.Header"
        assert "sync.(*Mutex).Lock" in binary.inlined(["sync.(*Mutex).Lock", *FUNCTIONS])
        assert binary.untraceable == ""
