//! Any message that its bounds allow, of every kind and variant.

use proptest::{collection::vec, option, prelude::*, strategy::Union};
use proto::{
    code::Code,
    command::{Command, Reply},
    control::{Attempt, Carrier, FromAgent, FromMaster, Heartbeat, Hello, HelloReply, Refusal, Welcome},
    enrol::{EnrolReply, EnrolRequest, Issued},
    exec::{Attached, End, ExecAttach, ExecSpec, FromExec, Outcome, Program, ToExec},
    id::{AgentId, ExecId, InstanceId, LineEpoch, RequestId, ShellId},
    open::{Open, OpenHead, OpenReply, Opened, Operation, Refused, Target},
    shell::{ShellAttach, ShellSpec, Size},
    stats::{Disk, Network, Stats},
};

/// Text of at most `max` bytes.
fn text(max: usize) -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{0,40}", "\\PC{0,200}"].prop_map(move |mut text| {
        while text.len() > max {
            text.pop();
        }
        text
    })
}

fn clean_text(max: usize) -> impl Strategy<Value = String> {
    text(max).prop_map(|text| text.replace('\0', ""))
}

fn code() -> impl Strategy<Value = Code> {
    prop_oneof![any::<u32>().prop_map(Code), proptest::sample::select(Code::ALL)]
}

fn uuid() -> impl Strategy<Value = uuid::Uuid> {
    any::<[u8; 16]>().prop_map(uuid::Uuid::from_bytes)
}

fn agent_id() -> impl Strategy<Value = AgentId> {
    "[a-z0-9][a-z0-9._-]{0,62}".prop_map(|id| id.parse().unwrap())
}

fn finite() -> impl Strategy<Value = f32> {
    any::<f32>().prop_filter("finite", |value| value.is_finite())
}

fn refusal() -> impl Strategy<Value = Refusal> {
    (code(), text(1024), any::<u32>()).prop_map(|(code, message, retry_after_ms)| Refusal {
        code,
        message,
        retry_after_ms,
    })
}

pub(crate) fn hello() -> impl Strategy<Value = Hello> {
    let texts = (text(255), text(255), text(255), text(255), vec(text(255), 0..=32));
    let carrier = prop_oneof![Just(Carrier::Udp), Just(Carrier::WebSocket)];
    (vec(any::<u16>(), 1..=32), uuid(), texts, carrier, any::<u32>()).prop_map(
        |(versions, instance, (agent_version, os, arch, hostname, capabilities), carrier, keep_alive_ms)| Hello {
            versions,
            agent_version,
            instance_id: InstanceId(instance),
            os,
            arch,
            hostname,
            capabilities,
            carrier,
            keep_alive_ms,
        },
    )
}

pub(crate) fn hello_reply() -> impl Strategy<Value = HelloReply> {
    let welcome = (any::<u16>(), any::<u64>(), any::<i64>(), 1_000..=3_600_000u32, text(255)).prop_map(
        |(version, epoch, master_time_ms, heartbeat_interval_ms, master_version)| {
            HelloReply::Welcome(Welcome {
                version,
                line_epoch: LineEpoch(epoch),
                master_time_ms,
                heartbeat_interval_ms,
                master_version,
            })
        },
    );
    prop_oneof![welcome, refusal().prop_map(HelloReply::Refused)]
}

fn stats() -> impl Strategy<Value = Stats> {
    let disk = (text(1024), any::<u64>(), any::<u64>()).prop_map(|(mount, used_bytes, total_bytes)| Disk {
        mount,
        used_bytes,
        total_bytes,
    });
    let network = (text(1024), any::<u64>(), any::<u64>())
        .prop_map(|(interface, received_bytes, sent_bytes)| Network { interface, received_bytes, sent_bytes });
    let gauges = (finite(), any::<[u64; 5]>(), [finite(), finite(), finite()], any::<u32>());
    (gauges, vec(disk, 0..=16), vec(network, 0..=16)).prop_map(
        |((cpu_percent, sizes, load, processes), disks, networks)| Stats {
            cpu_percent,
            memory_used_bytes: sizes[0],
            memory_total_bytes: sizes[1],
            swap_used_bytes: sizes[2],
            swap_total_bytes: sizes[3],
            load,
            uptime_s: sizes[4],
            processes,
            disks,
            networks,
        },
    )
}

