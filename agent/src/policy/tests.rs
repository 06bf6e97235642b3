//! The policy as its owner and its enemies see it.

use std::collections::HashSet;

use proto::exec::Program;

use super::*;

fn policy(text: &str) -> Policy {
    Policy::read(text, "test".into())
}

fn exec(program: Program) -> Operation {
    Operation::Exec(ExecSpec { program, cwd: None, env: Vec::new(), timeout_ms: 0, stdin: false, output_max: 0 })
}

fn argv(line: &str) -> Operation {
    exec(Program::Argv(line.split(' ').map(str::to_owned).collect()))
}

fn command(service: &str, action: &str) -> Operation {
    Operation::Command(Command {
        service: service.into(),
        action: action.into(),
        payload: String::new(),
        timeout_ms: 1_000,
    })
}

fn forward(host: &str, port: u16) -> Operation {
    Operation::Forward(Target { host: host.into(), port })
}

fn allows(policy: &Policy, operation: &Operation) -> bool {
    policy.judge(operation, &Zoned::now()).is_ok()
}

/// What the agent would do with a host that is an address in some spelling: `true` if it would be dialled.
fn dials(policy: &Policy, host: &str, port: u16) -> bool {
    let Ok(read) = Host::read(host) else { return false };
    let address = match &read {
        Host::Address(address) => *address,
        Host::Localhost => IpAddr::from([127, 0, 0, 1]),
        // A resolver answers a scoped address with its address; the zone does not count.
        Host::Scoped => host.split('%').next().unwrap().parse().unwrap(),
        Host::Name(name) => panic!("{name} would be asked of a resolver"),
    };
    allows(policy, &forward(host, port)) && policy.permits(&read, address, port).is_ok()
}

/// Every way that some program somewhere reads as this IPv4 address.
fn spellings_v4(address: [u8; 4]) -> Vec<String> {
    let [a, b, c, d] = address;
    let all = u32::from_be_bytes(address);
    let low24 = all & 0xff_ffff;
    let low16 = all & 0xffff;
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    vec![
        format!("{a}.{b}.{c}.{d}"),
        format!("{a}.{b}.{c}.{d}."),
        format!("{all}"),
        format!("{all:#x}"),
        format!("{all:#X}").replace("0X", "0X"),
        format!("0{all:o}"),
        format!("{a}.{low24}"),
        format!("{a}.{b}.{low16}"),
        format!("{a:#x}.{b:#x}.{c:#x}.{d:#x}"),
        format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
        format!("000{a:o}.000{b:o}.000{c:o}.000{d:o}"),
        format!("{a:#x}.{b}.0{c:o}.{d}"),
        format!("{a:#x}.{low24:#x}"),
        format!("::ffff:{a}.{b}.{c}.{d}"),
        format!("::FFFF:{a}.{b}.{c}.{d}"),
        format!("::ffff:{high:x}:{low:x}"),
        format!("0:0:0:0:0:ffff:{high:04x}:{low:04x}"),
        format!("0000:0000:0000:0000:0000:ffff:{a}.{b}.{c}.{d}"),
        format!("::{a}.{b}.{c}.{d}"),
        format!("64:ff9b::{a}.{b}.{c}.{d}"),
        format!("64:ff9b::{high:x}:{low:x}"),
        format!("64:ff9b:1::{a}.{b}.{c}.{d}"),
        format!("::ffff:0:{a}.{b}.{c}.{d}"),
        format!("2002:{high:x}:{low:x}::"),
        format!("2002:{high:x}:{low:x}::1"),
    ]
}

fn forbidden() -> HashSet<String> {
    let v4 = [
        [169, 254, 169, 254],
        [169, 254, 0, 1],
        [169, 254, 170, 2],
        [100, 100, 100, 200],
        [168, 63, 129, 16],
        [192, 0, 0, 192],
        [0, 0, 0, 0],
        [0, 1, 2, 3],
        [224, 0, 0, 1],
        [239, 255, 255, 250],
        [255, 255, 255, 255],
        [240, 0, 0, 1],
    ];
    let v6 = [
        "::",
        "0:0:0:0:0:0:0:0",
        "fe80::1",
        "FE80::1",
        "fe80::1%eth0",
        "fe80::a9fe:a9fe%1",
        "febf:ffff::1",
        "fec0::1",
        "ff02::1",
        "ff05::2",
        "fd00:ec2::254",
        "fd00:0ec2:0000::0254",
        "FD00:EC2::254",
        "fd20:ce::254",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001::a9fe:a9fe",
        "[::]",
        "::ffff:0.0.0.0",
    ];
    v4.into_iter().flat_map(spellings_v4).chain(v6.map(str::to_owned)).collect()
}

