//! The pasted line: what it verifies before it runs anything, what it leaves on a machine, and that nothing is left after it
//! is taken back.

use std::{
    collections::BTreeSet,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use landline_tests::{binary, container::Container, master::Master, tools::tool};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const CANARY: &str = "llk1_canary-of-the-enrolment-key-0123456789";

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_scripts_are_sound_in_every_shell() {
    let root = repository();
    let script = root.join("deploy/install.sh");
    let check = Command::new(tool("shellcheck")).args(["-s", "sh"]).arg(&script).output().unwrap();
    assert!(check.status.success(), "{}", told(&check));
    for file in ["deploy/install.sh", "deploy/rc.d/landline_agent", "deploy/procd/landline-agent"] {
        for shell in [vec!["dash"], vec!["busybox", "sh"]] {
            let mut command = Command::new(tool(shell[0]));
            let output = command.args(&shell[1..]).arg("-n").arg(root.join(file)).output().unwrap();
            assert!(output.status.success(), "{shell:?} {file}: {}", told(&output));
        }
    }
}

/// A folder that plays the master, and programs that play downloader and agent.
struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    const AGENT: &'static str = "#!/bin/sh\necho \"ran: $*\" >>\"$STAGE/ran\"\ncat >>\"$STAGE/stdin\"\n";

    fn new() -> Self {
        let stage = Self { folder: tempfile::tempdir().unwrap() };
        let at = |path: &str| stage.path(path);
        std::fs::create_dir_all(at("site/dl/linux-x86_64")).unwrap();
        std::fs::create_dir_all(at("bin")).unwrap();
        std::fs::write(at("site/dl/linux-x86_64/landline-agent"), Self::AGENT).unwrap();
        stage.sums(&hex::encode(Sha256::digest(Self::AGENT)));
        // Refuses a wrong pin as curl does, notes every argument, and copies from the folder.
        stage.program(
            "curl",
            "#!/bin/sh\necho \"$@\" >>\"$STAGE/arguments\"\nwhile [ $# -gt 1 ]; do case $1 in --pinnedpubkey) pin=$2; shift;; \
             -o) to=$2; shift;; --retry) shift;; esac; shift; done\n\
             [ \"${pin:-sha256//right}\" = sha256//right ] || { echo 'curl: (90) does not match' >&2; exit 90; }\n\
             cp \"$STAGE/site/${1#https://master/}\" \"$to\" || exit 22\n",
        );
        stage.program("uname", "#!/bin/sh\n[ \"$1\" = -s ] && echo Linux || echo x86_64\n");
        stage
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.path("bin").join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn sums(&self, sha256: &str) {
        std::fs::write(self.path("site/dl/linux-x86_64/landline-agent.sha256"), format!("{sha256}  landline-agent\n"))
            .unwrap();
        std::fs::write(self.path("site/dl/SHA256SUMS"), format!("{sha256}  linux-x86_64/landline-agent\n")).unwrap();
    }

    fn sums_hash(&self) -> String {
        hex::encode(Sha256::digest(std::fs::read(self.path("site/dl/SHA256SUMS")).unwrap()))
    }

    /// Runs the script with the key on its input.
    fn run(&self, shell: &[&str], arguments: &[&str]) -> Output {
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        let temporary = self.path("tmp");
        std::fs::create_dir_all(&temporary).unwrap();
        std::fs::write(self.path("key"), format!("{CANARY}\n")).unwrap();
        let output = Command::new(tool(shell[0]))
            .args(&shell[1..])
            .arg(repository().join("deploy/install.sh"))
            .args(arguments)
            .env("PATH", path)
            .env("STAGE", self.folder.path())
            .env("TMPDIR", &temporary)
            .stdin(Stdio::from(std::fs::File::open(self.path("key")).unwrap()))
            .output()
            .unwrap();
        assert_eq!(std::fs::read_dir(temporary).unwrap().count(), 0, "the script leaves files behind");
        output
    }

    fn ran(&self) -> Option<String> {
        std::fs::read_to_string(self.path("ran")).ok()
    }
}

#[test]
fn nothing_runs_before_it_is_verified_and_the_key_goes_through_pipes_only() {
    for shell in [vec!["dash"], vec!["busybox", "sh"]] {
        let stage = Stage::new();
        let refused = |arguments: &[&str], why: &str| {
            let output = stage.run(&shell, arguments);
            let text = told(&output);
            assert!(!output.status.success() && text.contains(why), "{shell:?} {arguments:?}: {text}");
            assert_eq!(stage.ran(), None, "{arguments:?}");
            assert!(!text.contains(CANARY));
        };
        let (url, pin) = ("https://master", "sha256//right");
        refused(&[], "--url https://MASTER is missing");
        refused(&["--url", "http://master", "--pin", pin], "--url https://MASTER is missing");
        refused(&["--url", url], "nothing says how to know the master");
        refused(&["--url"], "--url needs a value");
        refused(&["--url", url, "--pin", "sha256//wrong"], "curl: (90)");
        refused(&["--url", url, "--sums", &"0".repeat(64)], "not those this command was made for");
        refused(&["--url", url, "--pin", pin, "--platform", "freebsd-aarch64"], "cannot fetch");
        stage.sums(&"0".repeat(64));
        refused(&["--url", url, "--pin", pin], "its SHA-256 is not the master's");
        refused(&["--url", url, "--sums", &stage.sums_hash()], "its SHA-256 is not the master's");
        stage.sums(&hex::encode(Sha256::digest(Stage::AGENT)));
        std::fs::write(stage.path("site/dl/linux-x86_64/landline-agent"), &Stage::AGENT[..40]).unwrap();
        refused(&["--url", url, "--pin", pin], "its SHA-256 is not the master's");

        std::fs::write(stage.path("site/dl/linux-x86_64/landline-agent"), Stage::AGENT).unwrap();
        for known in [["--pin", pin], ["--sums", &stage.sums_hash()]] {
            let output =
                stage.run(&shell, &["--url", url, "--allow", "shell,files", known[0], known[1], "--name", "a b"]);
            assert!(output.status.success(), "{shell:?}: {}", told(&output));
        }
        let ran = stage.ran().unwrap();
        assert_eq!(ran.lines().collect::<BTreeSet<_>>().len(), 1, "{ran}");
        assert!(ran.contains("ran: install --token-file - --allow shell,files --name a b\n"), "{ran}");
        assert_eq!(std::fs::read_to_string(stage.path("stdin")).unwrap(), format!("{CANARY}\n").repeat(2));
        let arguments = std::fs::read_to_string(stage.path("arguments")).unwrap();
        assert!(!arguments.contains("canary") && arguments.contains("/dl/linux-x86_64/landline-agent"), "{arguments}");
    }
}

/// Looks at every process of this machine until it is dropped.
struct Watch {
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<(usize, Vec<String>)>>,
}

impl Watch {
    fn for_secret(secret: &str) -> Self {
        let (over, secret) = (Arc::new(AtomicBool::new(false)), secret.as_bytes().to_vec());
        let ended = over.clone();
        let look = move || {
            let (mut looks, mut found) = (0, Vec::new());
            while !ended.load(Ordering::Relaxed) {
                looks += 1;
                for process in std::fs::read_dir("/proc").unwrap().flatten() {
                    for file in ["cmdline", "environ"] {
                        let bytes = std::fs::read(process.path().join(file)).unwrap_or_default();
                        if bytes.windows(secret.len()).any(|window| window == secret) {
                            let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
                            found.push(format!("{file} of {}", String::from_utf8_lossy(&line)));
                        }
                    }
                }
            }
            (looks, found)
        };
        Self { over, thread: Some(std::thread::spawn(look)) }
    }

    fn end(mut self) {
        self.over.store(true, Ordering::Relaxed);
        let (looks, found) = self.thread.take().unwrap().join().unwrap();
        assert!(looks > 3 && found.is_empty(), "{looks} looks: {found:#?}");
    }
}

/// A master that hands out this build's agent.
async fn master_with_binary() -> Master {
    let mut master = Master::prepare("", "");
    master.hand_out_agents();
    master.run().await;
    master
}

async fn key(master: &Master, body: Value) -> Value {
    master.api().post("/enrolment-keys", body).await
}

/// Paste, online, take back: with each shell, with curl and without it.
#[tokio::test(flavor = "multi_thread")]
async fn alone_a_pasted_line_makes_an_agent_and_uninstall_leaves_nothing() {
    let master = master_with_binary().await;
    for (name, shell, command, program) in
        [("by-curl", tool("dash"), "curl", "curl"), ("by-wget", tool("busybox"), "plain", "wget")]
    {
        let container = Container::start(&shell.display().to_string(), &[program]).await;
        let before = container.tree();
        let made = key(&master, json!({ "labels": { "site": "here" }, "allow": ["shell", "exec"] })).await;
        let line = made["commands"][command].as_str().unwrap();
        let line = line.strip_suffix(')').unwrap().to_owned() + &format!(" --init none --name {name})");
        let watch = Watch::for_secret(made["key"].as_str().unwrap());
        let begun = Instant::now();
        let output = container.paste(&line);
        assert!(output.status.success(), "{}\n{}", told(&output), log_in(&container));
        master.api().online(name, Duration::from_secs(1)).await;
        println!("{command}: pasted to online in {:.2} s: {}", begun.elapsed().as_secs_f64(), told(&output).trim());
        assert!(begun.elapsed() < Duration::from_secs(10), "5 s with the machine to itself");
        watch.end();
        let agent = master.api().agent(name).await;
        assert_eq!(agent["labels"]["site"], "here");
        assert!(agent["policy"].as_str().unwrap().contains("shell"), "{agent}");
        look_at_an_installed(&container, made["key"].as_str().unwrap());

        let again = container.paste("landline-agent install");
        assert!(told(&again).contains("upgraded") && told(&again).contains("online in"), "{}", told(&again));
        look_at_a_locked(&container);
        master.api().presence(name, "offline", Duration::from_secs(1)).await;
        let gone = container.paste("landline-agent uninstall");
        assert!(gone.status.success(), "{}", told(&gone));
        master.api().presence(name, "offline", Duration::from_secs(10)).await;
        assert_eq!(container.processes(), [""; 0]);
        let after = container.tree();
        let left: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
        assert!(left.is_empty() && after.len() == before.len(), "{left:#?}");
    }
    assert!(!master.log().contains("llk1_"), "a key stands in the master's log");
}

fn log_in(container: &Container) -> String {
    std::fs::read_to_string(container.root.join("var/log/landline-agent.log")).unwrap_or_default()
}

fn look_at_an_installed(container: &Container, key: &str) {
    let at = |path: &str| std::fs::metadata(container.root.join(path)).unwrap();
    let mode = |path: &str| at(path).mode() & 0o7777;
    assert_eq!((mode("var/lib/landline-agent"), mode("etc/landline-agent/config.toml")), (0o700, 0o600));
    assert_eq!((mode("usr/local/bin/landline-agent"), at("etc/landline-agent/policy.toml").uid()), (0o755, 0));
    assert_ne!(at("var/lib/landline-agent").uid(), 0, "the agent is no root unless told so");
    assert!(!container.root.join("var/lib/landline-agent/join-token").exists(), "the key is of no more use");
    assert!(!log_in(container).contains(key));
    let processes = container.processes();
    assert!(processes.iter().any(|line| line.contains("landline-agent run")), "{processes:?}");
    assert!(processes.iter().all(|line| !line.contains("llk1_")), "{processes:?}");
}

/// Root stops an agent that is another user's, and an upgrade changes nothing about it.
fn look_at_a_locked(container: &Container) {
    let locked = container.paste("landline-agent lockdown --reason 'the house is sold'");
    assert!(locked.status.success() && told(&locked).contains("locked down in"), "{}", told(&locked));
    let status = told(&container.paste("landline-agent status"));
    assert!(status.contains("LOCKED DOWN") && status.contains("the house is sold"), "{status}");
    let again = container.paste("landline-agent install");
    assert!(again.status.success() && told(&again).contains("locked down by its owner"), "{}", told(&again));
}

/// What a person sees who pastes a line that is no good any more, or a name that is taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_used_key_and_a_taken_name_say_what_to_do() {
    let master = master_with_binary().await;
    let container = Container::start(&tool("dash").display().to_string(), &["curl"]).await;
    master.add("taken").await;
    let made = key(&master, json!({})).await;
    let line = made["commands"]["curl"].as_str().unwrap().strip_suffix(')').unwrap().to_owned();
    let paste = |more: &str| {
        let output = container.paste(&format!("{line} --init none {more})"));
        (output.status.success(), told(&output))
    };
    let (ok, text) = paste("--name taken");
    assert!(!ok && text.contains("exists already") && text.contains("--name"), "{text}");
    assert_eq!(container.processes(), [""; 0], "nothing tries on in vain");
    let (ok, text) = paste("--name free");
    assert!(ok && text.contains("free is online in"), "{text}");
    assert!(container.paste("landline-agent uninstall").status.success());
    let (ok, text) = paste("--name second");
    assert!(!ok && text.contains("used up") && text.contains("landline enrol create"), "{text}");
    let wrong = line.replacen("sha256//", "sha256//AAAA", 1);
    let output = container.paste(&format!("{wrong})"));
    assert!(!output.status.success() && told(&output).contains("(90)"), "{}", told(&output));
}

