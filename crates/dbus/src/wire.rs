//! D-Bus messages as bytes (the D-Bus specification, "Message Protocol"): as many types as systemd and firewalld use.

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `y`.
    Byte(u8),
    /// `b`.
    Bool(bool),
    /// `i`.
    Int32(i32),
    /// `u`.
    Uint32(u32),
    /// `x`.
    Int64(i64),
    /// `t`.
    Uint64(u64),
    /// `d`.
    Double(f64),
    /// `s`.
    Text(String),
    /// `o`.
    Path(String),
    /// `g`.
    Signature(String),
    /// The signature of the elements, and these.
    Array(String, Vec<Value>),
    /// A structure, or an entry of a dictionary.
    Struct(Vec<Value>),
    /// `v`.
    Variant(Box<Value>),
}

impl Value {
    /// `s`.
    pub fn text(text: impl Into<String>) -> Self {
        Value::Text(text.into())
    }

    /// `as`.
    pub fn texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        Value::Array("s".into(), texts.into_iter().map(Value::text).collect())
    }

    /// `ay`.
    pub fn bytes(bytes: &[u8]) -> Self {
        Value::Array("y".into(), bytes.iter().copied().map(Value::Byte).collect())
    }

    /// The value's signature.
    pub fn signature(&self) -> String {
        match self {
            Value::Byte(_) => "y".into(),
            Value::Bool(_) => "b".into(),
            Value::Int32(_) => "i".into(),
            Value::Uint32(_) => "u".into(),
            Value::Int64(_) => "x".into(),
            Value::Uint64(_) => "t".into(),
            Value::Double(_) => "d".into(),
            Value::Text(_) => "s".into(),
            Value::Path(_) => "o".into(),
            Value::Signature(_) => "g".into(),
            Value::Array(element, _) => format!("a{element}"),
            Value::Struct(fields) => format!("({})", signature_of(fields)),
            Value::Variant(_) => "v".into(),
        }
    }

    /// The text of a string or an object path.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) | Value::Path(text) => Some(text),
            _ => None,
        }
    }
}

/// The signatures of several values, one after the other.
pub(crate) fn signature_of(values: &[Value]) -> String {
    values.iter().map(Value::signature).collect()
}

/// How values of the type that begins a signature are aligned.
fn alignment(signature: &[u8]) -> usize {
    match signature.first() {
        Some(b'y' | b'g' | b'v') => 1,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 4,
    }
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a D-Bus message: {0}")]
pub struct Malformed(&'static str);

/// Kinds of message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A method is called.
    Call,
    /// It answers.
    Return,
    /// It answers with an error.
    Error,
    /// Something has happened.
    Signal,
}

/// A message. Fields that its kind does not have are empty.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// Its number, of the sender.
    pub serial: u32,
    /// The number of the call that it answers.
    pub reply_to: u32,
    /// The object.
    pub path: String,
    /// The interface.
    pub interface: String,
    /// The method or signal.
    pub member: String,
    /// Whom it is for.
    pub destination: String,
    /// The error's name.
    pub error: String,
    /// Arguments or results.
    pub body: Vec<Value>,
}

impl Default for Message {
    fn default() -> Self {
        Message {
            kind: Kind::Call,
            serial: 0,
            reply_to: 0,
            path: String::new(),
            interface: String::new(),
            member: String::new(),
            destination: String::new(),
            error: String::new(),
            body: Vec::new(),
        }
    }
}

/// Longer messages are refused. The specification allows 128 MiB; the manager's are below a page.
const LONGEST: usize = 1 << 20;
/// The part of the header that has a fixed length.
pub(crate) const PREFIX: usize = 16;

/// How long the message is that begins with these bytes.
pub(crate) fn length(prefix: &[u8; PREFIX]) -> Result<usize, Malformed> {
    let word = |at: usize| {
        let bytes = [prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]];
        u32::from_le_bytes(bytes) as usize
    };
    if prefix[0] != b'l' {
        return Err(Malformed("it is not little-endian"));
    }
    let (body, fields) = (word(4), word(12));
    if body > LONGEST || fields > LONGEST {
        return Err(Malformed("it is too long"));
    }
    Ok((PREFIX + fields).next_multiple_of(8) + body)
}