#[test]
fn two_hundred_spellings_of_forbidden_addresses_are_never_dialled() {
    let corpus = forbidden();
    assert!(corpus.len() >= 200, "{}", corpus.len());
    let open = [
        policy("allow_all = true"),
        policy("[forward]\ntargets = [\"*:*\", \"0.0.0.0/0:*\", \"[::/0]:*\", \"localhost:*\"]"),
    ];
    for policy in &open {
        assert!(dials(policy, "192.168.1.1", 80) && dials(policy, "2001:db8::1", 80), "the policy is open");
        for host in &corpus {
            assert!(!dials(policy, host, 80), "{host} was dialled");
        }
    }
}

#[test]
fn a_special_address_is_dialled_only_when_it_is_listed_by_itself() {
    let listed = policy("[forward]\ntargets = [\"169.254.7.0/24:80\", \"[fe80::/64]:443\"]");
    assert!(dials(&listed, "169.254.7.9", 80) && dials(&listed, "0xa9fe0709", 80));
    assert!(!dials(&listed, "169.254.7.9", 81) && !dials(&listed, "169.254.169.254", 80));
    assert!(dials(&listed, "fe80::5%eth0", 443) && !dials(&listed, "fe80:1::5", 443));
}

#[test]
fn without_a_file_only_localhost_and_system() {
    let folder = tempfile::tempdir().unwrap();
    let policy = Policy::load(&PolicyFile::Default(folder.path().join("policy.toml")));
    assert_eq!(policy.mistakes(), &[] as &[String]);
    for host in ["localhost", "127.0.0.1", "127.9.9.9", "::1", "127.1", "2130706433", "::ffff:127.0.0.1"] {
        assert!(dials(&policy, host, 22), "{host}");
    }
    assert!(!dials(&policy, "192.168.1.1", 22));
    assert!(allows(&policy, &command("system", "getUsage")));
    assert!(!allows(&policy, &command("service", "restart")));
    assert!(!allows(&policy, &argv("uptime")));
}

#[test]
fn a_file_with_any_mistake_denies_everything_and_says_which() {
    let folder = tempfile::tempdir().unwrap();
    let named = PolicyFile::Named(folder.path().join("absent.toml"));
    let broken = [
        policy("allow_all = true\nalow = 1\n[exec]\nshel = true"),
        policy("allow_all = \"yes\""),
        policy("allow_all = true\n["),
        policy("allow_all = true\n[forward]\ntargets = [\"nas\"]"),
        policy("allow_all = true\noperations = [\"everything\"]"),
        policy("allow_all = true\nhours = [\"always\"]"),
        policy("allow_all = true\n[commands]\nallow = [\"system\"]"),
        Policy::load(&named),
    ];
    for policy in &broken {
        assert!(!policy.mistakes().is_empty());
        assert!(policy.operations().is_empty());
        for operation in [forward("localhost", 80), argv("true"), command("system", "getUsage")] {
            assert!(!allows(policy, &operation));
        }
        assert!(policy.permits(&Host::Localhost, [127, 0, 0, 1].into(), 80).is_err());
    }
    let unknown = broken[0].mistakes().join(" ");
    assert!(unknown.contains("alow") && unknown.contains("exec.shel"), "{unknown}");
}

