//! The options of network drivers: `com.docker.network.*`, `parent` and modes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use wherry_netd::protocol::{Driver, GatewayMode, NetworkSpec, SubInterfaces};

use crate::error::Error;
use crate::text::go_quote;

const MTU: &str = "com.docker.network.driver.mtu";
const PREFIX: &str = "com.docker.network.container_iface_prefix";
const BRIDGE: &str = "com.docker.network.bridge.";

const ANNOUNCEMENTS: &str = "com.docker.network.advertise_addr_nmsgs";
const ANNOUNCEMENTS_EVERY: &str = "com.docker.network.advertise_addr_ms";

/// Puts what the driver's options say into the network's description. Options that no driver knows are kept and shown, and
/// mean nothing, as in dockerd.
///
/// # Errors
/// 400 with dockerd's texts; 500 for what is wrong with announcements.
pub(super) fn apply(given: &BTreeMap<String, String>, spec: &mut NetworkSpec) -> Result<(), Error> {
    spec.unannounced = announcements(given).map_err(Error::server)? == Some(0);
    match spec.driver {
        Driver::Bridge => bridge(given, spec),
        Driver::Macvlan => sub_interfaces(given, spec, "macvlan_mode", "bridge"),
        Driver::Ipvlan => sub_interfaces(given, spec, "ipvlan_mode", "l2"),
        Driver::Host | Driver::Null | Driver::Description => Ok(()),
    }
}

fn wrong(option: &str, value: &str, why: &str) -> Error {
    Error::InvalidParameter(format!("failed to parse {option} value: {value} ({why})"))
}

