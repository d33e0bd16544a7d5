//! What is told of the builder itself, as dockerd tells it.

use std::net::IpAddr;

use wherry_buildkit::pb::control::{BuildkitVersion, GcPolicy, WorkerRecord};
use wherry_buildkit::pb::ops::Platform;

use crate::containers::host_gateways;
use crate::engine::Engine;
use crate::system::host;

/// What dockerd says of a BuildKit that it is linked with.
const PACKAGE: &str = "github.com/moby/buildkit";

/// The label that says what `host-gateway` stands for.
const HOST_GATEWAY: &str = "org.mobyproject.buildkit.worker.moby.host-gateway-ip";

/// What `Info` says.
pub(super) fn version() -> BuildkitVersion {
    BuildkitVersion {
        package: PACKAGE.into(),
        version: "v0.0.0+unknown".into(),
        ..BuildkitVersion::default()
    }
}

/// The engine as BuildKit's worker.
pub(super) fn record(engine: &Engine) -> WorkerRecord {
    let gateways = host_gateways(engine);
    let gateways = gateways.iter().map(IpAddr::to_string).collect::<Vec<_>>();
    let labels = Some(gateways).filter(|all| !all.is_empty());
    let labels = labels.map(|all| (HOST_GATEWAY.to_owned(), all.join(","))).into_iter().collect();
    WorkerRecord {
        id: engine.id.clone(),
        labels,
        platforms: platforms(),
        gc_policy: gc_policy(engine),
        buildkit_version: Some(BuildkitVersion {
            package: PACKAGE.into(),
            version: "v0.0.0+unknown-moby".into(),
            ..BuildkitVersion::default()
        }),
    }
}

/// What this machine's processor runs without help: its own kind in all versions that it has, and its 32-bit one.
fn platforms() -> Vec<Platform> {
    let of = |architecture: &str, variant: &str| Platform {
        architecture: architecture.into(),
        os: "linux".into(),
        variant: variant.into(),
        os_version: String::new(),
    };
    let architecture = host::go_arch();
    let mut platforms = vec![of(&architecture, "")];
    if architecture == "amd64" {
        platforms.extend(versions().iter().map(|version| of(&architecture, version)));
        platforms.push(of("386", ""));
    }
    platforms
}

/// The levels of x86-64 that the processor has beyond the first.
#[cfg(target_arch = "x86_64")]
fn versions() -> &'static [&'static str] {
    use std::is_x86_feature_detected as has;
    let v2 = has!("sse3") && has!("ssse3") && has!("sse4.1") && has!("sse4.2") && has!("popcnt");
    let v3 = v2 && has!("avx") && has!("avx2") && has!("bmi1") && has!("bmi2") && has!("f16c") && has!("fma");
    let v4 =
        v3 && has!("avx512f") && has!("avx512bw") && has!("avx512cd") && has!("avx512dq") && has!("avx512vl");
    match (v2, v3, v4) {
        (_, _, true) => &["v2", "v3", "v4"],
        (_, true, _) => &["v2", "v3"],
        (true, _, _) => &["v2"],
        _ => &[],
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn versions() -> &'static [&'static str] {
    &[]
}

/// Nothing leaves the cache by itself: `docker builder prune` empties it.
fn gc_policy(_: &Engine) -> Vec<GcPolicy> {
    Vec::new()
}
