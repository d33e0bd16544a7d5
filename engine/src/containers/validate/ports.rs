//! Published ports.

use super::super::config::HostConfig;
use super::invalid;
use crate::error::Error;
use crate::text::go_quote;

/// Checks `PortBindings`.
///
/// # Errors
/// 400 `invalid port specification: "x"`.
pub(super) fn check_bindings(host: &HostConfig) -> Result<(), Error> {
    for (port, bindings) in host.port_bindings.iter().flatten() {
        let number = port.split('/').next().unwrap_or("");
        if !number.is_empty() && number.parse::<u16>().is_err() {
            return Err(refuse(number));
        }
        for binding in bindings.iter().flatten() {
            let range = &binding.host_port;
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let in_order = match (first.parse::<u16>(), last.parse::<u16>()) {
                (Ok(first), Ok(last)) => first <= last,
                _ => false,
            };
            if !range.is_empty() && !in_order {
                return Err(refuse(range));
            }
        }
    }
    Ok(())
}

fn refuse(port: &str) -> Error {
    invalid(format!("invalid port specification: {}", go_quote(port)))
}
