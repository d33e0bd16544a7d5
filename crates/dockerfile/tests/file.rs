//! Whole files, with the answers of dockerd 28.5.2.

// A failed expectation is the test's result.
#![allow(clippy::expect_used, clippy::unwrap_used)]

use wherry_dockerfile::{Change, CommandLine, Dockerfile, Instruction, Lines, RunNetwork, TransferKind};

#[test]
fn a_file_has_directives_arguments_and_stages() {
    let file = Dockerfile::parse(
        "# syntax=docker/dockerfile:1\n# escape=`\nARG TAG=1 OTHER\nFROM --platform=$BUILDPLATFORM busybox:$TAG As Base\n\
         RUN --mount=type=cache,target=/c --network=none a `\n  b\n\nfrom Base\nCOPY --from=base --chown=1:2 --link a b /c/\n",
    );
    let file = file.unwrap();
    assert_eq!(file.directive("syntax").unwrap().value, "docker/dockerfile:1");
    assert_eq!((file.escape, file.global_args[0].args.len()), ('`', 2));
    let [base, last] = file.stages.as_slice() else { panic!("{file:?}") };
    assert_eq!((base.name.as_deref(), base.base.as_str()), (Some("base"), "busybox:$TAG"));
    assert_eq!(
        (base.platform.as_deref(), base.source.lines),
        (Some("$BUILDPLATFORM"), Lines { first: 4, last: 4 })
    );
    let Instruction::Run(run) = &base.statements[0].instruction else { panic!("{base:?}") };
    assert_eq!(run.command, CommandLine::Shell(Some("a   b".into())));
    assert_eq!(
        (run.network, run.mounts.as_slice()),
        (RunNetwork::None, ["type=cache,target=/c".to_owned()].as_slice())
    );
    assert_eq!(base.statements[0].source.lines, Lines { first: 5, last: 6 });
    assert_eq!(base.statements[0].source.text, "RUN --mount=type=cache,target=/c --network=none a   b");
    let Instruction::Transfer(copy) = &last.statements[0].instruction else { panic!("{last:?}") };
    assert_eq!(copy.kind, TransferKind::Copy { from: Some("base".into()), parents: false });
    assert_eq!((copy.sources.join(" "), copy.destination.as_str()), ("a b".into(), "/c/"));
    assert!(copy.link);
}

#[test]
fn documents_belong_to_their_instruction() {
    let file = Dockerfile::parse(
        "FROM a\nRUN <<EOF cat - <<-'X'\n one\nEOF\n\ttwo\n\tX\nCOPY <<a.txt <<\"b\" c /d/\n$A\na.txt\n$B\nb\nUSER x\nONBUILD RUN <<EOF\nz\nEOF\n",
    );
    let file = file.unwrap();
    let [run, copy, user, trigger] = file.stages[0].statements.as_slice() else { panic!("{file:?}") };
    let Instruction::Run(run_step) = &run.instruction else { panic!("{run:?}") };
    assert_eq!(run.source.lines, Lines { first: 2, last: 6 });
    let [first, second] = run_step.documents.as_slice() else { panic!("{run_step:?}") };
    assert_eq!((first.content.as_str(), first.expand, first.strip_tabs), (" one\n", true, false));
    assert_eq!((second.text().as_str(), second.expand, second.strip_tabs), ("two\n", false, true));
    let Instruction::Transfer(transfer) = &copy.instruction else { panic!("{copy:?}") };
    assert_eq!(transfer.sources, ["c"]);
    assert_eq!((transfer.documents[0].content.as_str(), transfer.documents[0].expand), ("$A\n", true));
    assert_eq!((transfer.documents[1].name.as_str(), transfer.documents[1].expand), ("b", false));
    assert_eq!(user.source.lines, Lines { first: 12, last: 12 });
    let expect = Change::OnBuild("RUN <<EOF\nz\nEOF".into());
    assert_eq!(trigger.instruction, Instruction::Change(expect));
}

#[test]
fn errors_name_their_lines() {
    let fails = |text: &str, lines: Option<(usize, usize)>, expect: &str| {
        let error = Dockerfile::parse(text).expect_err(text);
        assert_eq!(error.to_string(), expect, "{text}");
        assert_eq!(error.lines.first().map(|lines| (lines.first, lines.last)), lines, "{text}");
    };
    fails("", None, "the Dockerfile cannot be empty");
    fails("# x\n", Some((1, 1)), "file with no instructions");
    fails("ARG a\n", None, "dockerfile contains no stages to build");
    fails("RUN x\n", Some((1, 1)), "no build stage in current context");
    let unknown = "dockerfile parse error on line 3: unknown instruction: RUNN (did you mean RUN?)";
    fails("FROM a\n\nRUNN \\\n x\n", Some((3, 4)), unknown);
    let three = "dockerfile parse error on line 1: FROM requires either one or three arguments";
    fails("FROM a b\n", Some((1, 1)), three);
    fails("FROM a\nRUN <<EOF\nx\n", Some((2, 3)), "unterminated heredoc");
    let name = "dockerfile parse error on line 1: invalid name for build stage: \"1x\", name can't start with a number or contain symbols";
    fails("FROM a AS 1x\n", Some((1, 1)), name);
    let two = "dockerfile parse error on line 2: COPY requires at least two arguments, but only one was provided. Destination could not be determined";
    fails("FROM a\nCOPY x\n", Some((2, 2)), two);
    fails("FROM a\nENV A\n", Some((2, 2)), "ENV must have two arguments");
    let flag = "dockerfile parse error on line 2: unknown flag: --form (did you mean from?)";
    fails("FROM a\nCOPY --form=b x y\n", Some((2, 2)), flag);
    let shell = "dockerfile parse error on line 2: SHELL requires the arguments to be in JSON form";
    fails("FROM a\nSHELL sh -c\n", Some((2, 2)), shell);
}
