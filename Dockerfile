# A small image that runs one job: docker build -t lamplighter . && docker run --read-only --tmpfs /tmp
#   -v /srv/shop/jobs:/jobs:ro -v /srv/shop/data:/data:ro -v /srv/shop/out:/out lamplighter run /jobs/nightly.toml
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY sql sql
COPY tests tests
COPY benches benches
RUN CARGO_TARGET_DIR=/target cargo build --release --locked && strip /target/release/lamplighter

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin lamplighter \
    && install --directory --owner 10001 --group 10001 /out
COPY --from=build /target/release/lamplighter /usr/local/bin/lamplighter
USER 10001:10001
WORKDIR /
ENTRYPOINT ["lamplighter"]
CMD ["--help"]
