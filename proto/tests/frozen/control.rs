//! Control stream: Hello and its answer, then heartbeats and the like.

use proto::{
    code::Code,
    control::{Attempt, Carrier, FromAgent, FromMaster, Heartbeat, Hello, HelloReply, Refusal, Welcome},
    id::{InstanceId, LineEpoch},
    stats::{Disk, Network, Stats},
};

use super::frozen;

#[test]
fn hello() {
    let hello = Hello {
        versions: vec![1, 300],
        agent_version: "0.1.0".into(),
        instance_id: InstanceId("01020304-0506-4708-890a-0b0c0d0e0f10".parse().unwrap()),
        os: "linux".into(),
        arch: "x86_64".into(),
        hostname: "home-1".into(),
        capabilities: vec!["forward".into(), "command".into()],
        carrier: Carrier::Udp,
        keep_alive_ms: 5_000,
    };
    frozen(
        "hello",
        "udp",
        hello.clone(),
        r#"
        02 01 ac02                                          # versions: two, 1 and 300
        05 "0.1.0"                                          # agent_version
        10 01020304 0506 4708 890a 0b0c0d0e0f10             # instance_id: 16 bytes
        05 "linux" 06 "x86_64" 06 "home-1"                  # os, arch, hostname
        02 07 "forward" 07 "command"                        # capabilities: two
        00                                                  # carrier: UDP
        8827                                                # keep_alive_ms: 5,000
        "#,
    );
    frozen(
        "hello",
        "wss",
        Hello { versions: vec![1], capabilities: vec![], carrier: Carrier::WebSocket, ..hello },
        r#"
        01 01                                               # versions: one, 1
        05 "0.1.0"
        10 01020304 0506 4708 890a 0b0c0d0e0f10
        05 "linux" 06 "x86_64" 06 "home-1"
        00                                                  # capabilities: none
        01                                                  # carrier: WebSocket
        8827
        "#,
    );
}

#[test]
fn hello_reply() {
    frozen(
        "hello_reply",
        "welcome",
        HelloReply::Welcome(Welcome {
            version: 1,
            line_epoch: LineEpoch(300),
            master_time_ms: 1_700_000_000_000,
            heartbeat_interval_ms: 15_000,
            master_version: "0.1.0".into(),
        }),
        r#"
        00                                                  # Welcome
        01                                                  # version
        ac02                                                # line_epoch: 300
        80a0abfef962                                        # master_time_ms: 1,700,000,000,000, zigzag
        9875                                                # heartbeat_interval_ms: 15,000
        05 "0.1.0"                                          # master_version
        "#,
    );
    frozen(
        "hello_reply",
        "refused",
        HelloReply::Refused(Refusal { code: Code::SUSPENDED, message: "suspended".into(), retry_after_ms: 60_000 }),
        r#"
        01                                                  # Refused
        04                                                  # code: 0x04 suspended
        09 "suspended"                                      # message
        e0d403                                              # retry_after_ms: 60,000
        "#,
    );
    frozen(
        "hello_reply",
        "refused_with_a_code_of_later_days",
        HelloReply::Refused(Refusal { code: Code(0x7fff), message: String::new(), retry_after_ms: 0 }),
        "01 ffff01 00 00 # code 0x7fff, no message, no time",
    );
}

fn stats() -> Stats {
    Stats {
        cpu_percent: 12.5,
        memory_used_bytes: 2_147_483_648,
        memory_total_bytes: 8_589_934_592,
        swap_used_bytes: 0,
        swap_total_bytes: 1_048_576,
        load: [0.25, 0.5, 0.75],
        uptime_s: 86_400,
        processes: 123,
        disks: vec![Disk { mount: "/".into(), used_bytes: 64_000_000_000, total_bytes: 512_000_000_000 }],
        networks: vec![Network { interface: "eth0".into(), received_bytes: 900, sent_bytes: 1_500 }],
    }
}

#[test]
fn heartbeat() {
    frozen(
        "from_agent",
        "heartbeat",
        FromAgent::Heartbeat(Heartbeat { seq: 3, stats: stats(), rtt_us: 1_500 }),
        r#"
        00                                                  # Heartbeat
        03                                                  # seq
        00004841                                            # cpu_percent: 12.5, little-endian
        8080808008 8080808020                               # memory: used 2 GiB, total 8 GiB
        00 808040                                           # swap: used 0, total 1 MiB
        0000803e 0000003f 0000403f                          # load: 0.25, 0.5, 0.75
        80a305 7b                                           # uptime_s: 86,400; processes: 123
        01 01 "/" 8080cab5ee01 8080d0acf30e                 # disks: one, used and total
        01 04 "eth0" 8407 dc0b                              # networks: one, received and sent
        dc0b                                                # rtt_us: 1,500
        "#,
    );
    frozen(
        "from_agent",
        "heartbeat_of_a_silent_machine",
        FromAgent::Heartbeat(Heartbeat { seq: 0, stats: Stats::default(), rtt_us: 0 }),
        r#"
        00 00                                               # Heartbeat, seq 0
        00000000 00 00 00 00                                # cpu, memory, swap
        00000000 00000000 00000000                          # load
        00 00 00 00                                         # uptime, processes, no disks, no networks
        00                                                  # rtt_us
        "#,
    );
}

#[test]
fn the_rest_of_what_an_agent_says() {
    frozen("from_agent", "goodbye", FromAgent::Goodbye { code: Code::SHUTDOWN }, "01 01 # Goodbye: 0x01 shutdown");
    frozen(
        "from_agent",
        "policy",
        FromAgent::Policy { text: "[forward]".into() },
        r#"02 09 "[forward]" # Policy: text"#,
    );
    frozen(
        "from_agent",
        "history",
        FromAgent::History(vec![Attempt { ago_ms: 30_000, code: Code::SILENT, message: "no answer".into() }]),
        r#"
        03 01                                               # History: one attempt
        b0ea01                                              # ago_ms: 30,000
        0d                                                  # code: 0x0d silent
        09 "no answer"                                      # message
        "#,
    );
}

#[test]
fn what_a_master_says() {
    frozen(
        "from_master",
        "heartbeat_ack",
        FromMaster::HeartbeatAck { seq: 3, master_time_ms: 1_700_000_015_000 },
        r#"
        00                                                  # HeartbeatAck
        03                                                  # seq
        b08aadfef962                                        # master_time_ms: 1,700,000,015,000, zigzag
        "#,
    );
    frozen(
        "from_master",
        "drain",
        FromMaster::Drain { code: Code::SHUTDOWN, grace_ms: 30_000, retry_after_ms: 5_000 },
        r#"
        01                                                  # Drain
        01                                                  # code: 0x01 shutdown
        b0ea01                                              # grace_ms: 30,000
        8827                                                # retry_after_ms: 5,000
        "#,
    );
    frozen(
        "from_master",
        "rotate_key",
        FromMaster::RotateKey,
        r#"
        02                                                  # RotateKey
        "#,
    );
    frozen("from_master", "work", FromMaster::Work { pending: true }, "03 01 # Work: pending");
}
