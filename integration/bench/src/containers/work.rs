//! What the engines do.

use std::io::Read;
use std::sync::Mutex;

use serde_json::{Value, json};
use wherry_bench::client::Client;
use wherry_bench::contestant::{Contestant, timed};

/// Milliseconds for one of fifty containers, made and started by so many clients at once; they are removed untimed.
pub(crate) fn fifty(contestant: &mut Contestant, clients: usize) -> f64 {
    let host = &contestant.host;
    let ids = Mutex::new(Vec::new());
    let milliseconds = timed(|| {
        std::thread::scope(|scope| {
            for _ in 0..clients {
                scope.spawn(|| {
                    let mut client = Client::default();
                    for _ in 0..50 / clients {
                        let body = json!({"Image": "busybox", "Cmd": ["sleep", "3600"]});
                        let answer = client.request(host, "POST", "/containers/create", &body).json();
                        let id = answer["Id"].as_str().expect("an id").to_owned();
                        client.request(host, "POST", &format!("/containers/{id}/start"), &Value::Null);
                        ids.lock().expect("nobody failed").push(id);
                    }
                });
            }
        });
    });
    for id in ids.into_inner().expect("nobody failed") {
        contestant.remove_running(&id);
    }
    milliseconds / 50.0
}

/// Milliseconds of a container that writes so many megabytes in lines of 80 bytes, from its start to its end; and of reading
/// them back.
pub(crate) fn log(contestant: &mut Contestant, megabytes: usize) -> (f64, f64) {
    let bytes = megabytes * 1_000_000;
    let script = format!("yes {} | head -c {bytes}", "x".repeat(79));
    let id = contestant.create("none", &["sh", "-c", &script]);
    let written = timed(|| {
        contestant.request("POST", &format!("/containers/{id}/start"), &Value::Null);
        contestant.request("POST", &format!("/containers/{id}/wait"), &Value::Null);
    });
    let mut connection = contestant.host.connect();
    let mut total = 0;
    let read = timed(|| {
        let head = connection.open(
            "GET",
            &format!("/v1.41/containers/{id}/logs?stdout=1"),
            &[("Connection", "close")],
            b"",
        );
        assert_eq!(head.status, 200);
        let mut buffer = vec![0; 256 << 10];
        while let Ok(read @ 1..) = connection.stream().read(&mut buffer) {
            total += read;
        }
    });
    assert!(total >= bytes, "{}: {total} of {bytes} bytes came back", contestant.name);
    contestant.request("DELETE", &format!("/containers/{id}?force=1"), &Value::Null);
    (written, read)
}