fn bridge(given: &BTreeMap<String, String>, spec: &mut NetworkSpec) -> Result<(), Error> {
    for (option, value) in given {
        let failed = |why: String| wrong(option, value, &why);
        let flag = || crate::config::go_bool(value).map_err(failed);
        match option.strip_prefix(BRIDGE) {
            None if option == MTU => spec.mtu = mtu(value).map_err(failed)?,
            None if option == PREFIX && !value.is_empty() => spec.interface_prefix = Some(value.clone()),
            None => {}
            Some("name") if !value.is_empty() => spec.bridge = Some(value.clone()),
            Some("enable_icc") => spec.icc = flag()?,
            Some("enable_ip_masquerade") => spec.masquerade = flag()?,
            Some("host_binding_ipv4") => {
                let ip: IpAddr = value.parse().map_err(|_| failed("nil ip".into()))?;
                spec.host_binding = Some(ip);
            }
            Some("inhibit_ipv4") => spec.inhibit_ipv4 = flag()?,
            Some("gateway_mode_ipv4") => spec.gateway_mode_v4 = mode(value).map_err(failed)?,
            Some("gateway_mode_ipv6") => spec.gateway_mode_v6 = mode(value).map_err(failed)?,
            Some("trusted_host_interfaces") => {
                let names = value.split(':').filter(|name| !name.is_empty());
                spec.trusted_interfaces = names.map(ToString::to_string).collect();
                if let Some(bad) = spec.trusted_interfaces.iter().find(|name| !is_interface(name)) {
                    return Err(failed(format!("invalid interface name {}", go_quote(bad))));
                }
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// How often the network is told where a new container's addresses are, if that is said. Once is as good as three times on a bridge,
/// which loses nothing: so the number means whether at all, and the pause between two nothing.
fn announcements(given: &BTreeMap<String, String>) -> Result<Option<i64>, String> {
    let read = |option: &str, range: std::ops::RangeInclusive<i64>, what: &str| {
        let Some(text) = given.get(option) else { return Ok(None) };
        let number = text.parse::<i64>();
        let number =
            number.map_err(|_| format!("value for option {option} {} must be {what}", go_quote(text)))?;
        if range.contains(&number) {
            return Ok(Some(number));
        }
        Err(format!("{option} must be in the range {} to {}", range.start(), range.end()))
    };
    let count = read(ANNOUNCEMENTS, 0..=3, "an integer");
    let pause = read(ANNOUNCEMENTS_EVERY, 100..=2000, "integer milliseconds");
    match (count, pause) {
        (Ok(count), Ok(_)) => Ok(count),
        (count, pause) => {
            Err([count.err(), pause.err()].into_iter().flatten().collect::<Vec<_>>().join("\n"))
        }
    }
}

/// Whether this can stand in a firewall rule as an interface.
fn is_interface(name: &str) -> bool {
    const LONGEST: usize = 15;
    name.len() <= LONGEST && name.bytes().all(|b| b.is_ascii_graphic() && !b"/'\"\\!".contains(&b))
}

fn mode(text: &str) -> Result<GatewayMode, String> {
    match text {
        "" | "nat" => Ok(GatewayMode::Nat),
        "nat-unprotected" => Ok(GatewayMode::NatUnprotected),
        "routed" => Ok(GatewayMode::Routed),
        "isolated" => Ok(GatewayMode::Isolated),
        other => Err(format!("unknown gateway mode {other}")),
    }
}

/// `None` for the default.
fn mtu(text: &str) -> Result<Option<u32>, String> {
    let number: i64 =
        text.parse().map_err(|_| format!("strconv.Atoi: parsing {}: invalid syntax", go_quote(text)))?;
    let number = u32::try_from(number).map_err(|_| format!("invalid MTU number: {number}"))?;
    Ok(Some(number).filter(|mtu| *mtu > 0))
}

/// The options of macvlan and ipvlan.
fn sub_interfaces(
    given: &BTreeMap<String, String>,
    spec: &mut NetworkSpec,
    mode_option: &str,
    mode: &str,
) -> Result<(), Error> {
    let option = |name: &str| given.get(name).map(String::as_str).unwrap_or_default();
    let chosen = Some(option(mode_option)).filter(|m| !m.is_empty()).unwrap_or(mode);
    if let Some(value) = given.get(MTU) {
        spec.mtu = mtu(value).map_err(|why| wrong(MTU, value, &why))?;
    }
    spec.sub = Some(SubInterfaces {
        parent: option("parent").into(),
        mode: chosen.into(),
        flag: option("ipvlan_flag").into(),
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(driver: Driver, options: &[(&str, &str)]) -> Result<NetworkSpec, String> {
        let mut spec = NetworkSpec { driver, ..NetworkSpec::default() };
        let given = options.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string()));
        apply(&given.collect(), &mut spec).map_err(|e| e.to_string())?;
        Ok(spec)
    }

    #[test]
    fn bridge_options() {
        let spec = read(
            Driver::Bridge,
            &[
                ("com.docker.network.bridge.gateway_mode_ipv4", "routed"),
                ("com.docker.network.bridge.gateway_mode_ipv6", "nat-unprotected"),
                ("com.docker.network.bridge.trusted_host_interfaces", "eth0:eth1"),
                ("com.docker.network.bridge.inhibit_ipv4", "true"),
                ("com.docker.network.container_iface_prefix", "foo"),
                ("com.docker.network.driver.mtu", "1400"),
                ("unknown", "x"),
            ],
        )
        .unwrap();
        assert_eq!(
            (spec.gateway_mode_v4, spec.gateway_mode_v6),
            (GatewayMode::Routed, GatewayMode::NatUnprotected)
        );
        assert_eq!(spec.trusted_interfaces, ["eth0", "eth1"]);
        assert_eq!((spec.inhibit_ipv4, spec.mtu), (true, Some(1400)));
        assert_eq!(spec.interface_prefix.as_deref(), Some("foo"));
        let mode = "com.docker.network.bridge.gateway_mode_ipv4";
        let refused = read(Driver::Bridge, &[(mode, "bogus")]).unwrap_err();
        assert_eq!(refused, format!("failed to parse {mode} value: bogus (unknown gateway mode bogus)"));
        let refused = read(Driver::Bridge, &[(MTU, "x")]).unwrap_err();
        assert!(refused.ends_with("(strconv.Atoi: parsing \"x\": invalid syntax)"), "{refused}");
        for bad in ["a b", "waytoolonginterface", "a\"b", "!eth0"] {
            let trusted = "com.docker.network.bridge.trusted_host_interfaces";
            assert!(read(Driver::Bridge, &[(trusted, bad)]).is_err(), "{bad}");
        }
    }

    #[test]
    fn announcements_are_once_or_never() {
        let (count, pause) = (ANNOUNCEMENTS, ANNOUNCEMENTS_EVERY);
        assert!(read(Driver::Bridge, &[(count, "0")]).unwrap().unannounced);
        assert!(!read(Driver::Bridge, &[(count, "3"), (pause, "2000")]).unwrap().unannounced);
        for (options, expect) in [
            (vec![(count, "4")], format!("{count} must be in the range 0 to 3")),
            (vec![(count, "x")], format!("value for option {count} \"x\" must be an integer")),
            (vec![(pause, "99")], format!("{pause} must be in the range 100 to 2000")),
            (vec![(pause, "x")], format!("value for option {pause} \"x\" must be integer milliseconds")),
        ] {
            assert_eq!(read(Driver::Macvlan, &options).unwrap_err(), expect);
        }
    }

    #[test]
    fn parents_and_modes() {
        let spec = read(Driver::Macvlan, &[("parent", "eth0.10"), ("macvlan_mode", "vepa")]).unwrap();
        let sub = spec.sub.unwrap();
        assert_eq!((sub.parent.as_str(), sub.mode.as_str()), ("eth0.10", "vepa"));
        assert_eq!(read(Driver::Ipvlan, &[]).unwrap().sub.unwrap().mode, "l2");
    }
}