#[test]
fn a_present_file_allows_what_it_lists_and_no_more() {
    let policy = policy("[forward]\ntargets = [\"nas.lan:80,443\", \"*.dev.lan:8000-8100\"]");
    assert_eq!(policy.operations(), ["forward"]);
    let name = |text: &str| Host::read(text).unwrap();
    let address = IpAddr::from([10, 0, 0, 7]);
    assert!(policy.permits(&name("NAS.lan"), address, 443).is_ok());
    assert!(policy.permits(&name("nas.lan"), address, 22).is_err());
    assert!(policy.permits(&name("a.dev.lan"), address, 8050).is_ok());
    assert!(policy.permits(&name("dev.lan"), address, 8050).is_err());
    assert!(policy.permits(&name("nas.lan"), [127, 0, 0, 1].into(), 80).is_err(), "a name that turns to loopback");
    assert!(policy.permits(&name("nas.lan"), [169, 254, 169, 254].into(), 80).is_err(), "or to metadata");
    assert!(!allows(&policy, &command("system", "getUsage")));
}

#[test]
fn each_exec_option_flips_its_own_behaviour() {
    let strict =
        policy("[exec]\nallow = [\"uptime\", \"systemctl status *\", \"/opt/tool *\"]\ndeny = [\"* --force\"]");
    assert!(allows(&strict, &argv("uptime")) && !allows(&strict, &argv("uptime -p")));
    assert!(!allows(&strict, &argv("/tmp/uptime")), "a bare name is found on the agent's own path only");
    assert!(allows(&strict, &argv("systemctl status")) && allows(&strict, &argv("systemctl status a b")));
    assert!(!allows(&strict, &argv("systemctl stop a")));
    assert!(allows(&strict, &argv("/opt/tool x")) && !allows(&strict, &argv("/opt/tool --force")));
    assert!(!allows(&strict, &exec(Program::Shell("uptime".into()))));
    let shell = policy("[exec]\nshell = true\ndeny = [\"rm *\"]");
    assert!(allows(&shell, &exec(Program::Shell("uptime | wc".into()))) && !allows(&shell, &argv("uptime")));
    assert!(!allows(&shell, &exec(Program::Shell("rm -rf /".into()))));
    let denied = policy("allow_all = true\n[exec]\ndeny = [\"ls *\"]");
    assert!(!allows(&denied, &argv("ls /")) && !allows(&denied, &argv("/bin/ls")) && allows(&denied, &argv("lsof")));
}

#[test]
fn variables_must_be_listed() {
    let with = |name: &str| {
        let mut operation = argv("uptime");
        if let Operation::Exec(spec) = &mut operation {
            spec.env.push((name.into(), "x".into()));
        }
        operation
    };
    let policy = policy("[exec]\nallow = [\"*\"]\nenv = [\"LC_*\", \"TZ\"]");
    assert!(allows(&policy, &with("LC_ALL")) && allows(&policy, &with("TZ")));
    assert!(!allows(&policy, &with("LD_PRELOAD")));
}

#[test]
fn operations_and_commands_and_hours_restrict() {
    let only = policy("allow_all = true\noperations = [\"command\"]\n[commands]\nallow = []");
    assert!(
        allows(&only, &command("a", "b")) && !allows(&only, &argv("true")) && !allows(&only, &forward("localhost", 1))
    );
    let listed = policy("[commands]\nallow = [\"service.status\", \"backup.*\"]");
    assert!(allows(&listed, &command("service", "status")) && allows(&listed, &command("backup", "run")));
    assert!(!allows(&listed, &command("service", "stop")));
    let hours = policy("allow_all = true\nhours = [\"mon 08:00-09:00\"]");
    let at = |text: &str| text.parse::<Zoned>().unwrap();
    assert!(hours.judge(&argv("true"), &at("2026-11-23T08:30:00[UTC]")).is_ok());
    assert!(hours.judge(&argv("true"), &at("2026-11-23T09:00:00[UTC]")).is_err());
}

#[test]
fn the_shown_policy_reads_back_as_itself() {
    for text in
        ["allow_all = true", "[forward]\ntargets = [\"localhost:*\"]", "[exec]\nallow = [\"a b *\"]\nrun_as = \"x\""]
    {
        let shown = policy(text).text();
        let again = policy(&shown);
        assert!(again.mistakes().is_empty(), "{shown}\n{:?}", again.mistakes());
        assert_eq!(again.text(), shown);
    }
}