pub(crate) fn from_agent() -> impl Strategy<Value = FromAgent> {
    let attempt =
        (any::<u64>(), code(), text(1024)).prop_map(|(ago_ms, code, message)| Attempt { ago_ms, code, message });
    prop_oneof![
        (any::<u64>(), stats(), any::<u32>()).prop_map(|(seq, stats, rtt_us)| FromAgent::Heartbeat(Heartbeat {
            seq,
            stats,
            rtt_us
        })),
        code().prop_map(|code| FromAgent::Goodbye { code }),
        text(16 * 1024).prop_map(|text| FromAgent::Policy { text }),
        vec(attempt, 0..=32).prop_map(FromAgent::History),
    ]
}

pub(crate) fn from_master() -> impl Strategy<Value = FromMaster> {
    prop_oneof![
        (any::<u64>(), any::<i64>()).prop_map(|(seq, master_time_ms)| FromMaster::HeartbeatAck { seq, master_time_ms }),
        (code(), any::<u32>(), any::<u32>()).prop_map(|(code, grace_ms, retry_after_ms)| FromMaster::Drain {
            code,
            grace_ms,
            retry_after_ms
        }),
        Just(FromMaster::RotateKey),
        any::<bool>().prop_map(|pending| FromMaster::Work { pending }),
    ]
}

pub(crate) fn enrol_request() -> impl Strategy<Value = EnrolRequest> {
    prop_oneof![
        (agent_id(), text(256), vec(any::<u8>(), 1..=2048))
            .prop_map(|(agent_id, secret, csr_der)| EnrolRequest::Enrol { agent_id, secret, csr_der }),
        vec(any::<u8>(), 1..=2048).prop_map(|csr_der| EnrolRequest::Renew { csr_der }),
        (agent_id(), text(256), vec(any::<u8>(), 1..=2048))
            .prop_map(|(name, key, csr_der)| EnrolRequest::EnrolWithKey { name, key, csr_der }),
    ]
}

pub(crate) fn enrol_reply() -> impl Strategy<Value = EnrolReply> {
    let issued = (vec(any::<u8>(), 1..=2048), vec(any::<u8>(), 1..=2048), any::<i64>()).prop_map(
        |(certificate_der, ca_der, master_time_ms)| {
            EnrolReply::Issued(Issued { certificate_der, ca_der, master_time_ms })
        },
    );
    let waits =
        (text(1024), any::<u32>()).prop_map(|(message, retry_after_ms)| EnrolReply::Waits { message, retry_after_ms });
    prop_oneof![issued, refusal().prop_map(EnrolReply::Refused), waits]
}

fn exec() -> impl Strategy<Value = ExecSpec> {
    let argv = (clean_text(200).prop_filter("named", |name| !name.is_empty()), vec(clean_text(200), 0..20))
        .prop_map(|(name, rest)| Program::Argv([vec![name], rest].concat()));
    let shell = clean_text(200).prop_filter("some", |line| !line.is_empty()).prop_map(Program::Shell);
    let program = Union::new([argv.boxed(), shell.boxed()]);
    let env = vec(("[A-Z_]{1,10}", clean_text(200)), 0..20);
    (program, option::of(clean_text(200)), env, any::<u64>(), any::<bool>(), any::<u64>()).prop_map(
        |(program, cwd, env, timeout_ms, stdin, output_max)| ExecSpec {
            program,
            cwd,
            env,
            timeout_ms,
            stdin,
            output_max,
        },
    )
}

