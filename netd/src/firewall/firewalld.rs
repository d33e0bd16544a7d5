//! Where firewalld keeps the host's firewall: our bridges are in its zone `docker`, which lets through what our own rules have let through,
//! and a policy lets others' packets in there. Without them firewalld refuses containers' packets, since what one table
//! accepts another one may still drop. Zone and policy are named as dockerd's, and are made once, for good.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use wherry_dbus::{Bus, BusError, Object, Value};

use super::{Job, Order};
use crate::{journal, protocol};

const ZONE: &str = "docker";
const POLICY: &str = "docker-forwarding";
const NAME: &str = "org.fedoraproject.FirewallD1";
const RUNNING: Object<'_> =
    Object { destination: NAME, path: "/org/fedoraproject/FirewallD1", interface: NAME };
const ZONES: Object<'_> = Object { interface: "org.fedoraproject.FirewallD1.zone", ..RUNNING };
const CONFIG: Object<'_> = Object {
    destination: NAME,
    path: "/org/fedoraproject/FirewallD1/config",
    interface: "org.fedoraproject.FirewallD1.config",
};
/// It has started, or ended; it has reloaded its rules.
const SIGNALS: &[&str] = &["NameOwnerChanged", "Reloaded"];

/// What is known of firewalld, for those who ask.
#[derive(Debug, Clone, Default)]
pub(super) struct Known(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    runs: bool,
    reloaded_s: Option<u64>,
}

impl Known {
    pub(super) fn get(&self) -> Option<protocol::Firewalld> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.runs.then_some(protocol::Firewalld { reloaded_s: state.reloaded_s })
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Our bridges in firewalld's zone.
#[derive(Debug, Default)]
pub(super) struct Firewalld {
    known: Known,
    /// The bridges that are known to be there, in order.
    registered: Vec<String>,
    /// The last attempt has failed somewhere: more or fewer may be there.
    uncertain: bool,
    /// A reload was to bring the zone, and it is not known to have done so.
    reloaded: bool,
    /// The thread that hears its signals, once there is a bus.
    listener: Option<JoinHandle<()>>,
}

impl Firewalld {
    pub(super) fn new(known: Known) -> Self {
        Self { known, ..Self::default() }
    }

    /// Begins to listen to what firewalld says, if nobody does yet; what it says comes as an order.
    pub(super) fn listen(&mut self, jobs: &Sender<Job>) {
        if self.listener.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        // A host without a bus has no firewalld.
        let Ok(bus) = subscribed() else { return };
        let (jobs, known) = (jobs.clone(), self.known.clone());
        let thread = std::thread::Builder::new().name("firewalld".into()).stack_size(128 << 10);
        match thread.spawn(move || listen(bus, &known, &jobs)) {
            Ok(thread) => self.listener = Some(thread),
            Err(e) => journal::note(format_args!("firewalld's reloads go unnoticed: {e}")),
        }
    }

    /// Nothing is known any more about what firewalld has.
    pub(super) fn forget(&mut self) {
        self.registered.clear();
    }

    /// Has these bridges, and no more of ours, in the zone. A failure is noted: the rules themselves hold.
    pub(super) fn agree<'a>(&mut self, bridges: impl Iterator<Item = &'a str>) {
        let mut wanted = bridges.map(str::to_owned).collect::<Vec<_>>();
        wanted.sort();
        wanted.dedup();
        if wanted == self.registered && !self.uncertain {
            return;
        }
        let before = std::mem::take(&mut self.registered);
        let gone = before.iter().filter(|bridge| !wanted.contains(bridge));
        let registered = self.register(&wanted, gone);
        self.uncertain = registered.is_err();
        if let Err(error) = registered {
            journal::note(format_args!("register bridges with firewalld: {error}"));
            // The next attempt removes those, too, that may have stayed.
            self.registered = before;
        }
        self.registered.extend(wanted);
        self.registered.sort();
        self.registered.dedup();
    }

