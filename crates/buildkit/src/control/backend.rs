//! What the engine gives.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use super::Progress;
use crate::grpc::Status;
use crate::pb::control::{
    BuildkitVersion, CacheOptionsEntry, DiskUsageRequest, Exporter, PruneRequest, UsageRecord, WorkerRecord,
};
use crate::pb::gateway::{ResolveImageConfigRequest, ResolveImageConfigResponse};

/// The builder behind the wire.
pub trait Backend: Send + Sync + 'static {
    /// A build that is known but not done.
    type Plan: Send + Sync + 'static;

    /// The workers: one.
    fn workers(&self) -> Vec<WorkerRecord>;

    /// What `Info` says.
    fn version(&self) -> BuildkitVersion;

    /// The cache's records.
    ///
    /// # Errors
    /// What the client is told.
    fn disk_usage(
        &self,
        request: DiskUsageRequest,
    ) -> impl Future<Output = Result<Vec<UsageRecord>, Status>> + Send;

    /// Removes records of the cache, and says which.
    ///
    /// # Errors
    /// What the client is told.
    fn prune(&self, request: PruneRequest) -> impl Future<Output = Result<Vec<UsageRecord>, Status>> + Send;

    /// Reads what is to be built; a subrequest (`requestid`) is answered in the metadata alone.
    ///
    /// # Errors
    /// What the client is told, with the place in the Dockerfile among the details.
    fn plan(
        &self,
        request: PlanRequest<Self::Plan>,
        progress: Progress,
    ) -> impl Future<Output = Result<Planned<Self::Plan>, Status>> + Send;

    /// Builds, and exports. Dropping it stops the build.
    ///
    /// # Errors
    /// What the client is told.
    fn build(
        &self,
        request: BuildRequest<Self::Plan>,
        progress: Progress,
    ) -> impl Future<Output = Result<Outcome, Status>> + Send;

    /// An image's configuration.
    ///
    /// # Errors
    /// What the client is told.
    fn resolve_image(
        &self,
        request: ResolveImageConfigRequest,
        session: String,
    ) -> impl Future<Output = Result<ResolveImageConfigResponse, Status>> + Send;
}

/// What the front end is asked for.
#[derive(Debug)]
pub struct PlanRequest<P> {
    /// The client's session.
    pub session: String,
    /// `dockerfile.v0` or `gateway.v0`.
    pub frontend: String,
    /// Its attributes: `filename`, `target`, `build-arg:NAME`, `context:NAME`, …
    pub options: BTreeMap<String, String>,
    /// Caches to take from.
    pub cache_imports: Vec<CacheOptionsEntry>,
    /// Plans of other builds, by the name under which this one uses their results.
    pub inputs: BTreeMap<String, Arc<P>>,
}

/// The front end's answer.
#[derive(Debug)]
pub struct Planned<P> {
    /// What can be built; nothing where the metadata is all.
    pub plan: Option<P>,
    /// `result.txt`, `containerimage.config`, …
    pub metadata: BTreeMap<String, Vec<u8>>,
}

/// What a build has left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What the exporters say: `containerimage.digest`, …
    pub response: BTreeMap<String, String>,
    /// What it was made of: a SLSA predicate, version 0.2. Nothing where it was none.
    pub provenance: Vec<u8>,
    /// The image's configuration, if it has become one.
    pub config: Option<Vec<u8>>,
}

/// A plan that is to be built.
#[derive(Debug)]
pub struct BuildRequest<P> {
    /// The build's name.
    pub id: String,
    /// The client's session.
    pub session: String,
    /// What to build.
    pub plan: Arc<P>,
    /// What to do with the result.
    pub exporters: Vec<Exporter>,
    /// Caches to write to.
    pub cache_exports: Vec<CacheOptionsEntry>,
    /// What the client allows: `network.host`, `security.insecure`.
    pub entitlements: Vec<String>,
}
