//! Options' values: read from a flag's text or from JSON, with dockerd's complaints.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::Value as Json;

use crate::text::{BINARY, go_quote, go_size};

/// What an option takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// A switch; the flag alone means true.
    Bool,
    Int,
    Text,
    /// A size such as `64m`.
    Bytes,
    /// One address.
    Ip,
    /// Addresses; the flag takes several, separated by commas.
    Ips,
    /// The flag may be repeated; each value goes through the function.
    List(fn(&str) -> Result<String, String>),
    /// `key=value`, repeatable.
    Map,
    /// `outer=key=value`, repeatable.
    NestedMap,
    /// `name=soft[:hard]`, repeatable.
    Ulimits,
    /// `base=10.0.0.0/8,size=24`, repeatable.
    Pools,
    /// Not looked into.
    Opaque,
}

/// An option's value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    Int(i64),
    Text(String),
    Ips(Vec<IpAddr>),
    List(Vec<String>),
    Map(BTreeMap<String, String>),
    Ulimits(Limits),
    Pools(Vec<(IpNetwork, u8)>),
    Opaque(Json),
}

impl Kind {
    /// Whether the flag stands alone.
    pub(super) fn is_switch(self) -> bool {
        matches!(self, Self::Bool)
    }

    /// The placeholder in `--help`.
    pub(super) fn placeholder(self) -> &'static str {
        match self {
            Self::Bool => "",
            Self::Int => "int",
            Self::Text => "string",
            Self::Bytes => "bytes",
            Self::Ip => "ip",
            Self::Ips => "ipSlice",
            Self::List(_) => "list",
            Self::Map | Self::Opaque => "map",
            Self::NestedMap => "mapmap",
            Self::Ulimits => "ulimit",
            Self::Pools => "pool-options",
        }
    }

    /// Reads a flag's text; `before` is what earlier uses of a repeatable flag gave.
    pub(super) fn read_flag(self, text: &str, before: Option<Value>) -> Result<Value, String> {
        match self {
            Self::Bool => go_bool(text).map(Value::Bool),
            Self::Int => text
                .parse()
                .map(Value::Int)
                .map_err(|_| format!("strconv.ParseInt: parsing {}: invalid syntax", go_quote(text))),
            Self::Text => Ok(Value::Text(text.into())),
            Self::Bytes => bytes(text).map(Value::Int),
            Self::Ip => match text.parse::<IpAddr>() {
                Ok(ip) => Ok(Value::Text(ip.to_string())),
                Err(_) => Err(format!("failed to parse IP: {}", go_quote(text))),
            },
            Self::Ips => {
                let mut ips = if let Some(Value::Ips(ips)) = before { ips } else { Vec::new() };
                for part in text.split(',').map(str::trim) {
                    ips.push(
                        part.parse()
                            .map_err(|_| format!("invalid string being converted to IP address: {part}"))?,
                    );
                }
                Ok(Value::Ips(ips))
            }
            Self::List(check) => {
                let mut list = if let Some(Value::List(list)) = before { list } else { Vec::new() };
                list.push(check(text)?);
                Ok(Value::List(list))
            }
            Self::Map => {
                let mut map = if let Some(Value::Map(map)) = before { map } else { BTreeMap::new() };
                let (key, value) = text.split_once('=').unwrap_or((text, ""));
                map.insert(key.into(), value.into());
                Ok(Value::Map(map))
            }
            Self::NestedMap => {
                match text.split_once('=').map(|(outer, inner)| (outer, inner.split_once('='))) {
                    Some((outer, Some((key, value)))) => {
                        let mut all = match before {
                            Some(Value::Opaque(all @ Json::Object(_))) => all,
                            _ => serde_json::json!({}),
                        };
                        all[outer][key] = Json::from(value);
                        Ok(Value::Opaque(all))
                    }
                    _ => Err(format!(
                        "invalid value {} for map option, should be root-key=key=value",
                        go_quote(text)
                    )),
                }
            }
            Self::Ulimits => {
                let mut limits =
                    if let Some(Value::Ulimits(limits)) = before { limits } else { BTreeMap::new() };
                let (name, pair) = ulimit(text)?;
                limits.insert(name, pair);
                Ok(Value::Ulimits(limits))
            }
            Self::Pools => {
                let mut pools = if let Some(Value::Pools(pools)) = before { pools } else { Vec::new() };
                pools.push(pool_flag(text)?);
                Ok(Value::Pools(pools))
            }
            Self::Opaque => Ok(Value::Opaque(Json::String(text.into()))),
        }
    }

    /// Reads the value of `key` in daemon.json.
    pub(super) fn read_json(self, key: &str, json: &Json) -> Result<Value, String> {
        let mismatch = |go: &str| cannot_unmarshal(json, key, go);
        match self {
            Self::Bool => json.as_bool().map(Value::Bool).ok_or_else(|| mismatch("bool")),
            Self::Int => json.as_i64().map(Value::Int).ok_or_else(|| mismatch("int")),
            Self::Text => json.as_str().map(|t| Value::Text(t.into())).ok_or_else(|| mismatch("string")),
            Self::Bytes => match json {
                Json::String(text) => bytes(text).map(Value::Int),
                Json::Number(number) => Err(format!("invalid size: {}", go_quote(&number.to_string()))),
                _ => Err(mismatch("string")),
            },
            Self::Ip => match json.as_str() {
                Some("") => Ok(Value::Text(String::new())),
                Some(text) => address(text).map(|ip| Value::Text(ip.to_string())),
                None => Err(mismatch("string")),
            },
            Self::Ips => {
                let texts = strings(json, key)?;
                texts.iter().map(|t| address(t)).collect::<Result<_, _>>().map(Value::Ips)
            }
            // What the values mean is checked later, on what flags and file give together.
            Self::List(_) => strings(json, key).map(Value::List),
            Self::Map if json.as_object().is_some_and(|o| o.values().any(Json::is_object)) => {
                Ok(Value::Opaque(json.clone()))
            }
            Self::Map => {
                let object = json.as_object().ok_or_else(|| mismatch("map[string]string"))?;
                let texts = object.iter().map(|(name, value)| match value.as_str() {
                    Some(text) => Ok((name.clone(), text.to_string())),
                    None => Err(cannot_unmarshal(value, &format!("{key}.{name}"), "string")),
                });
                texts.collect::<Result<_, _>>().map(Value::Map)
            }
            Self::Ulimits => ulimits_json(key, json).map(Value::Ulimits),
            Self::Pools => pools_json(key, json).map(Value::Pools),
            Self::NestedMap | Self::Opaque => Ok(Value::Opaque(json.clone())),
        }
    }
}

