# syntax=docker/dockerfile:1
#
#   docker build -t tidegate .
#
# The final image holds one binary and the libraries that it is linked against: no shell, no
# package manager. It runs as user 65532 and never writes to its root filesystem:
#
#   docker run --read-only --cap-drop ALL -p 8080:8080 tidegate run --demo

ARG RUST_VERSION=1.95

FROM rust:${RUST_VERSION}-bookworm AS build
# make and a C compiler (for jemalloc and AWS-LC) are part of the base image; AWS-LC asks for
# cmake where it has no prepared list of sources for a target.
RUN rm -f /etc/apt/apt.conf.d/docker-clean
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt,sharing=locked \
    apt-get update && apt-get install -y --no-install-recommends cmake make
WORKDIR /src
COPY . .
# The target folder is a cache, too, so the binary has to leave it in the same step.
ARG TARGETPLATFORM
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/usr/local/cargo/git,sharing=locked \
    --mount=type=cache,id=target-${TARGETPLATFORM},target=/src/target,sharing=locked \
    cargo build --locked --release --bin tidegate \
    && cp target/release/tidegate /tidegate

# Debian 12, as above: the C library of the build must not be newer than this one.
FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="Tidegate" \
      org.opencontainers.image.description="A Kubernetes Ingress and Gateway API controller with its proxy inside" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /tidegate /tidegate
COPY LICENSE /LICENSE
USER 65532:65532
# Ingress HTTP and HTTPS, admin. Listeners of Gateways take ports of 20000-29999.
EXPOSE 8080 8443 9901
ENTRYPOINT ["/tidegate"]
CMD ["run"]
