//! Links on the default bridge: the variables and /etc/hosts lines by which a container knows another.

use std::net::IpAddr;
use std::sync::Arc;

use hyper::StatusCode;

use super::network::{bridge_address, exposed, has_legacy_links, linked, parse_link};
use super::record::Record;
use super::table::Container;
use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::server::{Reply, response};

/// `DELETE /containers/RECEIVER/ALIAS?link=1`: the receiver no longer knows the other by this name. If it runs it does until its
/// next start, but what only the link has opened is closed.
///
/// # Errors
/// 409 for a container's own name, 404 for a receiver or a link that is not there.
pub(super) async fn remove(engine: &Arc<Engine>, name: &str) -> Result<Reply, Error> {
    let name = name.strip_prefix('/').unwrap_or(name);
    let Some((receiver, alias)) = name.split_once('/') else {
        engine.containers.find(name)?;
        return Err(Error::server("Conflict, cannot remove the default link name of the container"));
    };
    let missing = || Error::NotFound(format!("Could not get parent {receiver} for link {alias}"));
    let container = engine.containers.find(receiver).map_err(|_| missing())?;
    let alias = alias.to_owned();
    let _guard = container.transition.lock().await;
    if !container.record().host_config.links.iter().flatten().any(|link| parse_link(link).1 == alias) {
        return Err(missing());
    }
    let (data_root, task_container) = (engine.config().data_root.clone(), container.clone());
    blocking(move || {
        let changed = task_container.update(&data_root, |record| {
            let links = record.host_config.links.take().unwrap_or_default();
            let kept: Vec<String> = links.into_iter().filter(|link| parse_link(link).1 != alias).collect();
            record.host_config.links = Some(kept).filter(|kept| !kept.is_empty());
        });
        changed.map(drop)
    })
    .await?;
    close(engine, &container).await?;
    Ok(response::empty(StatusCode::NO_CONTENT).into())
}

/// Those who are linked to a container by its name know it by its new one. One rename at a time: the old name may become another's.
pub(super) async fn source_renamed(engine: &Engine, old: &str, new: &str) {
    let by_name = |link: &String| parse_link(link).0 == old;
    for receiver in engine.containers.all() {
        if !receiver.record().host_config.links.iter().flatten().any(by_name) {
            continue;
        }
        let _guard = receiver.transition.lock().await;
        if engine.containers.find(&receiver.id).is_err() {
            continue;
        }
        let (data_root, task_receiver) = (engine.config().data_root.clone(), receiver.clone());
        let (old, new) = (old.to_owned(), new.to_owned());
        let renamed = move |record: &mut Record| {
            for link in record.host_config.links.iter_mut().flatten() {
                let (source, alias) = parse_link(link);
                if source == old {
                    *link = format!("{new}:{alias}");
                }
            }
        };
        let saved = blocking(move || task_receiver.update(&data_root, renamed).map(drop)).await;
        if let Err(error) = saved {
            tracing::warn!(container = %receiver.id, %error, "a link has its source's old name");
        }
    }
}

/// Has netd open nothing to a receiver that its links do not open any more.
async fn close(engine: &Engine, receiver: &Container) -> Result<(), Error> {
    let Some(sandbox) = receiver.sandbox() else { return Ok(()) };
    let left = linked(engine, &receiver.record());
    for endpoint in sandbox.endpoints.iter().filter(|e| !left.is_superset(&e.spec.linked)) {
        let kept = endpoint.spec.linked.intersection(&left).cloned().collect();
        engine.netd.set_linked(&receiver.id, &endpoint.spec.network, kept).await?;
    }
    Ok(())
}

/// What a receiver gets.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// Environment variables.
    pub(super) env: Vec<String>,
    /// Address and names for /etc/hosts.
    pub(super) hosts: Vec<(IpAddr, Vec<String>)>,
}

