//! Go finds a document's fields whatever the case of their names, and clients rely on it (docker-py sends `detachKeys`).

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Map, Value};

/// A document whose objects give their fields to structs as Go would.
#[derive(Debug)]
pub(crate) struct Folded(pub(crate) Value);

impl<'de> Deserializer<'de> for Folded {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(list) => visitor.visit_seq(Items(list.into_iter())),
            Value::Object(fields) => visitor.visit_map(Fields { fields: fields.into_iter(), value: None }),
            scalar => scalar.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            value => visitor.visit_some(Folded(value)),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let value = match self.0 {
            Value::Object(fields) => Value::Object(rename(fields, names)),
            other => other,
        };
        Folded(value).deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

/// Gives fields the names by which the struct knows them. The last of several that mean the same wins, as in Go.
fn rename(fields: Map<String, Value>, names: &[&str]) -> Map<String, Value> {
    let known = |key: &str| {
        names.iter().find(|name| **name == key).or_else(|| names.iter().find(|n| n.eq_ignore_ascii_case(key)))
    };
    fields
        .into_iter()
        .map(|(key, value)| (known(&key).map_or(key, |name| (*name).to_owned()), value))
        .collect()
}

struct Items(std::vec::IntoIter<Value>);

impl<'de> SeqAccess<'de> for Items {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.0.next().map(|value| seed.deserialize(Folded(value))).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

struct Fields {
    fields: serde_json::map::IntoIter,
    value: Option<Value>,
}

impl<'de> MapAccess<'de> for Fields {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((key, value)) = self.fields.next() else { return Ok(None) };
        self.value = Some(value);
        seed.deserialize(Value::String(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(Folded(self.value.take().unwrap_or(Value::Null)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Outer {
        detach_keys: String,
        list: Vec<Inner>,
        map: BTreeMap<String, Option<Inner>>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct Inner {
        size: i64,
    }

    #[test]
    fn fields_are_found_whatever_their_case_and_keys_of_maps_stay() {
        let document = json!({ "detachKeys": "x", "LIST": [{ "size": 1 }], "map": { "size": { "SiZe": 2 }, "n": null } });
        let read = Outer::deserialize(Folded(document)).unwrap();
        let map = BTreeMap::from([("size".to_owned(), Some(Inner { size: 2 })), ("n".to_owned(), None)]);
        assert_eq!(read, Outer { detach_keys: "x".into(), list: vec![Inner { size: 1 }], map });
        let wrong = Outer::deserialize(Folded(json!({ "detachkeys": 1 }))).unwrap_err();
        assert_eq!(wrong.to_string(), "invalid type: integer `1`, expected a string");
    }
}
