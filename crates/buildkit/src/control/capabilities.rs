//! What clients are told that the front end and the builder can do; from it they choose what to ask for.

use crate::pb::gateway::ApiCap;

const FRONTEND: [&str; 16] = [
    "frontend.caps",
    "frontend.inputs",
    "gateway.evaluate",
    "gateway.solve.evaluate",
    "gateway.solve.metadata",
    "gateway.warnings",
    "importcaches",
    "proto.refarray",
    "reference.attestations",
    "reference.output",
    "resolveimage",
    "resolveimage.resolvemode",
    "return",
    "returnmap",
    "solve.base",
    "solve.inlinereturn",
];

const BUILDER: [&str; 56] = [
    "exec.cgroup",
    "exec.meta.base",
    "exec.meta.cgroup.parent",
    "exec.meta.network",
    "exec.meta.proxyenv",
    "exec.meta.security",
    "exec.meta.setsdefaultpath",
    "exec.meta.ulimit",
    "exec.mount.bind",
    "exec.mount.bind.readwrite-nooutput",
    "exec.mount.cache",
    "exec.mount.cache.content",
    "exec.mount.cache.sharing",
    "exec.mount.secret",
    "exec.mount.selector",
    "exec.mount.ssh",
    "exec.mount.tmpfs",
    "exec.mount.tmpfs.size",
    "exec.secretenv",
    "exec.validexitcode",
    "exporter.multiple",
    "exporter.session",
    "exporter.sourcedateepoch",
    "file.base",
    "file.copy.includeexcludepatterns",
    "file.rm.nofollowsymlink",
    "file.rm.wildcard",
    "file.symlink.create",
    "gc.freespacefilter",
    "history.filter",
    "meta.description",
    "meta.exportcache",
    "meta.ignorecache",
    "platform",
    "source.git",
    "source.git.checksum",
    "source.git.fullurl",
    "source.git.httpauth",
    "source.git.keepgitdir",
    "source.git.knownsshhosts",
    "source.git.mountsshsock",
    "source.git.subdir",
    "source.http",
    "source.http.checksum",
    "source.http.perm",
    "source.image",
    "source.image.resolvemode",
    "source.local",
    "source.local.differ",
    "source.local.excludepatterns",
    "source.local.followpaths",
    "source.local.includepatterns",
    "source.local.sessionid",
    "source.local.sharedkeyhint",
    "source.local.unique",
    "source.policy",
];

/// What dockerd refuses, too, without containerd's image store.
const NEEDS_CONTAINERD: [&str; 2] = ["diffop", "mergeop"];

/// Of the front end.
pub(super) fn frontend() -> Vec<ApiCap> {
    FRONTEND.iter().map(|id| enabled(id)).collect()
}

/// Of the builder.
pub(super) fn builder() -> Vec<ApiCap> {
    let refused = NEEDS_CONTAINERD.iter().map(|id| ApiCap {
        id: (*id).to_string(),
        disabled_reason_msg: "only enabled with containerd image store backend".to_string(),
        ..ApiCap::default()
    });
    BUILDER.iter().map(|id| enabled(id)).chain(refused).collect()
}

fn enabled(id: &str) -> ApiCap {
    ApiCap { id: id.to_string(), enabled: true, deprecated: id == "solve.inlinereturn", ..ApiCap::default() }
}