/// Numbers of header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

impl Message {
    /// The message as it is sent.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Writer::default();
        self.body.iter().for_each(|value| body.value(value));
        let mut fields = Vec::new();
        let mut field = |number: u8, value: Value| {
            fields.push(Value::Struct(vec![Value::Byte(number), Value::Variant(Box::new(value))]));
        };
        if !self.path.is_empty() {
            field(PATH, Value::Path(self.path.clone()));
        }
        for (number, text) in [
            (INTERFACE, &self.interface),
            (MEMBER, &self.member),
            (ERROR_NAME, &self.error),
            (DESTINATION, &self.destination),
        ] {
            if !text.is_empty() {
                field(number, Value::text(text.as_str()));
            }
        }
        if self.reply_to != 0 {
            field(REPLY_SERIAL, Value::Uint32(self.reply_to));
        }
        if !self.body.is_empty() {
            field(SIGNATURE, Value::Signature(signature_of(&self.body)));
        }
        let kind = match self.kind {
            Kind::Call => 1,
            Kind::Return => 2,
            Kind::Error => 3,
            Kind::Signal => 4,
        };
        let mut writer = Writer { out: vec![b'l', kind, 0, 1] };
        writer.value(&Value::Uint32(u32::try_from(body.out.len()).unwrap_or(u32::MAX)));
        writer.value(&Value::Uint32(self.serial));
        writer.value(&Value::Array("(yv)".into(), fields));
        writer.align(8);
        writer.out.append(&mut body.out);
        writer.out
    }

    /// Reads a whole message.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader { bytes, at: 0 };
        reader.take(1)?;
        let kind = match reader.take(1)? {
            [1] => Kind::Call,
            [2] => Kind::Return,
            [3] => Kind::Error,
            [4] => Kind::Signal,
            _ => return Err(Malformed("its kind is unknown")),
        };
        reader.take(2)?;
        reader.u32()?;
        let mut message = Message { kind, serial: reader.u32()?, ..Message::default() };
        let mut signature = String::new();
        let (fields, _) = reader.value(b"a(yv)", 0)?;
        let Value::Array(_, fields) = fields else { return Err(Malformed("it has no fields")) };
        for field in fields {
            let Value::Struct(pair) = field else { continue };
            let [Value::Byte(number), Value::Variant(value)] = pair.as_slice() else { continue };
            match (*number, value.as_ref()) {
                (PATH, Value::Path(text)) => message.path.clone_from(text),
                (INTERFACE, Value::Text(text)) => message.interface.clone_from(text),
                (MEMBER, Value::Text(text)) => message.member.clone_from(text),
                (ERROR_NAME, Value::Text(text)) => message.error.clone_from(text),
                (DESTINATION, Value::Text(text)) => message.destination.clone_from(text),
                (REPLY_SERIAL, Value::Uint32(serial)) => message.reply_to = *serial,
                (SIGNATURE, Value::Signature(text)) => signature.clone_from(text),
                _ => {} // sender, descriptors: not for us
            }
        }
        reader.align(8)?;
        let mut rest = signature.as_bytes();
        while !rest.is_empty() {
            let (value, used) = reader.value(rest, 0)?;
            message.body.push(value);
            rest = rest.get(used..).unwrap_or_default();
        }
        Ok(message)
    }
}

/// Values become bytes. Alignment counts from the first byte.
#[derive(Debug, Default)]
struct Writer {
    out: Vec<u8>,
}

