//! The changes of `docker commit`, with the answers of dockerd 28.5.2.

// A failed expectation is the test's result.
#![allow(clippy::expect_used, clippy::unwrap_used)]

use wherry_dockerfile::{Change, CommandLine, Healthcheck, Pair, parse_changes};

fn pairs(of: &[(&str, &str)]) -> Vec<Pair> {
    of.iter()
        .map(|(name, value)| Pair { name: (*name).into(), value: (*value).into(), legacy: false })
        .collect()
}

fn strings(of: &[&str]) -> Vec<String> {
    of.iter().map(|text| (*text).to_owned()).collect()
}

fn parse(changes: &[&str]) -> Vec<Change> {
    let parsed = parse_changes(changes).unwrap_or_else(|error| panic!("{changes:?}: {error}"));
    let environment = strings(&["A=b c"]);
    parsed.changes.into_iter().map(|i| i.expand(&environment, parsed.escape).unwrap()).collect()
}

#[test]
fn instructions_are_read() {
    use Change::{Cmd, Entrypoint, Env, Expose, Label, OnBuild, StopSignal, User, Volume, Workdir};
    let check = |change: &str, expect: Change| assert_eq!(parse(&[change]), [expect], "{change}");
    check("CMD echo hi", Cmd(CommandLine::Shell(Some("echo hi".into()))));
    check("cmd [\"echo\", \"hi\"]", Cmd(CommandLine::Exec(strings(&["echo", "hi"]))));
    check("CMD [echo", Cmd(CommandLine::Shell(Some("[echo".into()))));
    check("CMD", Cmd(CommandLine::Shell(None)));
    check("CMD []", Cmd(CommandLine::Exec(vec![])));
    check("ENTRYPOINT [\"a\"]", Entrypoint(CommandLine::Exec(strings(&["a"]))));
    check("ENV X='a b' Y=\"c d\" Z=e\\ f", Env(pairs(&[("X", "a b"), ("Y", "c d"), ("Z", "e f")])));
    let old = Pair { name: "X".into(), value: "a b".into(), legacy: true };
    check("ENV X  a b", Env(vec![old]));
    check("LABEL x=$A y=\"a b\" z=${Q:-w}", Label(pairs(&[("x", "b c"), ("y", "a b"), ("z", "w")])));
    check("EXPOSE 90 80/udp", Expose(strings(&["80/udp", "90"])));
    check("EXPOSE $P", Expose(vec![]));
    check("ONBUILD   RUN   echo \"hi\"", OnBuild("RUN   echo \"hi\"".into()));
    check("STOPSIGNAL 9", StopSignal("9".into()));
    check("USER a b", User("a b".into()));
    check("VOLUME [\"/x\", \"y\"]", Volume(strings(&["/x", "y"])));
    check("VOLUME /x y", Volume(strings(&["/x", "y"])));
    check("WORKDIR rel", Workdir("rel".into()));
    assert_eq!(parse(&["CMD a \\", "b"]), [Cmd(CommandLine::Shell(Some("a b".into())))]);
    assert_eq!(parse(&["USER a", "# c", "USER b"]), [User("a".into()), User("b".into())]);
}

#[test]
fn health_probes_are_read() {
    let check = |change: &str, expect: Healthcheck| {
        assert_eq!(parse(&[change]), [Change::Healthcheck(expect)], "{change}");
    };
    let none = Healthcheck { test: strings(&["NONE"]), ..Healthcheck::default() };
    check("HEALTHCHECK none", none);
    let shell = Healthcheck {
        test: strings(&["CMD-SHELL", "curl -f x || exit 1"]),
        interval_ns: 5_000_000_000,
        retries: 3,
        ..Healthcheck::default()
    };
    check("HEALTHCHECK --interval=5s --retries=3 CMD curl -f x || exit 1", shell);
    let exec = Healthcheck {
        test: strings(&["CMD", "a", "b"]),
        timeout_ns: 90_000_000_000,
        start_period_ns: 1_000_000,
        start_interval_ns: 2_000_000_000,
        ..Healthcheck::default()
    };
    check("HEALTHCHECK --timeout=1m30s --start-period=1ms --start-interval=2s CMD [\"a\", \"b\"]", exec);
}

#[test]
fn errors_are_dockerds() {
    let fails = |change: &str, expect: &str| {
        let parsed = parse_changes(&[change]);
        let expanded = parsed.and_then(|parsed| {
            let escape = parsed.escape;
            parsed.changes.into_iter().map(|i| i.expand(&[], escape)).collect::<Result<Vec<_>, _>>()
        });
        assert_eq!(expanded.expect_err(change).to_string(), expect, "{change}");
    };
    fails("", "file with no instructions");
    fails("# comment", "file with no instructions");
    fails("FOO bar", "FOO is not a valid change command");
    fails("RUN x", "RUN is not a valid change command");
    fails("ENV A", "ENV must have two arguments");
    fails("LABEL a", "LABEL must have two arguments");
    fails("ENV =x", "ENV names can not be blank");
    fails("ENV a=b c", "Syntax error - can't find = in \"c\". Must be of the form: name=value");
    fails("ENV", "ENV requires at least one argument");
    fails("HEALTHCHECK --foo=5s CMD true", "unknown flag: --foo");
    fails("HEALTHCHECK FOO", "Unknown type \"FOO\" in HEALTHCHECK (try CMD)");
    fails("HEALTHCHECK --interval=x CMD x", "time: invalid duration \"x\"");
    fails("HEALTHCHECK --interval=1us CMD x", "Interval \"interval\" cannot be less than 1ms");
    fails("HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)");
    fails("HEALTHCHECK --retries=x CMD x", "strconv.ParseInt: parsing \"x\": invalid syntax");
    fails("HEALTHCHECK --interval CMD x", "missing a value on flag: --interval");
    fails("HEALTHCHECK --retries=1 --retries=1 CMD x", "duplicate flag specified: --retries");
    fails("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments");
    fails("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD");
    fails("HEALTHCHECK", "HEALTHCHECK requires at least one argument");
    fails("ONBUILD ONBUILD x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed");
    fails("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger");
    fails(
        "VOLUME a \"b c\"",
        "failed to process \"\\\"b\": unexpected end of statement while looking for matching double-quote",
    );
    fails("VOLUME [\"\"]", "VOLUME specified can not be an empty string");
    fails("USER", "USER requires exactly one argument");
    fails("CMD [\"a\", 1]", "when using JSON array syntax, arrays must be comprised of strings only");
    fails("ENV A=${", "failed to process \"${\": syntax error: missing '}'");
    fails(
        "ENV A='x",
        "failed to process \"'x\": unexpected end of statement while looking for matching single-quote",
    );
    fails("WORKDIR --x /y", "unknown flag: --x");
}
