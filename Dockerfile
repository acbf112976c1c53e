# The agent alone in an image: a Python, what it is linked with, the wheel that `make wheel` left in dist/. There is no
# shell in it, no package manager, no compiler. The wheel is made outside, because BCC calls bpf(2) while it compiles,
# which the building of an image may not.
FROM debian:12-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv
COPY scripts/image-root dist/otel_goprobe-*.whl /src/
RUN /src/image-root /src/otel_goprobe-*.whl /image

FROM scratch
COPY --from=build /image /
ENV PATH=/opt/otel-goprobe/bin
# Root inside the container; which capabilities that root has is docker-compose.yml's, or your orchestrator's, to say.
ENTRYPOINT ["/opt/otel-goprobe/bin/otel-goprobe"]
CMD ["run"]