    fn register<'a>(
        &mut self,
        wanted: &[String],
        gone: impl Iterator<Item = &'a String>,
    ) -> Result<(), BusError> {
        // A host without a bus has no firewalld, and asking for it must not start it.
        let mut bus = Bus::system(&[]).ok();
        let runs = bus.as_mut().is_some_and(|bus| bus.has_owner(NAME).unwrap_or(false));
        self.known.change(|state| state.runs = runs);
        let Some(mut bus) = bus.filter(|_| runs) else { return Ok(()) };
        self.ensure_zone(&mut bus)?;
        let zone_of = |bus: &mut Bus, bridge: &str| -> Result<String, BusError> {
            let zone = bus.call(ZONES, "getZoneOfInterface", vec![Value::text(bridge)])?;
            Ok(zone.first().and_then(Value::as_text).unwrap_or_default().to_owned())
        };
        for bridge in wanted {
            match zone_of(&mut bus, bridge)?.as_str() {
                ZONE => {}
                "" => drop(bus.call(ZONES, "addInterface", vec![Value::text(ZONE), Value::text(bridge)])?),
                other => journal::note(format_args!(
                    "{bridge} stays in firewalld's zone {other}, where somebody has put it"
                )),
            }
        }
        for bridge in gone {
            if zone_of(&mut bus, bridge)? == ZONE {
                bus.call(ZONES, "removeInterface", vec![Value::text(ZONE), Value::text(bridge)])?;
            }
        }
        Ok(())
    }

    /// Zone and policy, in firewalld's lasting configuration, and the zone in the running one, where a reload brings it.
    fn ensure_zone(&mut self, bus: &mut Bus) -> Result<(), BusError> {
        let zone = !has(bus, CONFIG, "getZoneNames", ZONE)?;
        if zone {
            let settings =
                [("target", Value::text("ACCEPT")), ("description", Value::text("bridges of containers"))];
            bus.call(CONFIG, "addZone2", vec![Value::text(ZONE), dictionary(settings)])?;
        }
        let policy = match has(bus, CONFIG, "getPolicyNames", POLICY) {
            // Before 0.9 there are no policies, and none is needed.
            Err(error) if error.is("UnknownMethod") => false,
            known => !known?,
        };
        if policy {
            let settings = [
                ("ingress_zones", Value::texts(["ANY"])),
                ("egress_zones", Value::texts([ZONE])),
                ("target", Value::text("ACCEPT")),
                ("description", Value::text("what goes to containers")),
            ];
            bus.call(CONFIG, "addPolicy", vec![Value::text(POLICY), dictionary(settings)])?;
        }
        let runs = has(bus, ZONES, "getZones", ZONE)?;
        // Of a reload we hear ourselves: where it does not bring the zone another one must not follow, without end.
        let again = std::mem::replace(&mut self.reloaded, !runs);
        if zone || policy || !(runs || again) {
            bus.call(RUNNING, "reload", Vec::new())?;
        }
        Ok(())
    }
}

fn subscribed() -> Result<Bus, BusError> {
    let mut bus = Bus::system(SIGNALS)?;
    let from_bus = "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged'";
    bus.subscribe(&format!("{from_bus},arg0='{NAME}'"))?;
    bus.subscribe(&format!("type='signal',path='{}',interface='{NAME}',member='Reloaded'", RUNNING.path))?;
    Ok(bus)
}

/// Until the bus is gone; the next engine that starts has it begin again.
fn listen(mut bus: Bus, known: &Known, jobs: &Sender<Job>) {
    while let Ok(signal) = bus.signal(None) {
        if signal.member == "Reloaded" {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            known.change(|state| state.reloaded_s = now.ok().map(|now| now.as_secs()));
        }
        let (done, _) = channel();
        if jobs.send(Job { order: Order::Firewalld, done }).is_err() {
            return;
        }
    }
}

/// Whether a name is among those that a method answers.
fn has(bus: &mut Bus, object: Object<'_>, method: &str, name: &str) -> Result<bool, BusError> {
    let answer = bus.call(object, method, Vec::new())?;
    let Some(Value::Array(_, names)) = answer.first() else { return Ok(false) };
    Ok(names.iter().filter_map(Value::as_text).any(|known| known == name))
}

/// `a{sv}`.
fn dictionary<const N: usize>(entries: [(&str, Value); N]) -> Value {
    let entries =
        entries.map(|(key, value)| Value::Struct(vec![Value::text(key), Value::Variant(Box::new(value))]));
    Value::Array("{sv}".into(), entries.into())
}
