//! A blocking connection to a message bus (D-Bus): one call at a time, and the signals that come meanwhile.
//!
//! For the few calls that the runtime makes of systemd and netd of firewalld; no threads, no async runtime. It does not know
//! what is on the bus: objects, methods and their arguments are the caller's.

mod wire;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::{Duration, Instant};

pub use wire::{Kind, Malformed, Message, Value};

/// How long the other side may take for an answer; the number that runc gives systemd.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Where the host's bus is, unless the environment says otherwise.
const SYSTEM_BUS: &str = "unix:path=/run/dbus/system_bus_socket";

/// What can go wrong on the bus.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// Nobody listens there.
    #[error("{address}: {source}")]
    Connect {
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// It cannot be connected to.
    #[error("no bus: {0} is not an address of a Unix socket")]
    Address(String),
    /// The other side does not want us.
    #[error("the bus refuses us: {0}")]
    Refused(String),
    /// The connection is broken.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What came is no message.
    #[error("{0}")]
    Malformed(#[from] Malformed),
    /// The other side does not answer.
    #[error("no answer in {} seconds", PATIENCE.as_secs())]
    TimedOut,
    /// What the other side answered.
    #[error("{text}")]
    Answer {
        /// The error's name.
        name: String,
        /// Its text.
        text: String,
    },
}

impl BusError {
    /// Whether the answer was this error (the last part of its name).
    pub fn is(&self, wanted: &str) -> bool {
        matches!(self, BusError::Answer { name, .. } if name.rsplit('.').next() == Some(wanted))
    }
}

/// Whose methods are called.
#[derive(Debug, Clone, Copy)]
pub struct Object<'a> {
    /// The name on the bus.
    pub destination: &'a str,
    /// The object.
    pub path: &'a str,
    /// The interface.
    pub interface: &'a str,
}

/// The bus itself.
const THE_BUS: Object<'_> = Object {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
};

/// A connection.
#[derive(Debug)]
pub struct Bus {
    stream: UnixStream,
    serial: u32,
    /// The signals that are of interest, by their names.
    wanted: &'static [&'static str],
    signals: VecDeque<Message>,
}

impl Bus {
    /// Connects to the host's bus. Of its signals those of these names are kept, once [`Bus::subscribe`] has asked for them.
    ///
    /// # Errors
    /// See [`BusError`].
    pub fn system(wanted: &'static [&'static str]) -> Result<Self, BusError> {
        let address = std::env::var("DBUS_SYSTEM_BUS_ADDRESS");
        Self::at(&address.unwrap_or_else(|_| SYSTEM_BUS.into()), wanted)
    }

    /// Connects to the bus at the first address of a list that answers, as [`Bus::system`].
    ///
    /// # Errors
    /// See [`BusError`].
    pub fn at(addresses: &str, wanted: &'static [&'static str]) -> Result<Self, BusError> {
        let mut bus = Self::open(addresses, wanted)?;
        bus.call(THE_BUS, "Hello", Vec::new())?;
        Ok(bus)
    }

    /// Connects to a program without a bus between, at the first address of a list that answers (the D-Bus specification,
    /// "Server Addresses").
    ///
    /// # Errors
    /// See [`BusError`].
    pub fn open(addresses: &str, wanted: &'static [&'static str]) -> Result<Self, BusError> {
        let mut last = BusError::Address(addresses.to_owned());
        for address in addresses.split(';') {
            match connect(address) {
                Ok(stream) => return Bus::authenticate(stream, wanted),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// SASL EXTERNAL: the kernel tells the other side who we are; we say nothing ourselves, which holds
    /// in a user namespace too.
    fn authenticate(mut stream: UnixStream, wanted: &'static [&'static str]) -> Result<Self, BusError> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        for wanted in ["DATA", "OK"] {
            let line = read_line(&mut stream)?;
            if line.split(' ').next() != Some(wanted) {
                return Err(BusError::Refused(line));
            }
        }
        Ok(Bus { stream, serial: 0, wanted, signals: VecDeque::new() })
    }

    /// Asks for the signals that a match rule names (the D-Bus specification, "Match Rules").
    ///
    /// # Errors
    /// See [`BusError`].
    pub fn subscribe(&mut self, rule: &str) -> Result<(), BusError> {
        self.call(THE_BUS, "AddMatch", vec![Value::text(rule)]).map(drop)
    }

    /// Whether somebody has this name on the bus now.
    ///
    /// # Errors
    /// See [`BusError`].
    pub fn has_owner(&mut self, name: &str) -> Result<bool, BusError> {
        let answer = self.call(THE_BUS, "NameHasOwner", vec![Value::text(name)])?;
        Ok(answer.first() == Some(&Value::Bool(true)))
    }

    /// Calls a method, and waits for its answer, at most for [`PATIENCE`].
    ///
    /// # Errors
    /// See [`BusError`].
    pub fn call(
        &mut self,
        object: Object<'_>,
        member: &str,
        body: Vec<Value>,
    ) -> Result<Vec<Value>, BusError> {
        self.serial += 1;
        let message = Message {
            serial: self.serial,
            path: object.path.into(),
            interface: object.interface.into(),
            member: member.into(),
            destination: object.destination.into(),
            body,
            ..Message::default()
        };
        self.stream.write_all(&message.encode())?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let reply = self.receive(Some(deadline))?;
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

    /// The next signal of those that are of interest: one that came during a call, or else the next that comes until the deadline.
    ///
    /// # Errors
    /// See [`BusError`].
    pub fn signal(&mut self, deadline: Option<Instant>) -> Result<Message, BusError> {
        loop {
            if let Some(signal) = self.signals.pop_front() {
                return Ok(signal);
            }
            let message = self.receive(deadline)?;
            self.keep(message);
        }
    }

    fn keep(&mut self, message: Message) {
        if message.kind == Kind::Signal && self.wanted.contains(&message.member.as_str()) {
            self.signals.push_back(message);
        }
    }

    fn receive(&mut self, deadline: Option<Instant>) -> Result<Message, BusError> {
        let patience = match deadline.map(|d| d.saturating_duration_since(Instant::now())) {
            Some(Duration::ZERO) => return Err(BusError::TimedOut),
            left => left,
        };
        self.stream.set_read_timeout(patience)?;
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
