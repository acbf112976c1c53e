"""The agent on kernels that this machine doesn't run, in virtual machines: `make test-kernels`.

`images` fetches Debian's kernels, `machine` boots one on this machine's own file system, `inside` runs there and
does the `checks`, and `table` turns what they found into a part of docs/compatibility.md.
"""