fn shell() -> impl Strategy<Value = ShellSpec> {
    let size = (1u16..=2000, 1u16..=2000).prop_map(|(cols, rows)| Size { cols, rows });
    (option::of(exec()), size, "[a-z0-9-]{0,64}", any::<u64>()).prop_map(|(exec, size, term, idle_ms)| {
        let env = exec.as_ref().map(|exec| exec.env.clone()).unwrap_or_default();
        let cwd = exec.as_ref().and_then(|exec| exec.cwd.clone());
        ShellSpec { program: exec.map(|exec| exec.program), size, term, cwd, env, idle_ms }
    })
}

fn command() -> impl Strategy<Value = Command> {
    ("[A-Za-z0-9_-]{1,64}", "[A-Za-z0-9_-]{1,64}", text(4096), any::<u32>())
        .prop_map(|(service, action, payload, timeout_ms)| Command { service, action, payload, timeout_ms })
}

pub(crate) fn open() -> impl Strategy<Value = Open> {
    let forward =
        ("[a-zA-Z0-9._:%-]{1,255}", 1u16..).prop_map(|(host, port)| Operation::Forward(Target { host, port }));
    let operation = prop_oneof![
        forward,
        exec().prop_map(Operation::Exec),
        command().prop_map(Operation::Command),
        (uuid(), option::of(any::<u64>()))
            .prop_map(|(id, offset)| Operation::ExecAttach(ExecAttach { exec: ExecId(id), offset })),
        shell().prop_map(Operation::Shell),
        (uuid(), any::<u64>())
            .prop_map(|(id, offset)| Operation::ShellAttach(ShellAttach { session: ShellId(id), offset })),
    ];
    (uuid(), any::<i64>(), any::<[u8; 16]>(), operation).prop_map(|(id, issued_at_ms, trace_id, operation)| Open {
        request_id: RequestId(id),
        issued_at_ms,
        trace_id,
        operation,
    })
}

pub(crate) fn open_head() -> impl Strategy<Value = OpenHead> {
    (uuid(), any::<i64>(), any::<[u8; 16]>(), any::<u32>()).prop_map(|(id, issued_at_ms, trace_id, operation)| {
        OpenHead { request_id: RequestId(id), issued_at_ms, trace_id, operation }
    })
}

pub(crate) fn open_reply() -> impl Strategy<Value = OpenReply> {
    prop_oneof![
        option::of(text(255)).prop_map(|peer| OpenReply::Opened(Opened { peer })),
        (code(), text(1024)).prop_map(|(code, message)| OpenReply::Refused(Refused { code, message })),
    ]
}

pub(crate) fn to_exec() -> impl Strategy<Value = ToExec> {
    prop_oneof![
        vec(any::<u8>(), 0..2048).prop_map(ToExec::Stdin),
        Just(ToExec::StdinEnd),
        Just(ToExec::Cancel),
        any::<u64>().prop_map(|offset| ToExec::Ack { offset })
    ]
}

pub(crate) fn from_exec() -> impl Strategy<Value = FromExec> {
    let end = prop_oneof![
        any::<i32>().prop_map(End::Exited),
        any::<i32>().prop_map(End::Signalled),
        code().prop_map(End::Killed),
    ]
    .boxed();
    let outcome = (end, any::<bool>()).prop_map(|(end, truncated)| Outcome { end, truncated }).boxed();
    prop_oneof![
        any::<u32>().prop_map(|pid| FromExec::Started { pid }),
        vec(any::<u8>(), 0..2048).prop_map(FromExec::Stdout),
        vec(any::<u8>(), 0..2048).prop_map(FromExec::Stderr),
        outcome.clone().prop_map(FromExec::Ended),
        (any::<u32>(), any::<[u64; 4]>(), any::<bool>(), option::of(outcome)).prop_map(
            |(pid, [kept_from, output, stdin, stdin_taken], stdin_open, outcome)| FromExec::Attached(Attached {
                pid,
                kept_from,
                output,
                stdin,
                stdin_taken,
                stdin_open,
                outcome
            })
        ),
        any::<u64>().prop_map(|offset| FromExec::StdinTaken { offset }),
    ]
}

pub(crate) fn command_reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        text(4096).prop_map(|data| Reply::Success { data }),
        (code(), text(1024)).prop_map(|(code, message)| Reply::Failure { code, message }),
    ]
}