/// Reads the links of a receiver that is about to start.
///
/// # Errors
/// 409 for a source that does not run, or is no longer there.
pub(super) fn resolve(engine: &Engine, receiver: &Record) -> Result<Links, Error> {
    let mut links = Links::default();
    if !has_legacy_links(receiver) {
        return Ok(links);
    }
    for link in receiver.host_config.links.iter().flatten() {
        let (name, alias) = parse_link(link);
        let source =
            engine.containers.find(name).ok().map(|source| (source.record(), bridge_address(&source)));
        let (record, address) = match source {
            Some((record, Some(address))) => (record, address),
            Some((record, None)) if !record.networks.contains_key("bridge") => {
                return Err(Error::server(format!(
                    "container {} not attached to default bridge network",
                    record.id
                )));
            }
            // One that was removed is told of as one that does not run.
            source => {
                let name =
                    source.map_or(name.trim_start_matches('/').into(), |(record, _)| record.name.clone());
                return Err(Error::Conflict(format!(
                    "Cannot link to a non running container: /{name} AS /{}/{alias}",
                    receiver.name
                )));
            }
        };
        links.env.extend(variables(&record, &receiver.name, alias, address.into()));
        links.hosts.push((address.into(), host_names(&record, alias)));
    }
    Ok(links)
}

fn host_names(source: &Record, alias: &str) -> Vec<String> {
    let mut names = vec![alias.to_owned()];
    for name in [&source.config.hostname, &source.name] {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

fn variables(source: &Record, receiver: &str, alias: &str, address: IpAddr) -> Vec<String> {
    let prefix = alias.replace('-', "_").to_uppercase();
    let mut env = vec![format!("{prefix}_NAME=/{receiver}/{alias}")];
    let ports = exposed(source);
    // The first one is the link's own.
    if let Some((protocol, number)) = ports.first() {
        env.push(format!("{prefix}_PORT={protocol}://{address}:{number}"));
    }
    for (protocol, number) in &ports {
        let name = format!("{prefix}_PORT_{number}_{}", protocol.to_string().to_uppercase());
        env.push(format!("{name}={protocol}://{address}:{number}"));
        env.push(format!("{name}_ADDR={address}"));
        env.push(format!("{name}_PORT={number}"));
        env.push(format!("{name}_PROTO={protocol}"));
    }
    // A run of neighbours has its two ends besides, under the name of the first.
    for run in ports.chunk_by(|a, b| a.0 == b.0 && a.1.checked_add(1) == Some(b.1)) {
        let [(protocol, first), .., (_, last)] = run else { continue };
        let name = format!("{prefix}_PORT_{first}_{}", protocol.to_string().to_uppercase());
        for (end, number) in [("START", first), ("END", last)] {
            env.push(format!("{name}_{end}={protocol}://{address}:{number}"));
            env.push(format!("{name}_PORT_{end}={number}"));
        }
    }
    for variable in source.config.env.iter().flatten() {
        let Some((name, value)) = variable.split_once('=') else { continue };
        if name != "HOME" && name != "PATH" {
            env.push(format!("{prefix}_ENV_{name}={value}"));
        }
    }
    env
}

/// A container that others link to has started, perhaps with another address: their /etc/hosts is written anew.
pub(super) fn refresh_receivers(engine: &Arc<Engine>, source: &Arc<Container>) {
    for receiver in engine.containers.all() {
        let record = receiver.record();
        if !has_legacy_links(&record) || !receiver.status().state.is_running() {
            continue;
        }
        let linked =
            record.host_config.links.iter().flatten().any(|link| {
                engine.containers.find(parse_link(link).0).is_ok_and(|found| found.id == source.id)
            });
        let Some(sandbox) = receiver.sandbox().filter(|_| linked) else { continue };
        let rewritten = resolve(engine, &record).and_then(|links| {
            super::start::write_etc(
                engine,
                &record,
                &super::network::Joined::Own(Box::new((*sandbox).clone())),
                &links,
            )
        });
        if let Err(error) = rewritten {
            tracing::warn!(container = %receiver.id, %error, "the hosts file could not be brought up to date");
        }
    }
}
