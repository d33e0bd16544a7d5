//! The option `tag`: a template in Go's language, of which this has what tags are made of: fields and methods of dockerd's
//! `logger.Info`, texts, numbers, pipes, and the functions that dockerd adds.

use super::Reason;
use crate::containers::record::Record;
use crate::text::{go_json, go_quote};

/// Parentheses in parentheses, at most. Each costs a piece of the stack.
const DEEPEST: usize = 50;

/// Renders the container's tag; `default` if it has none.
///
/// # Errors
/// `template: log-tag:1: …` in Go's words.
pub(super) fn render(record: &Record, default: &str) -> Result<String, Reason> {
    let template = record.host_config.log_config.config.get("tag").map(String::as_str);
    let template = template.filter(|tag| !tag.is_empty()).unwrap_or(default);
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        text.push_str(before);
        let Some((action, after)) = after.split_once("}}") else { return Err(syntax("unclosed action")) };
        let action = action.strip_prefix("- ").unwrap_or(action);
        let action = action.strip_suffix(" -").unwrap_or(action);
        text.push_str(&evaluate(record, action.trim(), template, DEEPEST)?.shown());
        rest = after;
    }
    Ok(text + rest)
}

fn syntax(reason: &str) -> Reason {
    format!("template: log-tag:1: {reason}")
}

/// What an expression is worth.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Text(String),
    Number(i64),
    List(Vec<String>),
    Map(std::collections::BTreeMap<String, String>),
}

impl Value {
    /// As Go prints it.
    fn shown(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::List(list) => format!("[{}]", list.join(" ")),
            Self::Map(map) => {
                let entries: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{value}")).collect();
                format!("map[{}]", entries.join(" "))
            }
        }
    }

    fn length(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Number(_) => 0,
            Self::List(list) => list.len(),
            Self::Map(map) => map.len(),
        }
    }
}

/// A pipe: each command gets the value before it as its last argument. `depth` is how much deeper parentheses may go.
fn evaluate(record: &Record, action: &str, template: &str, depth: usize) -> Result<Value, Reason> {
    let mut piped = None;
    for command in split(action, '|') {
        let words = split(command, ' ');
        let Some((first, arguments)) = words.split_first() else {
            return Err(syntax("missing value for command"));
        };
        let mut values = Vec::new();
        for argument in arguments {
            values.push(operand(record, argument, template, depth)?);
        }
        values.extend(piped.take());
        piped = Some(if first.starts_with(|c: char| c.is_ascii_alphabetic()) {
            call(first, &values)?
        } else {
            operand(record, first, template, depth)?
        });
    }
    piped.ok_or_else(|| syntax("missing value for command"))
}

/// The parts between separators that are not inside quotes or parentheses, trimmed, without empty ones.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut depth) = (Vec::new(), 0, false, 0usize);
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth = depth.saturating_sub(1),
            c if c == separator && !quoted && depth == 0 => {
                parts.push(text.get(start..at).unwrap_or_default().trim());
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(text.get(start..).unwrap_or_default().trim());
    parts.retain(|part| !part.is_empty());
    parts
}

fn operand(record: &Record, word: &str, template: &str, depth: usize) -> Result<Value, Reason> {
    if let Some(inner) = word.strip_prefix('(').and_then(|word| word.strip_suffix(')')) {
        let depth = depth.checked_sub(1).ok_or_else(|| syntax("max expression depth exceeded"))?;
        return evaluate(record, inner, template, depth);
    }
    if let Some(text) = word.strip_prefix('"').and_then(|word| word.strip_suffix('"')) {
        return Ok(Value::Text(text.replace("\\\"", "\"").replace("\\\\", "\\")));
    }
    if let Ok(number) = word.parse() {
        return Ok(Value::Number(number));
    }
    let Some(name) = word.strip_prefix('.') else {
        return Err(syntax(&format!("unexpected {} in operand", go_quote(word))));
    };
    field(record, name).ok_or_else(|| {
        let column = template.find(word).unwrap_or(0);
        format!(
            "template: log-tag:1:{column}: executing \"log-tag\" at <{word}>: can't evaluate field {name} in type \
             *logger.Info"
        )
    })
}

/// A field or method of `logger.Info`.
fn field(record: &Record, name: &str) -> Option<Value> {
    let text = |text: &str| Some(Value::Text(text.to_owned()));
    let image = record.image.split_once(':').map_or(record.image.as_str(), |(_, digits)| digits);
    match name {
        "ID" => text(record.short_id()),
        "FullID" | "ContainerID" => text(&record.id),
        "Name" => text(&record.name),
        "ContainerName" => text(&format!("/{}", record.name)),
        "ImageID" => text(image.get(..12).unwrap_or(image)),
        "ImageFullID" | "ContainerImageID" => text(&record.image),
        "ImageName" | "ContainerImageName" => text(&record.config.image),
        "ContainerEntrypoint" => text(&record.path),
        "ContainerArgs" => Some(Value::List(record.args.clone())),
        "ContainerEnv" => Some(Value::List(record.config.env.clone().unwrap_or_default())),
        "ContainerLabels" => Some(Value::Map(record.labels().clone())),
        "ContainerCreated" => text(&crate::clock::rfc3339(record.created_ns)),
        "Config" => Some(Value::Map(record.host_config.log_config.config.clone())),
        "Command" => {
            let words: Vec<&str> =
                std::iter::once(&record.path).chain(&record.args).map(String::as_str).collect();
            text(&words.join(" "))
        }
        "Hostname" => text(&rustix::system::uname().nodename().to_string_lossy()),
        "DaemonName" => text("docker"),
        "LogPath" => text(""),
        _ => None,
    }
}