fn walk(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let metadata = entry.path().symlink_metadata().unwrap();
        let content = std::fs::read(entry.path()).map(|bytes| hex::encode(Sha256::digest(bytes))).unwrap_or_default();
        found.insert(format!("{} {:o} {content}", entry.path().display(), metadata.mode()));
        if metadata.is_dir() {
            walk(&entry.path(), found);
        }
    }
}

/// The folder of an image for each init system: what is in it, and that it can be taken out again.
#[test]
fn images_hold_what_their_init_system_needs() {
    let pasted = certs::join::EnrolmentKey {
        address: "master.example:443".to_owned(),
        pin: certs::join::Pin::of_spki(b"key"),
        secret: certs::join::generate_secret(),
    }
    .expose();
    for (init, program, state, files) in [
        (
            "systemd",
            "usr/local/bin",
            "var/lib/landline-agent",
            vec![
                ("etc/systemd/system/landline-agent.service", 0o644, "ExecStart=/usr/local/bin/landline-agent run"),
                ("etc/systemd/system/landline-agent.service.d/install.conf", 0o644, "ProtectHome=no"),
            ],
        ),
        (
            "rcd",
            "usr/local/bin",
            "var/lib/landline-agent",
            vec![
                ("usr/local/etc/rc.d/landline_agent", 0o755, "run_rc_command"),
                ("etc/rc.conf.d/landline_agent", 0o644, "landline_agent_enable=\"YES\""),
            ],
        ),
        (
            "procd",
            "usr/bin",
            "etc/landline-agent/state",
            vec![("etc/init.d/landline-agent", 0o755, "procd_set_param command /usr/bin/landline-agent run")],
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for dir in [
            "etc",
            "usr/local/etc/rc.d",
            "usr/bin",
            "usr/local/bin",
            "var/lib",
            "etc/systemd/system",
            "etc/rc.conf.d",
            "etc/rc.d",
            "etc/init.d",
            "etc/systemd/system/multi-user.target.wants",
        ] {
            std::fs::create_dir_all(root.join(dir)).unwrap();
        }
        std::fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
        std::fs::write(root.join("etc/group"), "root:x:0:\n").unwrap();
        let (mut before, mut after) = (BTreeSet::new(), BTreeSet::new());
        walk(root, &mut before);
        let token = root.join("../token-of-image");
        std::fs::write(&token, &pasted).unwrap();
        let run = |arguments: &[&str]| {
            let mut command = Command::new(binary("landline-agent"));
            command.args(arguments).arg("--root").arg(root).args(["--init", init]);
            let output = command.output().unwrap();
            assert!(output.status.success(), "{init}: {}", told(&output));
            told(&output)
        };
        let text = run(&["install", "--allow", "shell,files", "--token-file", token.to_str().unwrap()]);
        assert!(text.contains("enrols at its first start"), "{text}");
        let mode =
            |path: &str| root.join(path).metadata().unwrap_or_else(|error| panic!("{path}: {error}")).mode() & 0o7777;
        for (path, wanted, needle) in files {
            let text = std::fs::read_to_string(root.join(path)).unwrap();
            assert!(mode(path) == wanted && text.contains(needle), "{path}: {:o}\n{text}", mode(path));
            if wanted == 0o755 {
                let output = Command::new("sh").arg("-n").arg(root.join(path)).output().unwrap();
                assert!(output.status.success(), "{path}: {}", told(&output));
            }
        }
        assert_eq!(mode(&format!("{program}/landline-agent")), 0o755);
        assert_eq!((mode(state), mode(&format!("{state}/join-token"))), (0o700, 0o600));
        assert_eq!(mode("etc/landline-agent/config.toml"), 0o600);
        assert!(std::fs::read_to_string(root.join("etc/passwd")).unwrap().contains("landline-agent:"));
        if init == "systemd" {
            judge_unit(root);
        }
        run(&["uninstall"]);
        walk(root, &mut after);
        assert_eq!(after, before, "{init}");
        let _ = std::fs::remove_file(token);
    }
}

/// systemd's own opinion of the unit.
fn judge_unit(root: &Path) {
    let unit = "landline-agent.service";
    let verify = Command::new(tool("systemd-analyze"))
        .args(["verify", "--recursive-errors=no", "--man=no"])
        .arg(format!("--root={}", root.display()))
        .arg(unit)
        .output()
        .unwrap();
    assert!(verify.status.success(), "{}", told(&verify));
    let bare = root.join("etc/systemd/system/landline-agent.service.d/install.conf");
    std::fs::rename(&bare, root.join("aside")).unwrap();
    let score = Command::new(tool("systemd-analyze"))
        .args(["security", "--offline=true", "--threshold=30", "--no-pager"])
        .arg(format!("--root={}", root.display()))
        .arg(unit)
        .output()
        .unwrap();
    std::fs::rename(root.join("aside"), bare).unwrap();
    assert!(score.status.success(), "more than 3.0 exposed: {}", told(&score));
}
