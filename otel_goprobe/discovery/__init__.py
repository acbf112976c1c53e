"""What runs on this machine -> `Target`s: Go processes as they come and go, which are chosen, and their resources.

    proc.py, ports.py   /proc/PID/* -> values             processes.py   a pid -> model.GoProcess, or why it is none
    selection.py        GoProcess + rules -> verdict      components.py  build info -> why it is left alone unless named
    resource.py         GoProcess -> resource attributes  launch.py      a command -> a child that waits before its exec
    watch.py            all of it -> `Changes`; the one that agent.py calls

Every pid is the agent's view of it.
"""
