//! `GET /containers/{id}/top`: the host's `ps`, as far as it shows a container's processes.

use std::sync::Arc;

use hyper::StatusCode;
use serde_json::{Value, json};
use wherry_monitor_api as api;

use super::lifecycle;
use super::monitor::CallError;
use super::state::State;
use super::table::Container;
use crate::engine::Engine;
use crate::error::Error;
use crate::server::{Reply, Request, response};

/// `GET /containers/{id}/top`.
pub(super) async fn top(
    engine: Arc<Engine>,
    container: Arc<Container>,
    request: Request,
) -> Result<Reply, Error> {
    let arguments = request.query.get("ps_args").unwrap_or("-ef").to_owned();
    if !matches!(container.status().state, State::Running { .. }) {
        return Err(Error::NotRunning(container.id.clone()));
    }
    let monitor =
        lifecycle::monitor(&container).await.ok_or_else(|| Error::NotRunning(container.id.clone()))?;
    let pids = match monitor.call(api::Request::Processes, &[]).await {
        Ok(api::Reply::Processes(pids)) => pids,
        Ok(_) => return Err(lifecycle::broken(&container, &CallError::Unexpected)),
        Err(error) => return Err(lifecycle::broken(&container, &error)),
    };
    let output = tokio::process::Command::new("ps")
        .args(arguments.split_whitespace())
        .output()
        .await
        .map_err(Error::io("run", "ps"))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        let first = reason.lines().next().unwrap_or("").trim_start_matches("ps: ");
        return Err(Error::server(format!("ps: {first}")));
    }
    let shown = table_of(&String::from_utf8_lossy(&output.stdout), &pids)?;
    super::publish(&engine, &container, "top");
    Ok(response::json(StatusCode::OK, &shown).into())
}

/// The rows of `ps` that belong to `pids`.
fn table_of(output: &str, pids: &[i32]) -> Result<Value, Error> {
    let mut lines = output.lines();
    let titles: Vec<&str> = lines.next().unwrap_or("").split_whitespace().collect();
    let column = titles
        .iter()
        .position(|t| *t == "PID")
        .ok_or_else(|| Error::server("Couldn't find PID field in ps output"))?;
    let rows: Vec<Vec<String>> = lines
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let pid: i32 = words.get(column)?.parse().ok()?;
            if !pids.contains(&pid) || words.len() < titles.len() {
                return None;
            }
            // The last column holds the command, spaces and all.
            let (head, tail) = words.split_at(titles.len() - 1);
            Some(head.iter().map(|w| (*w).to_owned()).chain([tail.join(" ")]).collect())
        })
        .collect();
    Ok(json!({ "Processes": rows, "Titles": titles }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn top_shows_the_rows_of_the_container_with_whole_commands() {
        let output = "UID PID CMD\nroot 1 init\nroot 42 sh -c  sleep 1\nroot 43 x\n";
        let shown = table_of(output, &[42]).unwrap();
        assert_eq!(
            shown,
            json!({ "Processes": [["root", "42", "sh -c sleep 1"]], "Titles": ["UID", "PID", "CMD"] })
        );
        assert!(table_of("A B\n", &[1]).is_err());
    }
}
