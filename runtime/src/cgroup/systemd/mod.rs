//! The systemd driver: a container is a transient unit, made, changed and stopped by systemd's manager, which is asked
//! over D-Bus.
//!
//! A scope cannot be made without a process in it, and the container's init shall be born in its cgroup, as with
//! the other driver. So a process that only waits (the [`Placeholder`]) opens the scope and leaves when init is inside.
//!
//! The bus is spoken to by some hundred lines of our own (`wherry_dbus`): zbus, the usual crate, brings an async
//! executor into the library and into each monitor even in its blocking form, for five methods with plain arguments.

mod bus;
mod properties;
mod unit;

use std::path::PathBuf;

use oci_spec::runtime::{LinuxResources, Spec};
use serde::{Deserialize, Serialize};

use self::bus::{Bus, BusError, Value, Which};
use self::properties::Properties;
use super::hierarchy::Hierarchies;
use super::placeholder::Placeholder;
use crate::Error;

/// A container's unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unit {
    /// `docker-ID.scope`.
    pub(crate) name: String,
    /// The slice that it is in.
    slice: String,
    /// Whether it is a unit of the calling user's own manager.
    user: bool,
    /// Whether limits are version 2's.
    unified: bool,
}

/// A unit that is about to be, and what it takes to make it.
#[derive(Debug)]
pub(crate) struct NewUnit {
    pub(crate) unit: Unit,
    /// Its cgroup, below the hierarchies' mount points.
    pub(crate) cgroup: PathBuf,
    annotated: Properties,
    late: Properties,
    bus: Bus,
}

impl NewUnit {
    /// Reads `linux.cgroupsPath` as `slice:prefix:name`, and connects to the manager: the user's own in a user session
    /// without privileges, which needs version 2.
    ///
    /// # Errors
    /// [`Error::Spec`] for a name that is none, [`Error::Systemd`] without a manager.
    pub(crate) fn plan(id: &str, spec: &Spec, hierarchies: &Hierarchies) -> Result<Self, Error> {
        let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
        let path = path.and_then(std::path::Path::to_str).unwrap_or_default();
        let user = super::is_rootless();
        let unified = hierarchies.unified();
        if user && !unified {
            return Err(Error::Unsupported {
                what: "the systemd cgroup driver without root".into(),
                why: "it needs cgroup version 2",
            });
        }
        let wish = unit::Wish::parse(path, id, if user { "user.slice" } else { "system.slice" })?;
        let annotated = unit::annotated(spec)?;
        let which = if user { Which::User } else { Which::System };
        let unit = Unit { name: wish.name.clone(), slice: wish.slice.clone(), user, unified };
        let mut bus = Bus::connect(which).map_err(|e| unit.error("connect to systemd for", e))?;
        // a user's manager is itself somewhere in the tree
        let manager = if user {
            bus.manager_property("ControlGroup").map_err(|e| unit.error("ask systemd about", e))?
        } else {
            String::new()
        };
        Ok(NewUnit { cgroup: wish.cgroup(&manager)?, unit, annotated, late: Vec::new(), bus })
    }

    /// Makes the unit, with its limits, around a process that waits.
    ///
    /// # Errors
    /// [`Error::Spec`], [`Error::Systemd`].
    pub(crate) fn start(&mut self, resources: Option<&LinuxResources>) -> Result<Placeholder, Error> {
        let placeholder = Placeholder::start(0)?;
        let mut properties = self.unit.basics(placeholder.pid());
        let limits = self.unit.limits(&mut self.bus, resources)?;
        // one process waits already when init is made: a limit of one is set when it has left
        let is_late = |(name, value): &(String, Value)| name == "TasksMax" && *value == Value::Uint64(1);
        let (late, mut limits) = limits.into_iter().partition(is_late);
        self.late = late;
        properties.append(&mut limits);
        properties.append(&mut self.annotated);
        let request = |properties: &Properties| {
            vec![
                Value::text(self.unit.name.as_str()),
                Value::text("replace"),
                pairs(properties),
                Value::Array("(sa(sv))".into(), Vec::new()),
            ]
        };
        let mut result = self.bus.run_job("StartTransientUnit", request(&properties));
        if result.as_ref().is_err_and(|error| error.is("UnitExists")) {
            // what failed under this name keeps it until it is forgotten
            let _ = self.bus.call("ResetFailedUnit", vec![Value::text(self.unit.name.as_str())]);
            result = self.bus.run_job("StartTransientUnit", request(&properties));
        }
        match result {
            Ok(done) if done == "done" => Ok(placeholder),
            Ok(other) => {
                let _ = self.bus.call("ResetFailedUnit", vec![Value::text(self.unit.name.as_str())]);
                Err(self.unit.failed("start", format!("systemd says {other:?}")))
            }
            Err(error) => Err(self.unit.error("start", error)),
        }
    }

