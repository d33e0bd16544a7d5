//! What the engine waits for on its way to a running container. Prints; the benchmark compares.

use std::time::{Duration, Instant};

use wherry_netd::protocol::Protocol;

use crate::support::*;

#[test]
fn latencies() {
    alone("timing::latencies", |host| {
        let bridge = host.default_bridge();
        let named = host.network("named");
        let mut published = sandbox_spec("x", &[&bridge]);
        published.endpoints[0].ports = vec![port(Protocol::Tcp, None, 8080, 80)];
        for (what, spec) in [
            ("no network", sandbox_spec("x", &[])),
            ("default bridge", sandbox_spec("x", &[&bridge])),
            ("user-defined network with names", sandbox_spec("x", &[&named])),
            ("default bridge, one port", published),
        ] {
            let (mut created, mut released) = (Vec::new(), Vec::new());
            for _ in 0..50 {
                let begun = Instant::now();
                let sandbox = host.client.create_sandbox(spec.clone()).unwrap();
                created.push(begun.elapsed());
                let begun = Instant::now();
                host.client.release_sandbox(&sandbox.id).unwrap();
                released.push(begun.elapsed());
                std::thread::sleep(Duration::from_millis(20));
            }
            println!("{what}: create {}, release {}", spread(created), spread(released));
        }
        let begun = Instant::now();
        for _ in 0..1000 {
            host.client.hello().unwrap();
        }
        println!("a question and its answer: {} µs", begun.elapsed().as_micros() / 1000);
        let status = std::fs::read_to_string(format!("/proc/{}/status", host.netd_pid())).unwrap();
        let resident = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
        println!("netd: {resident}");
        eventually("namespaces are gone", || host.namespaces().is_empty());
    });
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |percent: usize| times[times.len() * percent / 100].as_micros();
    format!("{} µs (median; 10 %: {}, 90 %: {})", at(50), at(10), at(90))
}
