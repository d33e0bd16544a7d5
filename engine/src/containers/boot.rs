//! What comes up with the engine, and in which order: a container after those that it needs, by its links, by the namespaces
//! that it joins, and by Compose's `depends_on`, which is in its labels. Compose itself is not there after a reboot.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use wherry_monitor_api::HealthStatus;

use super::network::parse_link;
use super::record::Record;
use super::state::State;
use super::table::Container;
use super::{remove, start};
use crate::engine::Engine;

const DEPENDS_ON: &str = "com.docker.compose.depends_on";
const PROJECT: &str = "com.docker.compose.project";
const SERVICE: &str = "com.docker.compose.service";
/// So many are started at once.
const AT_ONCE: usize = 8;
/// How long a container waits for another to become healthy or to complete; then it is started all the same.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a container waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Started,
    Healthy,
    Completed,
}

/// What a container needs: another by name or id, or all of a Compose service.
#[derive(Debug, PartialEq, Eq)]
enum Need {
    Container(String),
    Service(String),
}

/// A container, as far as its place in the order is concerned.
#[derive(Debug)]
struct Node {
    id: String,
    name: String,
    /// Compose's project and service.
    service: Option<(String, String)>,
    needs: Vec<(Need, Condition)>,
}

/// Starts again what a restart policy wants to run, and removes what `--rm` wants gone. While clients are
/// served, since a container may need the API to come up.
pub(super) async fn resume(engine: Arc<Engine>) {
    let mut wanted = Vec::new();
    for container in engine.containers.all() {
        let before = container.status().state.clone();
        let State::Exited { exit } = &before else { continue };
        let record = container.record();
        if record.host_config.auto_remove {
            tell(&container, remove::remove(&engine, &container, remove::Options::auto()).await);
        } else if is_wanted(&container, exit.code) {
            wanted.push((container, before));
        }
    }
    wanted.sort_by_key(|(container, _)| container.record().created_ns);
    let nodes: Vec<Node> = wanted.iter().map(|(container, _)| Node::of(&container.record())).collect();
    // Each says when its start has been tried.
    let done: Vec<watch::Sender<bool>> = nodes.iter().map(|_| watch::channel(false).0).collect();
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut starts = tokio::task::JoinSet::new();
    for (index, waits) in waits(&nodes).into_iter().enumerate() {
        let waits: Vec<_> = waits
            .into_iter()
            .filter_map(|(other, condition)| {
                Some((wanted.get(other)?.0.clone(), done.get(other)?.subscribe(), condition))
            })
            .collect();
        let (Some((container, before)), Some(done)) = (wanted.get(index).cloned(), done.get(index).cloned())
        else {
            continue;
        };
        let (engine, places) = (engine.clone(), places.clone());
        starts.spawn(async move {
            for (other, mut started, condition) in waits {
                // Its sender lives until it has been tried.
                let _ = started.wait_for(|started| *started).await;
                fulfilled(&other, condition).await;
            }
            // The semaphore is never closed.
            let _place = places.acquire().await;
            start_again(engine, container, before).await;
            // Also for those that subscribe later.
            done.send_replace(true);
        });
    }
    starts.join_all().await;
}

/// What follows the end of one container that nobody was there to see, as [`resume`] does for all.
pub(super) async fn resume_one(engine: &Arc<Engine>, container: &Arc<Container>) {
    let State::Exited { exit } = container.status().state.clone() else { return };
    if engine.is_stopping() {
        return;
    }
    if container.record().host_config.auto_remove {
        tell(container, remove::remove(engine, container, remove::Options::auto()).await);
    } else if is_wanted(container, exit.code) {
        let before = State::Exited { exit };
        start_again(engine.clone(), container.clone(), before).await;
    }
}