    /// Sets the limits that hold for init alone.
    ///
    /// # Errors
    /// [`Error::Systemd`].
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        if self.late.is_empty() { Ok(()) } else { self.unit.set_properties(&mut self.bus, &self.late) }
    }
}

impl Unit {
    /// Whether processes cannot enter by themselves, and must be moved by the manager: one without privileges
    /// may not take them out of the session that it is in.
    pub(crate) fn moves_processes(&self) -> bool {
        self.user
    }

    /// What every container's unit is, whatever its limits.
    fn basics(&self, pid: i32) -> Properties {
        let mut all: Properties =
            vec![("Description".into(), Value::text(format!("wherry-runtime container {}", self.name)))];
        if self.name.ends_with(".slice") {
            all.push(("Wants".into(), Value::texts([self.slice.as_str()])));
        } else {
            all.push(("Slice".into(), Value::text(self.slice.as_str())));
            all.push(("Delegate".into(), Value::Bool(true)));
            let pids = vec![Value::Uint32(u32::try_from(pid).unwrap_or(0))];
            all.push(("PIDs".into(), Value::Array("u".into(), pids)));
        }
        let io = if self.unified { "IOAccounting" } else { "BlockIOAccounting" };
        for name in ["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"] {
            all.push((name.into(), Value::Bool(true)));
        }
        all.push(("DefaultDependencies".into(), Value::Bool(false)));
        all
    }

    fn limits(&self, bus: &mut Bus, resources: Option<&LinuxResources>) -> Result<Properties, Error> {
        let Some(resources) = resources else { return Ok(Vec::new()) };
        let asks_idle = resources.cpu().as_ref().is_some_and(|cpu| cpu.idle() == Some(1))
            || resources.unified().as_ref().is_some_and(|files| files.contains_key("cpu.idle"));
        let idle_is_known = asks_idle
            && bus
                .manager_property("Version")
                .map_err(|e| self.error("ask systemd about", e))?
                .split(|c: char| !c.is_ascii_digit())
                .find_map(|number| number.parse::<u32>().ok())
                .is_some_and(|version| version >= 252);
        properties::of_resources(resources, self.unified, idle_is_known)
    }

    fn connect(&self) -> Result<Bus, Error> {
        let which = if self.user { Which::User } else { Which::System };
        Bus::connect(which).map_err(|e| self.error("connect to systemd for", e))
    }

    /// Tells systemd new limits.
    ///
    /// # Errors
    /// [`Error::Spec`], [`Error::Systemd`].
    pub(crate) fn set(&self, resources: &LinuxResources) -> Result<(), Error> {
        let mut bus = self.connect()?;
        let properties = self.limits(&mut bus, Some(resources))?;
        if properties.is_empty() { Ok(()) } else { self.set_properties(&mut bus, &properties) }
    }

    fn set_properties(&self, bus: &mut Bus, properties: &Properties) -> Result<(), Error> {
        // for as long as the unit lives
        let body = vec![Value::text(self.name.as_str()), Value::Bool(true), pairs(properties)];
        bus.call("SetUnitProperties", body).map(drop).map_err(|e| self.error("set limits of", e))
    }

    /// Lets the manager move a process into the unit.
    ///
    /// # Errors
    /// [`Error::Systemd`].
    pub(crate) fn attach(&self, pid: i32) -> Result<(), Error> {
        let pids = vec![Value::Uint32(u32::try_from(pid).unwrap_or(0))];
        let body = vec![Value::text(self.name.as_str()), Value::text(""), Value::Array("u".into(), pids)];
        self.connect()?
            .call("AttachProcessesToUnit", body)
            .map(drop)
            .map_err(|e| self.error("move a process into", e))
    }

    /// Stops the unit, and lets systemd forget it. Fine if there is none.
    ///
    /// # Errors
    /// [`Error::Systemd`].
    pub(crate) fn stop(&self) -> Result<(), Error> {
        let mut bus = self.connect()?;
        let name = || vec![Value::text(self.name.as_str())];
        let mut request = name();
        request.push(Value::text("replace"));
        let result = bus.run_job("StopUnit", request);
        let _ = bus.call("ResetFailedUnit", name());
        match result {
            Ok(_) => Ok(()),
            Err(error) if error.is("NoSuchUnit") => Ok(()),
            Err(error) => Err(self.error("stop", error)),
        }
    }

    fn error(&self, action: &'static str, error: BusError) -> Error {
        self.failed(action, error.to_string())
    }

    fn failed(&self, action: &'static str, reason: String) -> Error {
        Error::Systemd { action, unit: self.name.clone(), reason }
    }
}

/// `a(sv)`.
fn pairs(properties: &Properties) -> Value {
    let pair = |(name, value): &(String, Value)| {
        Value::Struct(vec![Value::text(name.as_str()), Value::Variant(Box::new(value.clone()))])
    };
    Value::Array("(sv)".into(), properties.iter().map(pair).collect())
}
