//! Debian's docker-registry, and nginx in front of it, on a private host.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::{Host, Servant, poll};

/// A registry that keeps what it gets in a folder of the host.
#[derive(Debug)]
pub struct Distribution {
    port: u16,
    _servant: Servant,
}

impl Distribution {
    /// Serves on the loopback address, without TLS or passwords.
    pub fn start(host: &Host, port: u16) -> Distribution {
        Distribution::with(host, port, "")
    }

    /// As [`Distribution::start`], with more lines of configuration.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn with(host: &Host, port: u16, more: &str) -> Distribution {
        let folder = host.folder().join(format!("distribution-{port}"));
        fs::create_dir_all(&folder).expect("make a folder");
        let file = folder.join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: \"127.0.0.1:{port}\", secret: test}}\n{more}\n",
            folder.join("data").display()
        );
        fs::write(&file, text).expect("write its configuration");
        let name = format!("distribution-{port}");
        let servant = host.serve(&name, &format!("docker-registry serve {}", file.display()));
        wait_for(host, port, &servant);
        Distribution { port, _servant: servant }
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}

/// nginx with one server block on `port`; `server` is what stands in the block.
///
/// # Panics
/// If it does not answer.
pub fn nginx(host: &Host, port: u16, server: &str) -> Servant {
    let folder = host.folder().join(format!("nginx-{port}"));
    fs::create_dir_all(&folder).expect("make a folder");
    let at = |name: &str| folder.join(name).display().to_string();
    let scratch: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {};\n", at(kind)))
        .collect();
    let text = format!(
        "user root; pid {}; worker_processes 1; daemon off; error_log stderr;\nevents {{}}\n\
         http {{ access_log off;\n{scratch} server {{ client_max_body_size 0; proxy_request_buffering off;\n{server}\n}} }}\n",
        at("pid")
    );
    fs::write(at("nginx.conf"), text).expect("write its configuration");
    let line = format!("nginx -e stderr -c {}", at("nginx.conf"));
    let servant = host.serve(&format!("nginx-{port}"), &line);
    wait_for(host, port, &servant);
    servant
}

fn wait_for(host: &Host, port: u16, servant: &Servant) {
    poll(&format!("the server on port {port}\n{}", servant.log()), 20, || {
        host.connect_to((Ipv4Addr::LOCALHOST, port)).is_ok()
    });
}

/// A certificate authority of the test's own.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
}

impl Authority {
    /// Makes it in a folder of the host.
    ///
    /// # Panics
    /// If openssl fails.
    pub fn new(host: &Host) -> Authority {
        let folder = host.folder().join("authority");
        fs::create_dir_all(&folder).expect("make a folder");
        let authority = Authority { folder };
        authority.openssl(
            host,
            "req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=authority -keyout ca.key -out ca.crt",
        );
        authority
    }

    /// The path of one of its files: `ca.crt`, or `NAME.crt` and `NAME.key` of [`Authority::issue`].
    pub fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Makes `NAME.crt` and `NAME.key` for a host (`DNS:…`, `IP:…`).
    ///
    /// # Panics
    /// If openssl fails.
    pub fn issue(&self, host: &Host, name: &str, subject: &str) {
        fs::write(self.folder.join("extensions"), format!("subjectAltName={subject}\n"))
            .expect("write a file");
        self.openssl(
            host,
            &format!("req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"),
        );
        let signing = "-CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile extensions";
        self.openssl(host, &format!("x509 -req -in {name}.csr {signing} -out {name}.crt"));
    }

    fn openssl(&self, host: &Host, arguments: &str) {
        let line = format!("cd {} && openssl {arguments}", self.folder.display());
        host.exec(["sh", "-c", line.as_str()].as_slice()).ok();
    }
}
