# The agent alone in an image. BCC comes from the distribution, everything else is in one virtual environment.
FROM debian:12-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv python3-bpfcc
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY bpf bpf
COPY otel_goprobe otel_goprobe
COPY scripts/link-bcc scripts/link-bcc
RUN python3 -m venv /opt/otel-goprobe \
    && /opt/otel-goprobe/bin/pip install --no-cache-dir . \
    && scripts/link-bcc /opt/otel-goprobe/bin/python

FROM debian:12-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-bpfcc \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/otel-goprobe /opt/otel-goprobe
# Root inside the container; which capabilities that root has is docker-compose.yml's, or your orchestrator's, to say.
ENTRYPOINT ["/opt/otel-goprobe/bin/otel-goprobe"]
CMD ["run"]