/// Starts it, now or later, if it is still in the state `before`.
async fn start_again(engine: Arc<Engine>, container: Arc<Container>, before: State) {
    // Not what the user has started and stopped in the meantime.
    if container.status().state != before {
        return;
    }
    tracing::info!(container = %container.id, "starting it again");
    let started = start::start(&engine, &container).await;
    if started.as_ref().is_err_and(|error| !matches!(error, crate::error::Error::NotModified)) {
        tokio::spawn(keep_trying(engine, container.clone(), before));
    }
    tell(&container, started);
}

/// What keeps a container from starting after a boot may pass: a file system that is not mounted yet, a port that another program
/// has. It is tried again until it runs or has run since it was in the state `before`, is removed, or its policy is taken away.
async fn keep_trying(engine: Arc<Engine>, container: Arc<Container>, before: State) {
    let mut pause = Duration::from_secs(1);
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(60));
        let gone = engine.containers.find(&container.id).is_err();
        let state = container.status().state.clone();
        let wanted = !matches!(container.record().host_config.restart_policy.name.as_str(), "" | "no");
        if gone || !wanted || engine.is_stopping() {
            return;
        }
        if state == State::Starting {
            // Somebody else tries just now: how that goes is seen next time.
            continue;
        }
        if state != before {
            return;
        }
        match start::start(&engine, &container).await {
            Ok(()) => return tracing::info!(container = %container.id, "it has started after all"),
            Err(error) => tracing::warn!(container = %container.id, %error, "it still does not start"),
        }
    }
}

fn tell(container: &Container, done: Result<(), crate::error::Error>) {
    match done {
        // A client was quicker.
        Ok(()) | Err(crate::error::Error::NotModified) => {}
        Err(error) => tracing::error!(container = %container.id, %error, "after an end that nobody saw"),
    }
}

fn is_wanted(container: &Container, code: i32) -> bool {
    let status = container.status();
    let policy = &container.record().host_config.restart_policy;
    let tries_left =
        policy.maximum_retry_count == 0 || i64::from(status.restart_count) < policy.maximum_retry_count;
    match policy.name.as_str() {
        "always" => true,
        "unless-stopped" => !status.manually_stopped,
        "on-failure" => code != 0 && !status.manually_stopped && tries_left,
        _ => false,
    }
}

/// Waits until a started container is what another needs, or will not be so soon.
async fn fulfilled(container: &Container, condition: Condition) {
    let mut status = container.watch();
    let settled = status.wait_for(|status| match condition {
        Condition::Started => true,
        Condition::Completed => !status.state.is_running(),
        Condition::Healthy => {
            !status.state.is_running()
                || status.health.as_ref().is_none_or(|health| health.status != HealthStatus::Starting)
        }
    });
    if tokio::time::timeout(PATIENCE, settled).await.is_err() {
        tracing::warn!(container = %container.id, ?condition, "others need it so; they are not made to wait longer");
    }
}

impl Node {
    fn of(record: &Record) -> Self {
        let labels = record.labels();
        let label = |name: &str| labels.get(name).cloned();
        let host = &record.host_config;
        let of_networks =
            record.networks.values().flat_map(|network| network.settings.links.iter().flatten());
        let links = host.links.iter().flatten().chain(of_networks).map(|link| parse_link(link).0.to_owned());
        let joined = [&host.network_mode, &host.ipc_mode, &host.pid_mode]
            .into_iter()
            .filter_map(|mode| mode.strip_prefix("container:").map(str::to_owned));
        let mut needs: Vec<_> =
            links.chain(joined).map(|other| (Need::Container(other), Condition::Started)).collect();
        needs.extend(depends_on(&label(DEPENDS_ON).unwrap_or_default()));
        Self {
            id: record.id.clone(),
            name: record.name.clone(),
            service: label(PROJECT).zip(label(SERVICE)),
            needs,
        }
    }

    fn meets(&self, need: &Need, project: Option<&str>) -> bool {
        match need {
            Need::Container(other) => self.name == *other || self.id.starts_with(other.as_str()),
            Need::Service(service) => {
                self.service.as_ref().is_some_and(|(p, s)| Some(p.as_str()) == project && s == service)
            }
        }
    }
}

