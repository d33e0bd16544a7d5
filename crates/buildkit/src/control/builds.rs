//! The builds that are under way, by their names.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, watch};

use super::Progress;
use crate::grpc::{Code, Status};
use crate::pb::control::SolveRequest;
use crate::pb::gateway::ReturnRequest;
use crate::pb::ops::{Definition, Input, Op, OpMetadata, SourceOp};

/// How long calls about a build wait for it: its own call may come later than they do.
const ARRIVAL: Duration = Duration::from_secs(5);
/// How long the progress of a build that has ended is kept for those who ask for it too late.
const LINGERING: Duration = Duration::from_secs(10);
/// How definitions name the results of our own plans.
const SCHEME: &str = "wherry-plan://";

/// A build that is under way.
#[derive(Debug)]
pub(super) struct Build {
    /// What was asked for.
    pub(super) request: SolveRequest,
    /// What happens.
    pub(super) progress: Progress,
    /// How the client ended the front end's work.
    pub(super) returned: watch::Sender<Option<ReturnRequest>>,
}

/// All of them, and the plans that clients may refer to.
#[derive(Debug)]
pub(super) struct Builds<P> {
    state: Mutex<State<P>>,
    arrived: Notify,
}

#[derive(Debug)]
struct State<P> {
    builds: HashMap<String, Arc<Build>>,
    /// What was told of builds that have just ended, and when they did.
    ended: HashMap<String, (Instant, Progress)>,
    /// Plans by their id, with the build for which they were made.
    plans: HashMap<String, (String, Arc<P>)>,
    next_plan: u64,
}

impl<P> Default for Builds<P> {
    fn default() -> Self {
        let state =
            State { builds: HashMap::new(), ended: HashMap::new(), plans: HashMap::new(), next_plan: 0 };
        Self { state: Mutex::new(state), arrived: Notify::new() }
    }
}

impl<P> Builds<P> {
    fn lock(&self) -> MutexGuard<'_, State<P>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a build; it leaves when the guard is dropped.
    ///
    /// # Errors
    /// That the name is missing or taken.
    pub(super) fn add(self: &Arc<Self>, request: SolveRequest) -> Result<Guard<P>, Status> {
        let id = request.r#ref.clone();
        if id.is_empty() {
            return Err(Status::new(Code::InvalidArgument, "a build has no ref"));
        }
        let progress = Progress::new(&id);
        let build = Arc::new(Build { request, progress, returned: watch::Sender::new(None) });
        match self.lock().builds.entry(id.clone()) {
            std::collections::hash_map::Entry::Occupied(_) => {
                return Err(Status::unknown(format!("job ID {id} exists")));
            }
            std::collections::hash_map::Entry::Vacant(place) => place.insert(build.clone()),
        };
        self.arrived.notify_waiters();
        Ok(Guard { builds: self.clone(), build })
    }

    /// The build of a name; waits a little for one that is not there yet.
    ///
    /// # Errors
    /// That it does not come.
    pub(super) async fn get(&self, id: &str) -> Result<Arc<Build>, Status> {
        self.wait(id, |state| state.builds.get(id).cloned()).await
    }

    /// The progress of a build, also of one that has just ended: a client may ask for it while a short one ends.
    ///
    /// # Errors
    /// That there is no such build.
    pub(super) async fn progress(&self, id: &str) -> Result<Progress, Status> {
        let find = |state: &State<P>| {
            let running = state.builds.get(id).map(|build| build.progress.clone());
            running.or_else(|| state.ended.get(id).map(|(_, progress)| progress.clone()))
        };
        self.wait(id, find).await
    }

    /// Waits a little for what can be found once a build has begun.
    async fn wait<T>(&self, id: &str, find: impl Fn(&State<P>) -> Option<T>) -> Result<T, Status> {
        let look = async {
            loop {
                let mut arrival = std::pin::pin!(self.arrived.notified());
                arrival.as_mut().enable();
                let found = find(&self.lock());
                if let Some(found) = found {
                    return found;
                }
                arrival.await;
            }
        };
        let missing = |_| Status::new(Code::Unknown, format!("no such job {id}"));
        tokio::time::timeout(ARRIVAL, look).await.map_err(missing)
    }

    /// The build of a name, if it is under way.
    pub(super) fn find(&self, id: &str) -> Option<Arc<Build>> {
        self.lock().builds.get(id).cloned()
    }

