//! A web server in a container, and asking it.

use std::net::{IpAddr, Ipv4Addr, TcpStream};

use wherry_tests::{Host, poll};

/// Starts one that answers with its own name.
pub(crate) fn serve(host: &Host, name: &str, options: &str) {
    start(host, name, options, "");
}

/// Starts one that also answers at port 81.
pub(crate) fn serve_twice(host: &Host, name: &str, options: &str) {
    start(host, name, options, "httpd -p 81 -h /www;");
}

fn start(host: &Host, name: &str, options: &str, before: &str) {
    let mut line: Vec<&str> = vec!["run", "-d", "--name", name];
    line.extend(options.split_whitespace());
    let script = format!("mkdir /www; echo {name} >/www/index.html; {before} exec httpd -f -p 80 -h /www");
    line.extend(["busybox", "sh", "-c", &script]);
    host.docker(line.as_slice()).ok();
    poll("the server", 10, || {
        host.in_container(name, || TcpStream::connect((Ipv4Addr::LOCALHOST, 80))).is_ok()
    });
}

/// Its page, asked for from the host.
pub(crate) fn get(host: &Host, address: impl Into<IpAddr>, port: u16) -> Option<String> {
    host.http_get((address.into(), port), "/").map(|page| page.text().trim().to_owned())
}
