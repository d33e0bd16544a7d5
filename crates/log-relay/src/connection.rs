//! The connection to a server.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection};
use wherry_monitor_api::TlsServer;
use wherry_tls::{Failure, Identity, Trust};

use crate::Error;

/// So long a server may take to accept a connection, and for the handshake.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection with a server that has proven who it is.
#[derive(Debug)]
pub struct Connection {
    pub(crate) socket: TcpStream,
    pub(crate) session: ClientConnection,
}

impl Connection {
    /// Connects. Reads the files of certificates, so that new ones count from the next connection on. Blocks, for twenty
    /// seconds at most if the server is slow but there.
    ///
    /// # Errors
    /// [`Error`], but [`Error::Monitor`].
    pub fn open(server: &TlsServer) -> Result<Self, Error> {
        let config = Arc::new(config(server)?);
        let name = || ServerName::try_from(server.name.clone()).map_err(|_| Error::Name(server.name.clone()));
        let mut session = ClientConnection::new(config, name()?).map_err(Error::Identity)?;
        // What the monitor sends is as much as it wants to have on its way.
        session.set_buffer_limit(None);
        let dial = |source| Error::Dial { address: server.address, source };
        let mut socket = TcpStream::connect_timeout(&server.address, PATIENCE).map_err(dial)?;
        let mut timed = Timed { socket: &mut socket, end: Instant::now() + PATIENCE };
        while session.is_handshaking() {
            session.complete_io(&mut timed).map_err(|error| Failure::of(error, &server.name))?;
        }
        socket.set_nonblocking(true).map_err(dial)?;
        Ok(Self { socket, session })
    }

    /// Takes text to be sent.
    pub(crate) fn push(&mut self, text: &[u8]) -> Result<(), Error> {
        self.session.writer().write_all(text).map_err(Error::Lost)
    }

    /// Sends what the kernel takes.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Lost(error)),
            }
        }
        Ok(())
    }

    /// What the server has said; nothing if it was about the connection only.
    pub(crate) fn receive(&mut self) -> Result<Vec<u8>, Error> {
        match self.session.read_tls(&mut self.socket) {
            Ok(0) => return Err(Error::Closed),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Vec::new()),
            Err(error) => return Err(Error::Lost(error)),
        }
        let state = self.session.process_new_packets();
        let state = state.map_err(|error| Failure::of(io::Error::other(error), ""))?;
        let mut said = vec![0; state.plaintext_bytes_to_read()];
        self.session.reader().read_exact(&mut said).map_err(Error::Lost)?;
        if said.is_empty() && state.peer_has_closed() { Err(Error::Closed) } else { Ok(said) }
    }
}

/// A socket that has only so much time for all that is read and written.
struct Timed<'a> {
    socket: &'a mut TcpStream,
    end: Instant,
}

impl Timed<'_> {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(self.left()?)?;
        self.socket.read(bytes)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(self.left()?)?;
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn config(server: &TlsServer) -> Result<ClientConfig, Error> {
    let trust = match &server.authorities {
        _ if !server.verify => Trust::Anybody,
        None => Trust::Authorities(Vec::new()),
        Some(path) => Trust::Authorities(authorities(path)?),
    };
    let identity =
        server.identity.as_ref().map(|(certificate, key)| identity(certificate, key)).transpose()?;
    wherry_tls::config(&trust, identity).map_err(Error::Identity)
}

fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = std::fs::read(path);
    let pem = read.map_err(|source| Error::ReadAuthorities { path: path.to_owned(), source })?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem).flatten().collect();
    if found.is_empty() { Err(Error::NoAuthorities { path: path.to_owned() }) } else { Ok(found) }
}

fn identity(certificate: &Path, key: &Path) -> Result<Identity, Error> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|source| Error::ReadIdentity { path: path.to_owned(), source })
    };
    let (certificate, key) = (read(certificate)?, read(key)?);
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(Error::Key)?;
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(&certificate).collect::<Result<_, _>>().map_err(Error::Certificate)?;
    if chain.is_empty() {
        return Err(Error::Certificate(PemError::NoItemsFound));
    }
    Ok(Identity { chain, key })
}