    /// All builds.
    pub(super) fn all(&self) -> Vec<Arc<Build>> {
        self.lock().builds.values().cloned().collect()
    }

    /// Keeps a plan as long as its build lasts, and gives its id.
    pub(super) fn keep(&self, build: &str, plan: P) -> String {
        let mut state = self.lock();
        state.next_plan += 1;
        let id = format!("{build}-{}", state.next_plan);
        state.plans.insert(id.clone(), (build.to_string(), Arc::new(plan)));
        id
    }

    /// The plan of an id.
    ///
    /// # Errors
    /// That there is none.
    pub(super) fn plan(&self, id: &str) -> Result<Arc<P>, Status> {
        let found = self.lock().plans.get(id).map(|(_, plan)| plan.clone());
        found.ok_or_else(|| Status::new(Code::NotFound, format!("no such ref: {id}")))
    }

    /// The plan that a definition of ours names.
    ///
    /// # Errors
    /// A definition that is not ours, or whose plan has gone.
    pub(super) fn plan_of(&self, definition: &Definition) -> Result<Arc<P>, Status> {
        let named = definition.def.iter().find_map(|op| {
            let source = Op::decode(op.clone()).ok()?.source?;
            source.identifier.strip_prefix(SCHEME).map(str::to_string)
        });
        match named {
            Some(id) => self.plan(&id),
            None => Err(Status::new(
                Code::Unimplemented,
                "build graphs (LLB) made by clients are not supported by this engine: only Dockerfiles are",
            )),
        }
    }
}

/// A definition that names a plan: clients carry it from one build to another.
pub(super) fn definition(plan: &str) -> Definition {
    let source = SourceOp { identifier: format!("{SCHEME}{plan}"), ..SourceOp::default() };
    let source = Op { source: Some(source), ..Op::default() }.encode_to_vec();
    let mut digest = String::from("sha256:");
    for byte in Sha256::digest(&source) {
        use std::fmt::Write as _;
        // Writing to a String cannot fail.
        let _ = write!(digest, "{byte:02x}");
    }
    // Clients take a definition without metadata for none.
    let description = BTreeMap::from([("llb.customname".to_string(), "result of another build".to_string())]);
    let metadata = BTreeMap::from([(digest.clone(), OpMetadata { description })]);
    let last = Op { inputs: vec![Input { digest, index: 0 }], ..Op::default() }.encode_to_vec();
    Definition { def: vec![Bytes::from(source), Bytes::from(last)], metadata }
}

/// Keeps a build in the list.
#[derive(Debug)]
pub(super) struct Guard<P> {
    builds: Arc<Builds<P>>,
    pub(super) build: Arc<Build>,
}

impl<P> Drop for Guard<P> {
    fn drop(&mut self) {
        let id = &self.build.request.r#ref;
        let mut state = self.builds.lock();
        state.builds.remove(id);
        state.plans.retain(|_, (build, _)| build != id);
        let now = Instant::now();
        state.ended.retain(|_, (ended, _)| now.duration_since(*ended) < LINGERING);
        state.ended.insert(id.clone(), (now, self.build.progress.clone()));
        drop(state);
        self.build.progress.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_leads_back_to_its_plan() {
        let builds = Arc::new(Builds::default());
        let request = SolveRequest { r#ref: "b".into(), ..SolveRequest::default() };
        let guard = builds.add(request.clone()).unwrap();
        assert!(builds.add(request).is_err(), "a name is taken once");
        let definition = definition(&builds.keep("b", 7));
        assert_eq!(builds.plan_of(&definition).map(|p| *p), Ok(7));
        assert!(builds.plan_of(&Definition::default()).is_err());
        drop(guard);
        assert_eq!(builds.plan_of(&definition).map_err(|s| s.code), Err(Code::NotFound));
        assert!(builds.find("b").is_none());
    }

    #[tokio::test]
    async fn who_asks_for_a_short_build_too_late_still_hears_of_it() {
        let builds: Arc<Builds<()>> = Arc::default();
        let guard = builds.add(SolveRequest { r#ref: "short".into(), ..SolveRequest::default() }).unwrap();
        guard.build.progress.start("[internal] x").end(&Ok::<_, String>(()));
        drop(guard);
        let progress = builds.progress("short").await.unwrap();
        assert_eq!(progress.next(0).await.map(|news| news.len()), Some(3));
        assert_eq!(progress.next(3).await, None);
    }
}