impl Writer {
    fn align(&mut self, to: usize) {
        self.out.resize(self.out.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, bytes: &[u8]) {
        self.align(bytes.len());
        self.out.extend_from_slice(bytes);
    }

    fn length(&mut self, length: usize) {
        self.number(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Byte(byte) => self.out.push(*byte),
            Value::Bool(truth) => self.number(&u32::from(*truth).to_le_bytes()),
            Value::Int32(number) => self.number(&number.to_le_bytes()),
            Value::Uint32(number) => self.number(&number.to_le_bytes()),
            Value::Int64(number) => self.number(&number.to_le_bytes()),
            Value::Uint64(number) => self.number(&number.to_le_bytes()),
            Value::Double(number) => self.number(&number.to_le_bytes()),
            Value::Text(text) | Value::Path(text) => {
                self.length(text.len());
                self.out.extend_from_slice(text.as_bytes());
                self.out.push(0);
            }
            Value::Signature(text) => self.signature(text),
            Value::Array(element, elements) => {
                self.length(0);
                let length_at = self.out.len() - 4;
                // the length does not count the padding before the first element
                self.align(alignment(element.as_bytes()));
                let start = self.out.len();
                elements.iter().for_each(|element| self.value(element));
                let length = u32::try_from(self.out.len() - start).unwrap_or(u32::MAX).to_le_bytes();
                self.out.splice(length_at..length_at + 4, length);
            }
            Value::Struct(fields) => {
                self.align(8);
                fields.iter().for_each(|field| self.value(field));
            }
            Value::Variant(value) => {
                self.signature(&value.signature());
                self.value(value);
            }
        }
    }

    fn signature(&mut self, text: &str) {
        self.out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.out.extend_from_slice(text.as_bytes());
        self.out.push(0);
    }
}

/// Bytes become values.
#[derive(Debug)]
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(length).ok_or(Malformed("a length is too large"))?;
        let taken = self.bytes.get(self.at..end).ok_or(Malformed("it ends early"))?;
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self, to: usize) -> Result<(), Malformed> {
        let next = self.at.next_multiple_of(to);
        self.take(next - self.at).map(drop)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.align(N)?;
        self.take(N)?.try_into().map_err(|_| Malformed("it ends early"))
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.number().map(u32::from_le_bytes)
    }

    fn text(&mut self, length: usize) -> Result<String, Malformed> {
        let text = self.take(length)?.to_vec();
        self.take(1)?;
        String::from_utf8(text).map_err(|_| Malformed("a string is not UTF-8"))
    }

    /// The value of the first complete type of the signature, and how long that type's signature is.
    fn value(&mut self, signature: &[u8], depth: usize) -> Result<(Value, usize), Malformed> {
        if depth > 32 {
            return Err(Malformed("it is nested too deeply"));
        }
        let value = match signature.first() {
            Some(b'y') => Value::Byte(u8::from_le_bytes(self.number()?)),
            Some(b'b') => Value::Bool(self.u32()? != 0),
            Some(b'i') => Value::Int32(i32::from_le_bytes(self.number()?)),
            Some(b'u' | b'h') => Value::Uint32(self.u32()?),
            Some(b'n' | b'q') => Value::Int32(i16::from_le_bytes(self.number()?).into()),
            Some(b'x') => Value::Int64(i64::from_le_bytes(self.number()?)),
            Some(b't') => Value::Uint64(u64::from_le_bytes(self.number()?)),
            Some(b'd') => Value::Double(f64::from_le_bytes(self.number()?)),
            Some(kind @ (b's' | b'o')) => {
                let length = self.u32()? as usize;
                let text = self.text(length)?;
                if *kind == b's' { Value::Text(text) } else { Value::Path(text) }
            }
            Some(b'g') => {
                let [length] = self.number()?;
                Value::Signature(self.text(length.into())?)
            }
            Some(b'v') => {
                let [length] = self.number()?;
                let inner = self.text(length.into())?;
                Value::Variant(Box::new(self.value(inner.as_bytes(), depth + 1)?.0))
            }
            Some(b'a') => {
                let element = signature.get(1..).unwrap_or_default();
                let used = type_length(element, depth)?;
                return Ok((self.array(element.get(..used).unwrap_or_default(), depth)?, used + 1));
            }
            Some(b'(' | b'{') => {
                self.align(8)?;
                let mut fields = Vec::new();
                let mut at = 1;
                while !matches!(signature.get(at), Some(b')' | b'}')) {
                    let (field, used) = self.value(signature.get(at..).unwrap_or_default(), depth + 1)?;
                    fields.push(field);
                    at += used;
                }
                return Ok((Value::Struct(fields), at + 1));
            }
            _ => return Err(Malformed("a signature is wrong")),
        };
        Ok((value, 1))
    }

    fn array(&mut self, element: &[u8], depth: usize) -> Result<Value, Malformed> {
        let length = self.u32()? as usize;
        self.align(alignment(element))?;
        let end = self.at.checked_add(length).ok_or(Malformed("a length is too large"))?;
        let mut elements = Vec::new();
        while self.at < end {
            let before = self.at;
            elements.push(self.value(element, depth + 1)?.0);
            if self.at == before {
                return Err(Malformed("an element of a list has no length"));
            }
        }
        Ok(Value::Array(String::from_utf8_lossy(element).into_owned(), elements))
    }
}

