//! A blocking connection to a message bus: one call at a time, and the signals that come meanwhile.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use super::wire::{self, Kind, Message, Value};

/// How long systemd may take for an answer; runc's number.
const PATIENCE: Duration = Duration::from_secs(30);
const MANAGER: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER_INTERFACE: &str = "org.freedesktop.systemd1.Manager";

/// What can go wrong on the bus.
#[derive(Debug, thiserror::Error)]
pub(super) enum BusError {
    #[error("{address}: {source}")]
    Connect { address: String, source: io::Error },
    #[error("no bus: {0} is not an address of a Unix socket")]
    Address(String),
    #[error("the bus refuses us: {0}")]
    Refused(String),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Malformed(#[from] wire::Malformed),
    #[error("no answer in {} seconds", PATIENCE.as_secs())]
    TimedOut,
    /// What the other side answered: the error's name and text.
    #[error("{text}")]
    Answer { name: String, text: String },
}

impl BusError {
    /// Whether systemd answered with this error (the last part of its name).
    pub(super) fn is(&self, wanted: &str) -> bool {
        matches!(self, BusError::Answer { name, .. } if name.rsplit('.').next() == Some(wanted))
    }
}

/// Which manager is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// The host's.
    System,
    /// That of the calling user.
    User,
}

/// A connection to systemd's manager.
#[derive(Debug)]
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
    signals: VecDeque<Message>,
}

impl Bus {
    /// Connects, and subscribes to the manager's signals.
    pub(super) fn connect(which: Which) -> Result<Self, BusError> {
        let mut bus = match which {
            Which::System => {
                let address = std::env::var("DBUS_SYSTEM_BUS_ADDRESS");
                let address = address.unwrap_or_else(|_| "unix:path=/run/dbus/system_bus_socket".into());
                match Bus::open(&address) {
                    Ok(bus) => bus,
                    // a host without a bus: root may talk to the manager itself
                    Err(error) => {
                        let private = Bus::open("unix:path=/run/systemd/private");
                        let mut bus = private.map_err(|_| error)?;
                        bus.call("Subscribe", Vec::new())?;
                        return Ok(bus);
                    }
                }
            }
            Which::User => Bus::open(&user_address())?,
        };
        bus.ask_bus("Hello", Vec::new())?;
        let rule = format!(
            "type='signal',interface='{MANAGER_INTERFACE}',member='JobRemoved',path='{MANAGER_PATH}'"
        );
        bus.ask_bus("AddMatch", vec![Value::text(rule)])?;
        bus.call("Subscribe", Vec::new())?;
        Ok(bus)
    }

