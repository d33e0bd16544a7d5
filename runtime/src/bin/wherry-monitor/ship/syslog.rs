//! Syslog: RFC 3164 and RFC 5424, as dockerd's driver writes them.

use wherry_container_log::Stream;
use wherry_monitor_api::SyslogForm;

use super::Entry;
use super::clock::{Local, local};

/// Severities: error for standard error, information for standard output.
pub(super) fn severity(stream: Stream) -> u8 {
    match stream {
        Stream::Stderr => 3,
        Stream::Stdout => 6,
    }
}

/// A line, with its length before it if that is wanted; nothing for an empty one.
pub(super) fn message(
    form: SyslogForm,
    facility: u8,
    hostname: &str,
    tag: &str,
    counted: bool,
    entry: &Entry<'_>,
) -> Option<Vec<u8>> {
    if entry.text.is_empty() {
        return None;
    }
    let priority = facility | severity(entry.stream);
    let head = head(form, priority, hostname, tag, std::process::id(), &local(entry.time_ns));
    let length = if counted { format!("{} ", head.len() + entry.text.len() + 1) } else { String::new() };
    Some([length.as_bytes(), head.as_bytes(), entry.text, b"\n"].concat())
}

fn head(form: SyslogForm, priority: u8, hostname: &str, tag: &str, pid: u32, time: &Local) -> String {
    match form {
        SyslogForm::Local => format!("<{priority}>{} {tag}[{pid}]: ", time.stamp()),
        SyslogForm::Rfc3164 => format!("<{priority}>{} {hostname} {tag}[{pid}]: ", time.stamp()),
        SyslogForm::Rfc5424 => format!("<{priority}>1 {} {hostname} {tag} {pid} {tag} - ", time.rfc3339(0)),
        SyslogForm::Rfc5424Micro => {
            format!("<{priority}>1 {} {hostname} {tag} {pid} {tag} - ", time.rfc3339(6))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let time = Local {
            year: 2026,
            month: 2,
            day: 3,
            hour: 4,
            minute: 5,
            second: 6,
            nanosecond: 7_008_000,
            offset_minutes: -90,
        };
        for (form, expect) in [
            (SyslogForm::Local, "<30>Feb  3 04:05:06 t[9]: "),
            (SyslogForm::Rfc3164, "<30>Feb  3 04:05:06 h t[9]: "),
            (SyslogForm::Rfc5424, "<30>1 2026-02-03T04:05:06-01:30 h t 9 t - "),
            (SyslogForm::Rfc5424Micro, "<30>1 2026-02-03T04:05:06.007008-01:30 h t 9 t - "),
        ] {
            assert_eq!(head(form, 30, "h", "t", 9, &time), expect);
        }
    }
}
