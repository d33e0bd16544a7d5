use super::*;

#[test]
fn options_are_checked_in_dockerds_words() {
    let check = |driver: &str, options: &[(&str, &str)]| {
        let config = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        check_options(driver, &config)
    };
    assert_eq!(check("json-file", &[("max-size", "1")]), Ok(()));
    assert_eq!(check("none", &[("whatever", "1")]), Ok(()));
    assert_eq!(
        check("local", &[("labels", "1")]),
        Err("unknown log opt 'labels' for log driver local".into())
    );
    assert_eq!(
        check("foo", &[]),
        Err("error looking up logging plugin foo: plugin \"foo\" not found".into())
    );
    assert_eq!(check("splunk", &[]), Err("logging driver \"splunk\" is not supported".into()));
    for (driver, option, value, ok) in [
        ("syslog", "syslog-address", "udp://127.0.0.1", true),
        ("syslog", "syslog-address", "tcp+tls://h", true),
        ("syslog", "syslog-address", "tls://h", false),
        ("syslog", "syslog-facility", "23", true),
        ("syslog", "syslog-facility", "24", false),
        ("fluentd", "fluentd-address", "host", true),
        ("fluentd", "fluentd-address", "tls://h", true),
        ("fluentd", "fluentd-address", "tls://h/x", false),
        ("fluentd", "fluentd-retry-wait", "2s", true),
        ("gelf", "gelf-address", "udp://h:1", true),
        ("gelf", "gelf-address", "udp://h", false),
        ("journald", "tag", "x", true),
    ] {
        assert_eq!(check(driver, &[(option, value)]).is_ok(), ok, "{driver} {option}={value}");
    }
}

#[test]
fn logs_are_bounded_unless_told_otherwise() {
    let limits = |options: &[(&str, &str)]| {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        local::Limits::of_json_file(&options).map(|limits| (limits.max_bytes, limits.max_files))
    };
    assert_eq!(limits(&[]), Ok((Some(100_000_000), 5)));
    assert_eq!(limits(&[("max-file", "2")]), Ok((Some(100_000_000), 2)));
    assert_eq!(limits(&[("max-size", "1m")]), Ok((Some(1_000_000), 1)));
    assert_eq!(limits(&[("max-size", "-1")]), Ok((None, 1)));
    assert_eq!(limits(&[("max-size", "0")]), Err("max-size must be a positive number".into()));
}