/// As Go prints it in dockerd's messages: `[a b]`, `map[k:v]`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(on) => write!(f, "{on}"),
            Self::Int(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
            Self::Ips(ips) => write!(f, "[{}]", join(ips)),
            Self::List(list) => write!(f, "[{}]", list.join(" ")),
            Self::Map(map) => {
                let pairs: Vec<String> = map.iter().map(|(k, v)| format!("{k}:{v}")).collect();
                write!(f, "map[{}]", pairs.join(" "))
            }
            Self::Ulimits(limits) => {
                let limits: Vec<String> =
                    limits.iter().map(|(name, (soft, hard))| format!("{name}={soft}:{hard}")).collect();
                write!(f, "[{}]", limits.join(" "))
            }
            Self::Pools(pools) => {
                let pools: Vec<String> = pools.iter().map(|(base, size)| format!("{base} {size}")).collect();
                f.write_str(&pools.join(","))
            }
            Self::Opaque(json) => f.write_str(&go_print(json)),
        }
    }
}

/// A JSON value as Go's `%v` prints it.
pub(super) fn go_print(json: &Json) -> String {
    match json {
        Json::Null => "<nil>".into(),
        Json::String(text) => text.clone(),
        Json::Array(list) => format!("[{}]", list.iter().map(go_print).collect::<Vec<_>>().join(" ")),
        Json::Object(map) => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            let pairs: Vec<String> = sorted.iter().map(|(k, v)| format!("{k}:{}", go_print(v))).collect();
            format!("map[{}]", pairs.join(" "))
        }
        Json::Bool(_) | Json::Number(_) => json.to_string(),
    }
}

