//! The values that were given, by option, before defaults.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::value::Value;

/// Given values by [`super::options::Spec::id`].
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Settings(BTreeMap<&'static str, Value>);

impl Settings {
    pub(super) fn put(&mut self, id: &'static str, value: Value) {
        self.0.insert(id, value);
    }

    pub(super) fn take(&mut self, id: &str) -> Option<Value> {
        self.0.remove(id)
    }

    pub(super) fn get(&self, id: &str) -> Option<&Value> {
        self.0.get(id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.0.iter().map(|(id, value)| (*id, value))
    }

    pub(super) fn flag(&self, id: &str) -> Option<bool> {
        if let Some(Value::Bool(on)) = self.get(id) { Some(*on) } else { None }
    }

    pub(super) fn int(&self, id: &str) -> Option<i64> {
        if let Some(Value::Int(number)) = self.get(id) { Some(*number) } else { None }
    }

    /// A text that is not empty.
    pub(super) fn text(&self, id: &str) -> Option<&str> {
        if let Some(Value::Text(text)) = self.get(id) {
            Some(text.as_str()).filter(|t| !t.is_empty())
        } else {
            None
        }
    }

    pub(super) fn list(&self, id: &str) -> &[String] {
        if let Some(Value::List(list)) = self.get(id) { list } else { &[] }
    }

    pub(super) fn ips(&self, id: &str) -> &[IpAddr] {
        if let Some(Value::Ips(ips)) = self.get(id) { ips } else { &[] }
    }

    pub(super) fn map(&self, id: &str) -> BTreeMap<String, String> {
        if let Some(Value::Map(map)) = self.get(id) { map.clone() } else { BTreeMap::new() }
    }
}