fn call(function: &str, arguments: &[Value]) -> Result<Value, Reason> {
    let wrong = || format!("template: log-tag: wrong arguments for {function}");
    let text = |change: fn(&str) -> String| match arguments {
        [value] => Ok(Value::Text(change(&value.shown()))),
        _ => Err(wrong()),
    };
    match (function, arguments) {
        ("lower", _) => text(str::to_lowercase),
        ("upper", _) => text(str::to_uppercase),
        ("title", _) => text(title),
        ("print", _) => Ok(Value::Text(arguments.iter().map(Value::shown).collect())),
        ("println", _) => {
            Ok(Value::Text(arguments.iter().map(Value::shown).collect::<Vec<_>>().join(" ") + "\n"))
        }
        ("len", [value]) => Ok(Value::Number(i64::try_from(value.length()).unwrap_or(i64::MAX))),
        ("json", [Value::Text(value)]) => Ok(Value::Text(go_json(value))),
        ("json", [Value::Number(value)]) => Ok(Value::Text(value.to_string())),
        ("json", [Value::List(value)]) => Ok(Value::Text(go_json(value))),
        ("json", [Value::Map(value)]) => Ok(Value::Text(go_json(value))),
        ("index", [Value::Map(map), Value::Text(key)]) => {
            Ok(Value::Text(map.get(key).cloned().unwrap_or_default()))
        }
        ("index", [Value::List(list), Value::Number(at)]) => {
            let item = usize::try_from(*at).ok().and_then(|at| list.get(at));
            item.cloned()
                .map(Value::Text)
                .ok_or_else(|| format!("template: log-tag: error calling index: index out of range: {at}"))
        }
        ("truncate", [Value::Text(text), Value::Number(length)]) => {
            let length = usize::try_from(*length).map_err(|_| wrong())?;
            Ok(Value::Text(text.get(..length).unwrap_or(text).to_owned()))
        }
        ("pad", [Value::Text(text), Value::Number(before), Value::Number(after)]) => {
            if text.is_empty() {
                return Ok(Value::Text(String::new()));
            }
            let spaces = |count: i64| " ".repeat(usize::try_from(count).unwrap_or(0).min(1000));
            Ok(Value::Text(spaces(*before) + text + &spaces(*after)))
        }
        ("split", [Value::Text(text), Value::Text(separator)]) => {
            Ok(Value::List(text.split(separator.as_str()).map(str::to_owned).collect()))
        }
        ("join", [Value::List(list), Value::Text(separator)]) => Ok(Value::Text(list.join(separator))),
        ("len" | "json" | "index" | "truncate" | "pad" | "split" | "join", _) => Err(wrong()),
        _ => Err(syntax(&format!("function {} not defined", go_quote(function)))),
    }
}

/// The first letter of each word as a capital.
fn title(text: &str) -> String {
    let mut begins = true;
    text.chars()
        .map(|c| {
            let changed = if begins { c.to_ascii_uppercase() } else { c };
            begins = !c.is_alphanumeric();
            changed
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::containers::spec::test_data::record;

    #[test]
    fn tags_are_rendered_as_go_does() {
        let render = |tag: &str| {
            let mut record = record();
            record.name = "box".into();
            record.config.labels = Some([("a".to_owned(), "x y".to_owned())].into());
            record.host_config.log_config.config.insert("tag".into(), tag.into());
            super::render(&record, "{{.Name}}!")
        };
        for (tag, expect) in [
            ("", "box!"),
            ("plain", "plain"),
            ("{{.Name}}/{{ .ContainerName }}", "box//box"),
            ("{{upper .Name | lower}}-{{.Name | upper}}", "box-BOX"),
            ("{{index .ContainerLabels \"a\" | title}}", "X Y"),
            ("{{truncate .Name 2}}{{pad .Name 1 2}}.", "bo box  ."),
            ("{{join (split \"a.b\" \".\") \"-\"}} {{len .Name}} {{json .Name}}", "a-b 3 \"box\""),
        ] {
            assert_eq!(render(tag).as_deref(), Ok(expect), "{tag}");
        }
        let nested = |depth: usize| format!("{{{{{}.Name{}}}}}", "(".repeat(depth), ")".repeat(depth));
        assert_eq!(render(&nested(50)).as_deref(), Ok("box"));
        let too_deep = nested(20_000);
        for (tag, expect) in [
            (too_deep.as_str(), "template: log-tag:1: max expression depth exceeded"),
            ("{{", "template: log-tag:1: unclosed action"),
            ("{{foo .ID}}", "template: log-tag:1: function \"foo\" not defined"),
            (
                "{{.Nope}}",
                "template: log-tag:1:2: executing \"log-tag\" at <.Nope>: can't evaluate field Nope in type *logger.Info",
            ),
        ] {
            assert_eq!(render(tag), Err(expect.to_owned()), "{}", tag.get(..50).unwrap_or(tag));
        }
    }
}