/// A boolean in one of the forms that Go's strconv takes.
///
/// # Errors
/// Go's words.
pub(crate) fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {}: invalid syntax", go_quote(text))),
    }
}

/// A size with an optional binary unit.
fn bytes(text: &str) -> Result<i64, String> {
    let bytes = go_size(text, BINARY)?;
    i64::try_from(bytes).map_err(|_| format!("invalid size: '{text}'"))
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("invalid IP address: {text}"))
}

fn strings(json: &Json, key: &str) -> Result<Vec<String>, String> {
    let list = json.as_array().ok_or_else(|| cannot_unmarshal(json, key, "[]string"))?;
    list.iter()
        .map(|value| value.as_str().map(str::to_string).ok_or_else(|| cannot_unmarshal(value, key, "string")))
        .collect()
}

fn cannot_unmarshal(json: &Json, field: &str, go: &str) -> String {
    let kind = match json {
        Json::Null => "null",
        Json::Bool(_) => "bool",
        Json::Number(_) => "number",
        Json::String(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    };
    format!("json: cannot unmarshal {kind} into Go struct field Config.{field} of type {go}")
}

const ULIMITS: &[&str] = &[
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

fn ulimit(text: &str) -> Result<(String, (i64, i64)), String> {
    let (name, limits) = text.split_once('=').ok_or_else(|| format!("invalid ulimit argument: {text}"))?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| {
        text.parse::<i64>()
            .map_err(|_| format!("strconv.ParseInt: parsing {}: invalid syntax", go_quote(text)))
    };
    checked_ulimit(name, number(soft)?, number(hard)?)
}

fn checked_ulimit(name: &str, soft: i64, hard: i64) -> Result<(String, (i64, i64)), String> {
    if !ULIMITS.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    if hard != -1 && (soft > hard || soft == -1) {
        return Err(format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"));
    }
    Ok((name.into(), (soft, hard)))
}

/// Soft and hard limits by name.
type Limits = BTreeMap<String, (i64, i64)>;

fn ulimits_json(key: &str, json: &Json) -> Result<Limits, String> {
    let object =
        json.as_object().ok_or_else(|| cannot_unmarshal(json, key, "map[string]*container.Ulimit"))?;
    let mut limits = BTreeMap::new();
    for (name, limit) in object {
        let number = |field: &str| limit.get(field).and_then(Json::as_i64).unwrap_or(0);
        let name = limit.get("Name").and_then(Json::as_str).unwrap_or(name);
        let (name, pair) = checked_ulimit(name, number("Soft"), number("Hard"))?;
        limits.insert(name, pair);
    }
    Ok(limits)
}

fn pool_flag(text: &str) -> Result<(IpNetwork, u8), String> {
    let (mut base, mut size) = (None, None);
    for field in text.split(',') {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| format!("invalid field '{field}' must be a key=value pair"))?;
        match key.to_ascii_lowercase().as_str() {
            "base" => base = Some(value),
            "size" => {
                let parsed = value.parse::<i64>();
                size = Some(parsed.map_err(|_| format!("invalid size value: {value} (must be integer)"))?);
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
    }
    pool(base.unwrap_or(""), size.unwrap_or(0))
}

fn pools_json(key: &str, json: &Json) -> Result<Vec<(IpNetwork, u8)>, String> {
    let list = json.as_array().ok_or_else(|| cannot_unmarshal(json, key, "[]*ipamutils.NetworkToSplit"))?;
    let field = |entry: &Json, name: &str| entry.get(name).cloned().unwrap_or(Json::Null);
    list.iter()
        .map(|entry| {
            let (base, size) = (field(entry, "base"), field(entry, "size"));
            pool(base.as_str().unwrap_or(""), size.as_i64().unwrap_or(0))
        })
        .collect()
}

fn pool(base: &str, size: i64) -> Result<(IpNetwork, u8), String> {
    let invalid = || format!("invalid base pool {}: a network such as 10.0.0.0/8 is needed", go_quote(base));
    let network: IpNetwork = base.parse().map_err(|_| invalid())?;
    if !base.contains('/') {
        return Err(invalid());
    }
    let network = IpNetwork::new(network.network(), network.prefix()).map_err(|_| invalid())?;
    let longest = if network.is_ipv4() { 30 } else { 126 };
    match u8::try_from(size) {
        Ok(size) if (network.prefix()..=longest).contains(&size) => Ok((network, size)),
        _ => Err(format!("invalid pools size: {size} does not fit into {network}")),
    }
}

fn join(ips: &[IpAddr]) -> String {
    ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_and_refused_with_dockerds_words() {
        let check = |kind: Kind, text: &str, expect: Result<&str, &str>| {
            let read = kind.read_flag(text, None).map(|v| v.to_string());
            assert_eq!(read.as_deref().map_err(String::as_str), expect, "{text}");
        };
        check(Kind::Bool, "maybe", Err(r#"strconv.ParseBool: parsing "maybe": invalid syntax"#));
        check(Kind::Int, "x", Err(r#"strconv.ParseInt: parsing "x": invalid syntax"#));
        check(Kind::Bytes, "64m", Ok("67108864"));
        check(Kind::Bytes, "1.5GiB", Ok("1610612736"));
        check(Kind::Bytes, "foo", Err("invalid size: 'foo'"));
        check(Kind::Ips, "foo", Err("invalid string being converted to IP address: foo"));
        check(Kind::Ips, "1.1.1.1,::1", Ok("[1.1.1.1 ::1]"));
        check(Kind::Ip, "foo", Err(r#"failed to parse IP: "foo""#));
        check(Kind::Ulimits, "foo", Err("invalid ulimit argument: foo"));
        check(Kind::Ulimits, "nofile=5:10", Ok("[nofile=5:10]"));
        check(
            Kind::Ulimits,
            "nofile=50:10",
            Err("ulimit soft limit must be less than or equal to hard limit: 50 > 10"),
        );
        check(Kind::Pools, "foo", Err("invalid field 'foo' must be a key=value pair"));
        check(Kind::Pools, "base=10.1.0.0/16,size=24", Ok("10.1.0.0/16 24"));
    }

    #[test]
    fn repeated_flags_add_up() {
        let first = Kind::Map.read_flag("a=b", None).unwrap();
        assert_eq!(Kind::Map.read_flag("c=d", Some(first)).unwrap().to_string(), "map[a:b c:d]");
    }

    #[test]
    fn json_of_a_wrong_type_is_told_as_go_does() {
        let check = |kind: Kind, key: &str, json: Json, expect: &str| {
            assert_eq!(kind.read_json(key, &json).unwrap_err(), expect);
        };
        check(
            Kind::Bool,
            "debug",
            "x".into(),
            "json: cannot unmarshal string into Go struct field Config.debug of type bool",
        );
        check(
            Kind::Int,
            "mtu",
            "x".into(),
            "json: cannot unmarshal string into Go struct field Config.mtu of type int",
        );
        check(
            Kind::Map,
            "log-opts",
            serde_json::json!({"a": 1}),
            "json: cannot unmarshal number into Go struct field Config.log-opts.a of type string",
        );
        check(Kind::Ips, "dns", serde_json::json!(["x"]), "invalid IP address: x");
        check(Kind::Bytes, "default-shm-size", 64.into(), "invalid size: \"64\"");
    }
}