    /// Connects to the first address of a list that answers (the D-Bus specification, "Server Addresses").
    fn open(addresses: &str) -> Result<Self, BusError> {
        let mut last = BusError::Address(addresses.to_owned());
        for address in addresses.split(';') {
            match connect(address) {
                Ok(stream) => return Bus::authenticate(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// SASL EXTERNAL: the kernel tells the other side who we are; we say nothing ourselves, which holds
    /// in a user namespace too.
    fn authenticate(mut stream: UnixStream) -> Result<Self, BusError> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        for wanted in ["DATA", "OK"] {
            let line = read_line(&mut stream)?;
            if line.split(' ').next() != Some(wanted) {
                return Err(BusError::Refused(line));
            }
        }
        Ok(Bus { stream, serial: 0, signals: VecDeque::new() })
    }

    fn ask_bus(&mut self, member: &str, body: Vec<Value>) -> Result<Vec<Value>, BusError> {
        self.request(Message {
            path: "/org/freedesktop/DBus".into(),
            interface: "org.freedesktop.DBus".into(),
            member: member.into(),
            destination: "org.freedesktop.DBus".into(),
            body,
            ..Message::default()
        })
    }

    /// Calls a method of the manager.
    pub(super) fn call(&mut self, member: &str, body: Vec<Value>) -> Result<Vec<Value>, BusError> {
        self.request(Message {
            path: MANAGER_PATH.into(),
            interface: MANAGER_INTERFACE.into(),
            member: member.into(),
            destination: MANAGER.into(),
            body,
            ..Message::default()
        })
    }

    /// A property of the manager, as text.
    pub(super) fn manager_property(&mut self, name: &str) -> Result<String, BusError> {
        let body = self.request(Message {
            path: MANAGER_PATH.into(),
            interface: "org.freedesktop.DBus.Properties".into(),
            member: "Get".into(),
            destination: MANAGER.into(),
            body: vec![Value::text(MANAGER_INTERFACE), Value::text(name)],
            ..Message::default()
        })?;
        match body.first() {
            Some(Value::Variant(value)) => Ok(value.as_text().unwrap_or_default().to_owned()),
            _ => Ok(String::new()),
        }
    }

    /// Calls a method that makes a job, and waits for the job's end. Gives its result: `done`, `failed`, ...
    pub(super) fn run_job(&mut self, member: &str, body: Vec<Value>) -> Result<String, BusError> {
        let reply = self.call(member, body)?;
        let job = reply.first().and_then(Value::as_text).unwrap_or_default().to_owned();
        let deadline = Instant::now() + PATIENCE;
        loop {
            while let Some(signal) = self.signals.pop_front() {
                // JobRemoved(u id, o job, s unit, s result)
                if let [_, Value::Path(path), _, Value::Text(result)] = signal.body.as_slice()
                    && *path == job
                {
                    return Ok(result.clone());
                }
            }
            let message = self.receive(deadline)?;
            self.keep(message);
        }
    }

    /// Keeps a signal that says that a job has ended; everything else is of no interest.
    fn keep(&mut self, message: Message) {
        if message.kind == Kind::Signal && message.member == "JobRemoved" {
            self.signals.push_back(message);
        }
    }

    fn request(&mut self, mut message: Message) -> Result<Vec<Value>, BusError> {
        self.serial += 1;
        message.serial = self.serial;
        self.stream.write_all(&message.encode())?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let reply = self.receive(deadline)?;
            match reply.kind {
                Kind::Return if reply.reply_to == message.serial => return Ok(reply.body),
                Kind::Error if reply.reply_to == message.serial => {
                    let text = reply.body.first().and_then(Value::as_text).unwrap_or(&reply.error).to_owned();
                    return Err(BusError::Answer { name: reply.error, text });
                }
                _ => self.keep(reply),
            }
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<Message, BusError> {
        let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
        self.stream.set_read_timeout(Some(left.ok_or(BusError::TimedOut)?))?;
        let mut bytes = vec![0; wire::PREFIX];
        self.fill(&mut bytes)?;
        let mut prefix = [0; wire::PREFIX];
        prefix.copy_from_slice(&bytes);
        bytes.resize(wire::length(&prefix)?.max(wire::PREFIX), 0);
        if let Some(rest) = bytes.get_mut(wire::PREFIX..) {
            self.fill(rest)?;
        }
        Ok(Message::decode(&bytes)?)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), BusError> {
        self.stream.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => BusError::TimedOut,
            _ => BusError::Io(error),
        })
    }
}

fn read_line(stream: &mut UnixStream) -> Result<String, BusError> {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\r\n") {
        if line.len() > 4096 {
            return Err(BusError::Refused("its answer has no end".into()));
        }
        stream.read_exact(&mut byte)?;
        line.extend_from_slice(&byte);
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

/// Where the user's bus is.
fn user_address() -> String {
    if let Ok(address) = std::env::var("DBUS_SESSION_BUS_ADDRESS") {
        return address;
    }
    if let Some(folder) = std::env::var_os("XDG_RUNTIME_DIR") {
        let path = Path::new(&folder).join("bus");
        if path.exists() {
            return format!("unix:path={}", path.display());
        }
    }
    format!("unix:path=/run/user/{}/bus", rustix::process::getuid().as_raw())
}

/// Connects to one address.
fn connect(address: &str) -> Result<UnixStream, BusError> {
    let (path, is_abstract) = socket_of(address).ok_or_else(|| BusError::Address(address.to_owned()))?;
    let connected = if is_abstract {
        SocketAddr::from_abstract_name(&path).and_then(|address| UnixStream::connect_addr(&address))
    } else {
        UnixStream::connect(std::ffi::OsStr::new(&path))
    };
    connected.map_err(|source| BusError::Connect { address: address.to_owned(), source })
}

/// The socket of `unix:path=…` or `unix:abstract=…`, and whether it is an abstract one.
fn socket_of(address: &str) -> Option<(String, bool)> {
    address.strip_prefix("unix:")?.split(',').find_map(|pair| match pair.split_once('=')? {
        ("path", path) => Some((unescape(path)?, false)),
        ("abstract", name) => Some((unescape(name)?, true)),
        _ => None,
    })
}

/// `%2f` and the like.
fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            out.push(u8::from_str_radix(digits, 16).ok()?);
            rest = tail.get(2..)?;
        } else {
            out.push(first);
            rest = tail;
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = |address: &str, expect: Option<(&str, bool)>| {
            assert_eq!(
                socket_of(address).as_ref().map(|(path, kind)| (path.as_str(), *kind)),
                expect,
                "{address}"
            );
        };
        check("unix:path=/run/dbus/system_bus_socket", Some(("/run/dbus/system_bus_socket", false)));
        check("unix:guid=1,abstract=/tmp/dbus-%41%2f", Some(("/tmp/dbus-A/", true)));
        check("tcp:host=localhost", None);
        check("unix:path=%4", None);
    }
}
