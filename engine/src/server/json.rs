//! JSON as Go's decoder reads it: clients see its words when they send something else.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::fold::Folded;
use crate::error::Error;

/// Reads one document, nothing behind it.
///
/// # Errors
/// 400 `invalid JSON: …` in Go's words; 400 `unexpected content after JSON`.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let mut documents = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
    let value = match documents.next() {
        Some(Ok(value)) => value,
        Some(Err(error)) => return Err(invalid(&syntax_error(bytes, &error))),
        None => return Err(invalid("got EOF while reading request body")),
    };
    let rest = bytes.get(documents.byte_offset()..).unwrap_or_default();
    if !rest.iter().all(u8::is_ascii_whitespace) {
        return Err(Error::InvalidParameter("unexpected content after JSON".into()));
    }
    typed(value)
}

/// Turns a parsed document into a type.
///
/// # Errors
/// 400 with the field, what it is and what it should be, as Go says it.
pub(crate) fn typed<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    typed_as(&struct_name::<T>().unwrap_or_default(), value)
}

/// As [`typed`], under the name that the type has in Go, such as `container.UpdateConfig`.
///
/// # Errors
/// As [`typed`].
pub(crate) fn typed_as<T: DeserializeOwned>(name: &str, value: Value) -> Result<T, Error> {
    // serde would also take an array for a struct, field by field.
    if value.is_array() && !name.is_empty() {
        return Err(invalid(&format!("json: cannot unmarshal array into Go value of type {name}")));
    }
    serde_path_to_error::deserialize(Folded(value)).map_err(|error| {
        let path = error.path().to_string();
        let text = error.inner().to_string();
        let owner = name.split_once('.').map_or("", |(_, owner)| owner);
        invalid(&type_error(owner, &path, &text))
    })
}

/// What a struct is called: its name in Go, where the type says so by `#[serde(expecting = "struct …")]`. `None` for other
/// types.
fn struct_name<T: DeserializeOwned>() -> Option<String> {
    let refusal = T::deserialize(Value::Bool(true)).err()?.to_string();
    refusal.split_once("expected struct ").map(|(_, name)| name.to_owned())
}

fn invalid(reason: &str) -> Error {
    Error::InvalidParameter(format!("invalid JSON: {reason}"))
}

/// `invalid type: integer `3`, expected a string` as Go puts it.
fn type_error(owner: &str, path: &str, text: &str) -> String {
    let Some((found, expected)) =
        text.strip_prefix("invalid type: ").and_then(|rest| rest.split_once(", expected "))
    else {
        return text.to_owned();
    };
    let found = match found.split([' ', '`']).next().unwrap_or("") {
        "string" => "string",
        "boolean" => "bool",
        "map" => "object",
        "sequence" => "array",
        _ => "number",
    };
    let wanted = match expected {
        "a string" => "string",
        "a boolean" => "bool",
        "a sequence" => "[]string",
        "a map" => "map[string]string",
        "f64" => "float64",
        number if number.starts_with(['i', 'u']) => "int64",
        other => other.strip_prefix("struct ").unwrap_or(other),
    };
    if path == "." {
        return format!("json: cannot unmarshal {found} into Go value of type {wanted}");
    }
    format!("json: cannot unmarshal {found} into Go struct field {owner}.{path} of type {wanted}")
}

/// What is wrong with the text itself.
pub(crate) fn syntax_error(bytes: &[u8], error: &serde_json::Error) -> String {
    let line_start = bytes
        .split_inclusive(|b| *b == b'\n')
        .take(error.line().saturating_sub(1))
        .map(<[u8]>::len)
        .sum::<usize>();
    let at = line_start + error.column().saturating_sub(1);
    let before = bytes.get(..at).unwrap_or(bytes);
    let word_start = before.iter().rposition(|b| !b.is_ascii_alphabetic()).map_or(0, |i| i + 1);
    let word = before.get(word_start..).unwrap_or_default();
    if error.is_eof() {
        return "unexpected EOF".into();
    }
    let Some(&found) = bytes.get(at) else { return "unexpected EOF".into() };
    let found = char::from(found);
    for literal in ["null", "true", "false"] {
        let shared =
            literal.bytes().zip(word.iter().chain([&(found as u8)])).take_while(|(a, b)| a == *b).count();
        if shared > 0
            && shared == word.len()
            && let Some(next) = literal.get(shared..).and_then(|l| l.chars().next())
        {
            return format!("invalid character '{found}' in literal {literal} (expecting '{next}')");
        }
    }
    let text = error.to_string();
    let place = if text.starts_with("expected `:`") {
        "after object key"
    } else if text.starts_with("expected `,` or `}`") {
        "after object key:value pair"
    } else if text.starts_with("expected `,` or `]`") {
        "after array element"
    } else if text.starts_with("key must be a string") || (text.starts_with("trailing comma") && found == '}')
    {
        "looking for beginning of object key string"
    } else {
        "looking for beginning of value"
    };
    format!("invalid character '{found}' {place}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::config::Config;

    #[test]
    fn errors_are_in_gos_words() {
        // Each as dockerd 28.5 answers it.
        let cases = [
            ("{", "unexpected EOF"),
            ("[", "unexpected EOF"),
            ("nul", "unexpected EOF"),
            ("nonsense", "invalid character 'o' in literal null (expecting 'u')"),
            (r#"{"Image":"x",}"#, "invalid character '}' looking for beginning of object key string"),
            (r#"{"a" 1}"#, "invalid character '1' after object key"),
            ("{bad", "invalid character 'b' looking for beginning of object key string"),
            (r#"{"Image":3}"#, "json: cannot unmarshal number into Go struct field .Image of type string"),
            (r#"{"Env":"x"}"#, "json: cannot unmarshal string into Go struct field .Env of type []string"),
            (r#"{"Tty":1}"#, "json: cannot unmarshal number into Go struct field .Tty of type bool"),
            (
                r#"{"Labels":[]}"#,
                "json: cannot unmarshal array into Go struct field .Labels of type map[string]string",
            ),
        ];
        for (text, expected) in cases {
            let got = parse::<Config>(text.as_bytes()).unwrap_err().to_string();
            assert_eq!(got, format!("invalid JSON: {expected}"), "{text}");
        }
        assert_eq!(parse::<Config>(b"{}{}").unwrap_err().to_string(), "unexpected content after JSON");
    }
}
