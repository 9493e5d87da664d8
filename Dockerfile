# SPDX-License-Identifier: Apache-2.0
# The images of WarpDrive, a target each: warpdrive-keeper, warpdrive-agent, warpdrive-csi, warpdrive-ctl.
# `./run images` builds them with docker, podman or buildah; by hand:
#
#	docker build --target warpdrive-agent -t warpdrive-agent .
#
# Everything is compiled and collected in the build stage, which runs on the machine that builds; the images
# themselves are copies on top of the base, so that those for another architecture need no emulator:
#
#	docker buildx build --platform linux/arm64 --target warpdrive-agent -t warpdrive-agent .

# for those who build without a registry: another base, and another one for the stage that compiles
ARG BASE=docker.io/library/debian:trixie-slim
ARG BUILD_BASE=${BASE}

FROM --platform=${BUILDPLATFORM} ${BUILD_BASE} AS build
ARG TARGETARCH
COPY images/toolchain images/collect /images/
RUN /images/toolchain install "${TARGETARCH}"
COPY CMakeLists.txt /src/
COPY common /src/common
COPY agent /src/agent
COPY fuse /src/fuse
COPY csi /src/csi
COPY warm-job /src/warm-job
RUN /images/toolchain build "${TARGETARCH}" /src /build
RUN /images/collect /build/bin /image/keeper warpdrive-keeper warpdrive-fuse && \
	/images/collect /build/bin /image/agent warpdrive-agent warpdrive-fuse warpdrive-ctl && \
	/images/collect /build/bin /image/csi warpdrive-csi && \
	/images/collect /build/bin /image/ctl warpdrive-ctl

# The only privileged one. Root: it mounts, and starts servers under another uid.
FROM --platform=${TARGETPLATFORM} ${BASE} AS warpdrive-keeper
COPY --from=build /image/keeper /
ENTRYPOINT ["/usr/bin/warpdrive-keeper"]
CMD ["--run-dir", "/run/warpdrive"]

# On the network, without privileges. It brings the servers' program, which it hands to the keeper.
FROM --platform=${TARGETPLATFORM} ${BASE} AS warpdrive-agent
COPY --from=build /image/agent /
USER 65532:65532
ENTRYPOINT ["/usr/bin/warpdrive-agent"]

FROM --platform=${TARGETPLATFORM} ${BASE} AS warpdrive-csi
COPY --from=build /image/csi /
USER 65532:65532
ENTRYPOINT ["/usr/bin/warpdrive-csi"]
CMD ["--endpoint", "unix:///csi/csi.sock"]

# For init containers and Jobs that warm a dataset.
FROM --platform=${TARGETPLATFORM} ${BASE} AS warpdrive-ctl
COPY --from=build /image/ctl /
USER 65532:65532
ENTRYPOINT ["/usr/bin/warpdrive-ctl"]

# Not for users: origin, readers and checks of the end-to-end cases in e2e/kube.
FROM build AS build-e2e
ARG TARGETARCH
COPY e2e/CMakeLists.txt /src/e2e/
COPY e2e/tools /src/e2e/tools
RUN /images/toolchain tools "${TARGETARCH}" /src /build && \
	/images/collect /build/bin /image/e2e e2e-make-tree e2e-check-tree e2e-watch-tree e2e-toxic-origin

FROM --platform=${TARGETPLATFORM} ${BASE} AS warpdrive-e2e
COPY --from=build-e2e /image/e2e /
USER 65532:65532
ENTRYPOINT ["/usr/bin/e2e-check-tree"]
