//! Work streams: the header and its answer, then the frames of each operation.

use proto::{
    code::Code,
    command::{Command, Reply},
    exec::{Attached, End, ExecSpec, FromExec, Outcome, Program, ToExec},
    id::RequestId,
    open::{Open, OpenHead, OpenReply, Opened, Operation, Refused, Target},
};

use super::frozen;

const HEADER: &str = r#"
        10 01020304 0506 4708 890a 0b0c0d0e0f10             # request_id: 16 bytes
        80a0abfef962                                        # issued_at_ms: 1,700,000,000,000, zigzag
        000102030405060708090a0b0c0d0e0f                    # trace_id: 16 bytes, no length
"#;

fn request_id() -> RequestId {
    RequestId("01020304-0506-4708-890a-0b0c0d0e0f10".parse().unwrap())
}

const TRACE: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

#[track_caller]
fn opens(case: &str, operation: Operation, annotated: &str) {
    let open = Open { request_id: request_id(), issued_at_ms: 1_700_000_000_000, trace_id: TRACE, operation };
    frozen("open", case, open, &format!("{HEADER}{annotated}"));
}

#[test]
fn open() {
    opens(
        "forward",
        Operation::Forward(Target { host: "localhost".into(), port: 443 }),
        r#"
        00                                                  # Forward
        09 "localhost"                                      # host
        bb03                                                # port: 443
        "#,
    );
    opens(
        "exec_argv",
        Operation::Exec(ExecSpec {
            program: Program::Argv(vec!["uname".into(), "-a".into()]),
            cwd: None,
            env: vec![],
            timeout_ms: 0,
            stdin: false,
            output_max: 0,
        }),
        r#"
        01                                                  # Exec
        00 02 05 "uname" 02 "-a"                            # program: argv of two
        00 00                                               # no cwd, no env
        00 00 00                                            # timeout_ms, stdin, output_max
        "#,
    );
    opens(
        "exec_shell",
        Operation::Exec(ExecSpec {
            program: Program::Shell("cat | wc".into()),
            cwd: Some("/tmp".into()),
            env: vec![("A".into(), "1=2".into())],
            timeout_ms: 60_000,
            stdin: true,
            output_max: 1_048_576,
        }),
        r#"
        01                                                  # Exec
        01 08 "cat | wc"                                    # program: shell line
        01 04 "/tmp"                                        # cwd
        01 01 "A" 03 "1=2"                                  # env: one variable
        e0d403 01 808040                                    # timeout_ms: 60,000; stdin; output_max: 1 MiB
        "#,
    );
    opens(
        "command",
        Operation::Command(Command {
            service: "system".into(),
            action: "getInfo".into(),
            payload: "{}".into(),
            timeout_ms: 12_000,
        }),
        r#"
        02                                                  # Command
        06 "system" 07 "getInfo"                            # service, action
        02 "{}"                                             # payload: JSON text
        e05d                                                # timeout_ms: 12,000
        "#,
    );
}

#[test]
fn open_head() {
    let head = OpenHead { request_id: request_id(), issued_at_ms: 1_700_000_000_000, trace_id: TRACE, operation: 300 };
    frozen("open_head", "an_operation_of_later_days", head, &format!("{HEADER} ac02 # operation 300"));
}

#[test]
fn open_reply() {
    let peer = Some("[::1]:443".to_owned());
    frozen("open_reply", "opened", OpenReply::Opened(Opened { peer }), r#"00 01 09 "[::1]:443" # Opened: peer"#);
    frozen("open_reply", "opened_plainly", OpenReply::Opened(Opened::default()), "00 00 # Opened: no peer");
    frozen(
        "open_reply",
        "refused",
        OpenReply::Refused(Refused { code: Code::TARGET_REFUSED, message: "closed".into() }),
        r#"01 8001 06 "closed" # Refused: code 0x80 target_refused, message"#,
    );
}

#[test]
fn exec_input() {
    frozen("to_exec", "stdin", ToExec::Stdin(b"hi\n".to_vec()), r#"00 03 "hi" 0a # Stdin: 3 bytes"#);
    frozen("to_exec", "stdin_end", ToExec::StdinEnd, "01 # StdinEnd");
    frozen("to_exec", "cancel", ToExec::Cancel, "02 # Cancel");
    frozen("to_exec", "ack", ToExec::Ack { offset: 300 }, "03 ac02 # Ack: 300");
}

#[test]
fn exec_output() {
    frozen("from_exec", "started", FromExec::Started { pid: 4_242 }, "00 9221 # Started: pid 4,242");
    frozen("from_exec", "stdout", FromExec::Stdout(b"out".to_vec()), r#"01 03 "out" # Stdout: 3 bytes"#);
    frozen("from_exec", "stderr", FromExec::Stderr(b"err".to_vec()), r#"02 03 "err" # Stderr: 3 bytes"#);
    let ended = |end, truncated| FromExec::Ended(Outcome { end, truncated });
    frozen("from_exec", "exited", ended(End::Exited(3), false), "03 00 06 00 # Ended: Exited, 3 zigzag, whole");
    frozen("from_exec", "signalled", ended(End::Signalled(15), true), "03 01 1e 01 # Ended: Signalled, 15, truncated");
    frozen("from_exec", "killed", ended(End::Killed(Code::TIMED_OUT), false), "03 02 a101 00 # Ended: Killed, 0xa1");
    let attached = Attached {
        pid: 7,
        kept_from: 1,
        output: 300,
        stdin: 3,
        stdin_taken: 2,
        stdin_open: true,
        outcome: Some(Outcome { end: End::Exited(0), truncated: false }),
    };
    let annotated =
        "04 07 01 ac02 03 02 01 01 00 00 00 # Attached: pid, kept from, output, input, taken, open, exited 0";
    frozen("from_exec", "attached", FromExec::Attached(attached), annotated);
    frozen("from_exec", "stdin_taken", FromExec::StdinTaken { offset: 9 }, "05 09 # StdinTaken: 9");
}

#[test]
fn command_reply() {
    frozen(
        "command_reply",
        "success",
        Reply::Success { data: r#"{"a":1}"#.into() },
        "00 07 7b2261223a317d # Success: {\"a\":1}",
    );
    frozen(
        "command_reply",
        "failure",
        Reply::Failure { code: Code::UNKNOWN_ACTION, message: "none".into() },
        r#"01 a401 04 "none" # Failure: code 0xa4 unknown_action, message"#,
    );
}