/// How long the first complete type of a signature is.
fn type_length(signature: &[u8], depth: usize) -> Result<usize, Malformed> {
    if depth > 32 {
        return Err(Malformed("it is nested too deeply"));
    }
    match signature.first() {
        Some(b'a') => Ok(1 + type_length(signature.get(1..).unwrap_or_default(), depth + 1)?),
        Some(b'(' | b'{') => {
            let mut at = 1;
            while !matches!(signature.get(at), Some(b')' | b'}')) {
                at += type_length(signature.get(at..).unwrap_or_default(), depth + 1)?;
            }
            Ok(at + 1)
        }
        Some(_) => Ok(1),
        None => Err(Malformed("a signature is wrong")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Message {
        Message {
            serial: 7,
            path: "/org/freedesktop/systemd1".into(),
            interface: "org.freedesktop.systemd1.Manager".into(),
            member: "StartTransientUnit".into(),
            destination: "org.freedesktop.systemd1".into(),
            body: vec![
                Value::text("a.scope"),
                Value::Array(
                    "(sv)".into(),
                    vec![
                        Value::Struct(vec![
                            Value::text("PIDs"),
                            Value::Variant(Box::new(Value::Array("u".into(), vec![Value::Uint32(5)]))),
                        ]),
                        Value::Struct(vec![
                            Value::text("MemoryMax"),
                            Value::Variant(Box::new(Value::Uint64(u64::MAX))),
                        ]),
                        Value::Struct(vec![
                            Value::text("AllowedCPUs"),
                            Value::Variant(Box::new(Value::bytes(&[3]))),
                        ]),
                    ],
                ),
                Value::Array("(sa(sv))".into(), Vec::new()),
            ],
            ..Message::default()
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let message = sample();
        let bytes = message.encode();
        let prefix: &[u8; PREFIX] = bytes[..PREFIX].try_into().unwrap();
        assert_eq!(length(prefix).unwrap(), bytes.len());
        assert_eq!(Message::decode(&bytes).unwrap(), message);
    }

    /// Written out by hand from the specification.
    #[test]
    fn hello() {
        let message = Message {
            serial: 1,
            path: "/org/freedesktop/DBus".into(),
            interface: "org.freedesktop.DBus".into(),
            member: "Hello".into(),
            destination: "org.freedesktop.DBus".into(),
            ..Message::default()
        };
        let expect = b"l\x01\0\x01\0\0\0\0\x01\0\0\0\x6d\0\0\0\
            \x01\x01o\0\x15\0\0\0/org/freedesktop/DBus\0\0\0\
            \x02\x01s\0\x14\0\0\0org.freedesktop.DBus\0\0\0\0\
            \x03\x01s\0\x05\0\0\0Hello\0\0\0\
            \x06\x01s\0\x14\0\0\0org.freedesktop.DBus";
        let bytes = message.encode();
        assert_eq!(bytes, [expect.as_slice(), &[0; 4][..]].concat());
    }

    #[test]
    fn damaged_messages_are_refused() {
        let bytes = sample().encode();
        for cut in 0..bytes.len() {
            assert!(Message::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xff;
            let _ = Message::decode(&damaged); // it may be read as another message, but must not panic or hang
        }
        assert!(Reader { bytes: &[8; 64], at: 0 }.value(b"a()", 0).is_err());
        assert!(type_length(&[b'a'; 64], 0).is_err());
        assert!(type_length(b"(s", 0).is_err());
    }
}
