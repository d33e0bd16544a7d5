//! systemd's manager, on a message bus.

use std::path::Path;
use std::time::Instant;

use wherry_dbus::{Bus as Connection, Object, PATIENCE};
pub(super) use wherry_dbus::{BusError, Value};

const NAME: &str = "org.freedesktop.systemd1";
const MANAGER: Object<'_> = Object {
    destination: NAME,
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};
/// The signal that a job has ended.
const SIGNALS: &[&str] = &["JobRemoved"];

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
pub(super) struct Bus(Connection);

impl Bus {
    /// Connects, and subscribes to the manager's signals.
    pub(super) fn connect(which: Which) -> Result<Self, BusError> {
        let mut bus = match which {
            Which::System => match Connection::system(SIGNALS) {
                Ok(bus) => Bus(bus),
                // a host without a bus: root may talk to the manager itself
                Err(error) => {
                    let private = Connection::open("unix:path=/run/systemd/private", SIGNALS);
                    let mut bus = Bus(private.map_err(|_| error)?);
                    bus.call("Subscribe", Vec::new())?;
                    return Ok(bus);
                }
            },
            Which::User => Bus(Connection::at(&user_address(), SIGNALS)?),
        };
        let Object { path, interface, .. } = MANAGER;
        bus.0
            .subscribe(&format!("type='signal',interface='{interface}',member='JobRemoved',path='{path}'"))?;
        bus.call("Subscribe", Vec::new())?;
        Ok(bus)
    }

    /// Calls a method of the manager.
    pub(super) fn call(&mut self, member: &str, body: Vec<Value>) -> Result<Vec<Value>, BusError> {
        self.0.call(MANAGER, member, body)
    }

    /// A property of the manager, as text.
    pub(super) fn manager_property(&mut self, name: &str) -> Result<String, BusError> {
        let properties = Object { interface: "org.freedesktop.DBus.Properties", ..MANAGER };
        let wanted = vec![Value::text(MANAGER.interface), Value::text(name)];
        let body = self.0.call(properties, "Get", wanted)?;
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
            let signal = self.0.signal(Some(deadline))?;
            // JobRemoved(u id, o job, s unit, s result)
            if let [_, Value::Path(path), _, Value::Text(result)] = signal.body.as_slice()
                && *path == job
            {
                return Ok(result.clone());
            }
        }
    }
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
