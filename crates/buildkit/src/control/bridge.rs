//! `LLBBridge`: how buildx talks to the front end of a build that it has begun.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::backend::{Backend, PlanRequest};
use super::builds::{self, Build};
use super::capabilities;
use super::service::Control;
use crate::grpc::{Call, Code, Status};
use crate::pb::Empty;
use crate::pb::control::VertexWarning;
use crate::pb::gateway::{
    EvaluateRequest, InputsResponse, PongResponse, Ref, ResolveImageConfigRequest, Result as FrontendResult,
    ReturnRequest, SolveRequest, SolveResponse, WarnRequest,
};

/// In which metadata calls name their build.
const BUILD_ID: &str = "buildkit-controlapi-buildid";

impl<B: Backend> Control<B> {
    /// Answers a call of the front end's service.
    pub(super) async fn bridge(&self, method: &str, mut call: Call) -> Result<(), Status> {
        let id = call.metadata.get(BUILD_ID).and_then(|v| v.to_str().ok()).unwrap_or_default().to_string();
        if id.is_empty() {
            return Err(Status::new(Code::InvalidArgument, "no buildid found in context"));
        }
        let build = self.builds.get(&id).await?;
        match method {
            "Ping" => {
                let _: Empty = call.reader.single().await?;
                let mut workers = self.backend.workers();
                for worker in &mut workers {
                    // What only ListWorkers tells.
                    worker.gc_policy.clear();
                    worker.buildkit_version = None;
                }
                let pong = PongResponse {
                    frontend_api_caps: capabilities::frontend(),
                    llb_caps: capabilities::builder(),
                    workers,
                };
                call.replier.send(&pong).await
            }
            "Solve" => {
                let request = call.reader.single().await?;
                let answer = self.solve_frontend(&build, request).await?;
                call.replier.send(&answer).await
            }
            "Return" => {
                let request: ReturnRequest = call.reader.single().await?;
                build.returned.send_replace(Some(request));
                call.replier.send(&Empty {}).await
            }
            "Evaluate" => {
                let request: EvaluateRequest = call.reader.single().await?;
                self.run(&build, self.builds.plan(&request.r#ref)?, Vec::new(), Vec::new()).await?;
                call.replier.send(&Empty {}).await
            }
            "Inputs" => {
                let _: Empty = call.reader.single().await?;
                let definitions = build.request.frontend_inputs.clone();
                call.replier.send(&InputsResponse { definitions }).await
            }
            "Warn" => {
                let warning: WarnRequest = call.reader.single().await?;
                build.progress.warn(to_vertex_warning(warning));
                call.replier.send(&Empty {}).await
            }
            "ResolveImageConfig" => {
                let request: ResolveImageConfigRequest = call.reader.single().await?;
                let answer = self.backend.resolve_image(request, build.request.session.clone()).await?;
                call.replier.send(&answer).await
            }
            _ => Err(Status::new(
                Code::Unimplemented,
                format!("method {method} of build front ends is not supported by this engine"),
            )),
        }
    }

    async fn solve_frontend(
        &self,
        build: &Arc<Build>,
        request: SolveRequest,
    ) -> Result<SolveResponse, Status> {
        if request.frontend.is_empty() {
            // A client that goes on with a result it was given.
            let Some(definition) = request.definition else {
                return Ok(SolveResponse { result: Some(FrontendResult::default()) });
            };
            self.builds.plan_of(&definition)?;
            return Err(Status::new(
                Code::Unimplemented,
                "results of other builds can only be used as named contexts with this engine",
            ));
        }
        let mut inputs = BTreeMap::new();
        // The client may have given them to the build as a whole.
        for (name, definition) in build.request.frontend_inputs.iter().chain(&request.frontend_inputs) {
            inputs.insert(name.clone(), self.builds.plan_of(definition)?);
        }
        let id = &build.request.r#ref;
        let mut cache_imports = request.cache_imports;
        cache_imports.extend(build.request.cache.iter().flat_map(|cache| cache.imports.clone()));
        let plan_request = PlanRequest {
            session: build.request.session.clone(),
            frontend: request.frontend,
            options: request.frontend_opt,
            cache_imports,
            inputs,
        };
        let planned = self.backend.plan(plan_request, build.progress.clone()).await?;
        let mut result = FrontendResult { metadata: planned.metadata, ..FrontendResult::default() };
        if let Some(plan) = planned.plan {
            let plan = self.builds.keep(id, plan);
            if request.evaluate {
                self.run(build, self.builds.plan(&plan)?, Vec::new(), Vec::new()).await?;
            }
            result.r#ref = Some(Ref { def: Some(builds::definition(&plan)), id: plan });
        } else {
            result.r#ref = Some(Ref::default());
        }
        Ok(SolveResponse { result: Some(result) })
    }
}

fn to_vertex_warning(warning: WarnRequest) -> VertexWarning {
    VertexWarning {
        vertex: warning.digest,
        level: warning.level,
        short: warning.short,
        detail: warning.detail,
        url: warning.url,
        info: warning.info,
        ranges: warning.ranges,
    }
}
