FROM busybox AS base
ARG WHO=nobody
ENV WHO=$WHO
COPY page /page
FROM base AS dev
RUN echo dev >/stage
FROM base AS final
ARG FROM_ENV
RUN echo "final $FROM_ENV" >/stage; ulimit -n >/limit; grep somewhere /etc/hosts | cut -f1 >/hosts; df -k /dev/shm | tail -1 | awk '{print $2}' >/shm; ls /sys/class/net >/links
RUN --mount=type=secret,id=token --mount=type=secret,id=other cat /run/secrets/token >/secret; stat -c '%a %u' /run/secrets/other >>/secret
RUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo agent >/ssh
COPY --from=more file /more
COPY --from=image /bin/true /true
COPY --from=sibling /stage /sibling
CMD ["sh", "-c", "echo $WHO; cat /stage /limit /hosts /shm /links /secret /ssh /more /sibling /page; exec sleep 600"]
