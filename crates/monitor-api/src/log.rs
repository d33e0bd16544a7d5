//! Where a container's output goes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where output goes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogSpec {
    /// The file that `docker logs` reads.
    pub driver: LogDriver,
    /// Size at which a new file is begun; `None` never.
    pub max_bytes: Option<u64>,
    /// How many files are kept, the current one included.
    pub max_files: u32,
    /// Whether rotated files are compressed.
    #[serde(default)]
    pub compress: bool,
    /// Attributes that are written with each entry (json-file's `attrs`), sorted by key.
    pub attributes: BTreeMap<String, String>,
    /// A log server that gets each entry, too.
    #[serde(default)]
    pub remote: Option<RemoteLog>,
}

/// Format and place of a log file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum LogDriver {
    /// One JSON object a line, as Docker's json-file driver writes them.
    JsonFile(PathBuf),
    /// Nothing is kept.
    None,
}

/// A log server, and what it is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RemoteLog {
    /// Its addresses, resolved; tried in this order.
    pub targets: Vec<LogTarget>,
    /// How entries are written.
    pub format: LogFormat,
    /// What happens while it takes less than there is.
    pub when_full: WhenFull,
    /// So many bytes wait for it at most.
    pub buffer_bytes: u64,
    /// How often a lost connection is tried again before what waits is given up; the next entry begins anew.
    pub retries: u32,
    /// Between the first two tries; half as much more between later ones, up to a minute.
    pub retry_wait_ms: u64,
}

/// What happens to output that a log server does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WhenFull {
    /// The container's output is not read until there is room.
    Block,
    /// New entries are dropped (mode `non-blocking`).
    Drop,
}

/// Where a log server listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogTarget {
    /// Datagrams.
    Udp(SocketAddr),
    /// A connection.
    Tcp(SocketAddr),
    /// A connection to a Unix socket.
    UnixStream(PathBuf),
    /// Datagrams to a Unix socket.
    UnixDatagram(PathBuf),
    /// A connection with TLS.
    Tls(Box<TlsServer>),
}

/// A log server that is spoken to through TLS, which monitors leave to another program.
///
/// The monitor executes `program log-relay THIS_AS_JSON` with one end of a Unix socket pair as its standard
/// input. Back come four zero bytes when the server is there and has proven who it is, and then, as big-endian numbers of 32
/// bits, how many more bytes the kernel has taken for the server: what a server loses, or refuses with our certificate, counts,
/// too. What was not counted is to be sent again if the program ends. It ends when it cannot connect, when the connection is lost, and when the monitor closes its end of the pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsServer {
    /// The program.
    pub program: PathBuf,
    /// Whose output it is, for messages to the engine's log.
    pub container: String,
    /// Where the server listens.
    pub address: SocketAddr,
    /// A host name or address that its certificate must be for.
    pub name: String,
    /// A file with certificates (PEM) that are trusted besides the host's.
    pub authorities: Option<PathBuf>,
    /// What is shown to the server: the files (PEM) of a certificate and of its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Whether the server must prove who it is.
    pub verify: bool,
    /// Whether what the server says comes back, instead of the numbers.
    pub answers: bool,
}

/// How an entry becomes a message. Everything that is the same for all entries of a container is made by the engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum LogFormat {
    /// A line of syslog.
    Syslog {
        /// Which one.
        form: SyslogForm,
        /// The facility's number, times 8.
        facility: u8,
        /// Of this machine.
        hostname: String,
        /// Names the container.
        tag: String,
        /// Whether each message begins with its length (RFC 5425), as servers behind TLS expect it.
        #[serde(default)]
        counted: bool,
    },
    /// systemd's native protocol.
    Journald {
        /// Name and value of each field but those of the entry itself.
        fields: Vec<(String, String)>,
    },
    /// Graylog's JSON.
    Gelf {
        /// Of this machine.
        hostname: String,
        /// The additional fields, a JSON object with names that begin with `_`.
        fields: serde_json::Map<String, serde_json::Value>,
        /// How datagrams are compressed.
        compression: GelfCompression,
    },
    /// Fluentd's forward protocol.
    Fluentd {
        /// Routes the record.
        tag: String,
        /// What is in each record besides `source` and `log`.
        fields: BTreeMap<String, String>,
        /// Whether times have nanoseconds.
        nanoseconds: bool,
        /// Whether the server confirms each record, which is sent again otherwise.
        acknowledged: bool,
    },
}

/// The forms of syslog messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyslogForm {
    /// As to a local daemon: RFC 3164 without a host name.
    Local,
    /// RFC 3164.
    Rfc3164,
    /// RFC 5424.
    Rfc5424,
    /// RFC 5424 with microseconds.
    Rfc5424Micro,
}

/// How GELF datagrams are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GelfCompression {
    /// gzip, of this level.
    Gzip(u32),
    /// zlib, of this level.
    Zlib(u32),
    /// Not at all.
    None,
}