/// Reads Compose's label: `db:service_healthy:false,cache:service_started:false`.
fn depends_on(label: &str) -> Vec<(Need, Condition)> {
    label
        .split(',')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let mut words = part.split(':');
            let service = words.next().unwrap_or_default().to_owned();
            let condition = match words.next() {
                Some("service_healthy") => Condition::Healthy,
                Some("service_completed_successfully") => Condition::Completed,
                _ => Condition::Started,
            };
            (Need::Service(service), condition)
        })
        .collect()
}

/// For each, which of the others it waits for. Where they wait for each other, the older one does not.
fn waits(nodes: &[Node]) -> Vec<Vec<(usize, Condition)>> {
    let needed = |node: &Node| -> Vec<(usize, Condition)> {
        let project = node.service.as_ref().map(|(project, _)| project.as_str());
        let meets = |need: &Need| {
            let met: Vec<usize> = (0..nodes.len())
                .filter(|i| nodes.get(*i).is_some_and(|n| n.id != node.id && n.meets(need, project)))
                .collect();
            met
        };
        node.needs
            .iter()
            .flat_map(|(need, condition)| meets(need).into_iter().map(|i| (i, *condition)))
            .collect()
    };
    let mut waits: Vec<Vec<(usize, Condition)>> = nodes.iter().map(|_| Vec::new()).collect();
    for (index, node) in nodes.iter().enumerate() {
        for (other, condition) in needed(node) {
            if !reaches(&waits, other, index)
                && let Some(own) = waits.get_mut(index)
            {
                own.push((other, condition));
            }
        }
    }
    waits
}

/// Whether `from` waits for `to`, perhaps through others.
fn reaches(waits: &[Vec<(usize, Condition)>], from: usize, to: usize) -> bool {
    let (mut open, mut seen) = (vec![from], std::collections::HashSet::new());
    while let Some(index) = open.pop() {
        if index == to {
            return true;
        }
        if seen.insert(index) {
            open.extend(waits.get(index).into_iter().flatten().map(|(other, _)| *other));
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, service: Option<(&str, &str)>, links: &[&str], depends: &str) -> Node {
        let mut needs: Vec<_> =
            links.iter().map(|link| (Need::Container((*link).to_owned()), Condition::Started)).collect();
        needs.extend(depends_on(depends));
        let service = service.map(|(project, service)| (project.to_owned(), service.to_owned()));
        Node { id: format!("{name}-id"), name: name.to_owned(), service, needs }
    }

    #[test]
    fn links_and_labels_make_the_order() {
        let nodes = [
            node(
                "web-1",
                Some(("shop", "web")),
                &[],
                "db:service_healthy:false,job:service_completed_successfully:true",
            ),
            node("db-1", Some(("shop", "db")), &[], ""),
            node("db-2", Some(("shop", "db")), &[], ""),
            node("other", Some(("another", "db")), &[], ""),
            node("plain", None, &["db-1", "gone"], ""),
            node("job-1", Some(("shop", "job")), &[], "db:service_started:false"),
        ];
        let expect: [&[(usize, Condition)]; 6] = [
            &[(1, Condition::Healthy), (2, Condition::Healthy), (5, Condition::Completed)],
            &[],
            &[],
            &[],
            &[(1, Condition::Started)],
            &[(1, Condition::Started), (2, Condition::Started)],
        ];
        assert_eq!(waits(&nodes), expect);
    }

    #[test]
    fn who_waits_for_each_other_does_not_wait_for_ever() {
        let nodes =
            [node("a", None, &["b"], ""), node("b", None, &["c"], ""), node("c", None, &["a", "c"], "")];
        assert_eq!(waits(&nodes), [vec![(1, Condition::Started)], vec![(2, Condition::Started)], vec![]]);
    }
}
