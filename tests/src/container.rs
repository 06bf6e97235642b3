//! A machine as bare as a fresh container: a root of its own on a tmpfs with busybox, this machine's libraries read-only, a
//! name and process ids of its own; where asked for, a network of its own too, with one wire to this machine. Everything in
//! it, processes, mounts and wire, is gone when its first process is.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use crate::{binary, tools::tool, wait::until};

/// What it calls itself.
pub const HOSTNAME: &str = "bare-machine";

const FILES: &[(&str, &str)] = &[
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
    ("etc/group", "root:x:0:\n"),
    ("etc/shadow", "root:*:1::::::\n"),
    ("etc/hosts", "127.0.0.1 localhost\n"),
    ("etc/nsswitch.conf", "hosts: files\n"),
];

/// Needs root on this machine.
#[derive(Debug)]
pub struct Container {
    process: Child,
    /// The first process in there, by this machine's number.
    pid: u32,
    /// A path of this machine through which the root is seen.
    pub root: PathBuf,
    _folder: tempfile::TempDir,
}

/// A firewall's web interface that only the container itself reaches, at its own `localhost`.
#[derive(Debug)]
pub struct InnerSite {
    pub port: u16,
    process: Child,
}

impl Container {
    /// One whose `/bin/sh` is `shell` (a path of this machine), with these further programs of this machine. It shares this
    /// machine's network.
    pub async fn start(shell: &str, programs: &[&str]) -> Self {
        Self::start_with(shell, programs, &["--mount", "--uts", "--pid"]).await
    }

    /// The same in a fresh network namespace; and this machine's address on the wire to it.
    pub async fn start_apart(shell: &str, programs: &[&str]) -> (Self, Ipv4Addr) {
        let container = Self::start_with(shell, programs, &["--mount", "--uts", "--pid", "--net"]).await;
        let here = container.wire();
        (container, here)
    }

    async fn start_with(shell: &str, programs: &[&str], own: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("root");
        std::fs::create_dir(&root).expect("a root");
        let mut setup = format!(
            "set -e; mount --make-rprivate /; R={}; mount -t tmpfs none $R; cd $R; \
             mkdir -p bin usr/bin usr/lib lib lib64 etc proc dev tmp root var/lib var/log usr/local/bin; \
             for d in lib lib64 usr/lib; do mount --bind /$d $d; mount -o remount,bind,ro $d; done; \
             cp {} bin/busybox; chroot . /bin/busybox --install -s /bin; rm -f bin/sh; cp {shell} bin/sh; \
             mknod dev/null c 1 3; mknod dev/urandom c 1 9; mknod dev/random c 1 8; chmod 666 dev/*; chmod 1777 tmp; \
             mknod -m 666 dev/tty c 5 0; mkdir dev/pts; mount -t devpts -o newinstance,ptmxmode=0666 none dev/pts; \
             ln -s pts/ptmx dev/ptmx; mount -t proc none proc; bin/busybox hostname {HOSTNAME}; ",
            root.display(),
            tool("busybox").display(),
        );
        for program in programs {
            setup.push_str(&format!("rm -f bin/{program}; cp -L {} bin/{program}; ", tool(program).display()));
        }
        for (path, text) in FILES {
            setup.push_str(&format!("printf '{}' >{path}; ", text.replace('\n', "\\n")));
        }
        // The first process looks after orphans, and does nothing else.
        setup.push_str(
            "exec chroot . /bin/busybox sh -c 'echo ready >/tmp/ready; while :; do /bin/busybox sleep 1; done'",
        );
        let mut command = Command::new("unshare");
        command.args(own).args(["--fork", "--kill-child", "sh", "-c", &setup]);
        let mut process = command.stdin(Stdio::null()).spawn().expect("unshare");
        let children = format!("/proc/{0}/task/{0}/children", process.id());
        let mut pid = None;
        until(Duration::from_secs(20), "the container starts (it needs root)", || {
            assert!(process.try_wait().expect("a child").is_none(), "the container ended");
            let text = std::fs::read_to_string(&children).unwrap_or_default();
            pid = text.split_whitespace().next().and_then(|pid| pid.parse::<u32>().ok());
            pid.is_some_and(|pid| std::path::Path::new(&format!("/proc/{pid}/root/tmp/ready")).exists())
        })
        .await;
        let pid = pid.expect("a process");
        let root = PathBuf::from(format!("/proc/{pid}/root"));
        std::fs::remove_file(root.join("tmp/ready")).expect("it was there");
        Self { process, pid, root, _folder: folder }
    }

    /// Types `line` into a shell there, as a person would: it is no process's argument.
    pub fn paste(&self, line: &str) -> Output {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid.to_string(), "--mount", "--uts", "--net", "--pid", "--root", "--wd=/"]);
        command.args(["/bin/sh", "-s"]);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("TMPDIR", "/tmp");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut shell = command.spawn().expect("nsenter");
        let mut input = shell.stdin.take().expect("a pipe");
        input.write_all(format!("{line}\n").as_bytes()).expect("the shell reads");
        drop(input);
        shell.wait_with_output().expect("the shell ends")
    }

    /// Lays a wire between this machine and the container's network. Both ends go when the container does.
    fn wire(&self) -> Ipv4Addr {
        let (name, target) = (format!("ll{}", self.pid), self.pid.to_string());
        // A net of four addresses for each, by the number of its process.
        let net = u32::from(Ipv4Addr::new(10, 77, 0, 0)) | (self.pid % (1 << 14)) << 2;
        let (here, there) = (Ipv4Addr::from(net | 1), Ipv4Addr::from(net | 2));
        let ip = |inside: bool, arguments: &str| {
            let mut command = if inside { self.on_its_network(&tool("ip")) } else { Command::new(tool("ip")) };
            let output = command.args(arguments.split(' ')).output().expect("ip");
            assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        };
        ip(false, &format!("link add {name} type veth peer name eth0 netns {target}"));
        ip(false, &format!("addr add {here}/30 dev {name}"));
        ip(false, &format!("link set {name} up"));
        ip(true, &format!("addr add {there}/30 dev eth0"));
        ip(true, "link set lo up");
        ip(true, "link set eth0 up");
        here
    }

    /// A program of this machine, with its files, on the container's network.
    fn on_its_network(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid.to_string(), "--net"]).arg(program);
        command
    }

    /// A site as firewalls have it; its pages bear `name`.
    pub fn site(&self, name: &str) -> InnerSite {
        let mut command = self.on_its_network(&binary("firewall-site"));
        let mut process = command.arg(name).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("nsenter");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("a pipe")).read_line(&mut line).expect("its port");
        let port = line.trim().parse().unwrap_or_else(|_| panic!("no port of the site: {line:?}"));
        InnerSite { port, process }
    }

    /// Every path in it with mode, owner, and content or target, but for what the kernel shows in it.
    pub fn tree(&self) -> Vec<String> {
        let out = self.paste(
            "find / -path /proc -prune -o -path /lib -prune -o -path /lib64 -prune -o -path /usr/lib -prune -o -type f \
             -exec stat -c '%n %a %u:%g' {} ';' -exec cksum {} ';' -o -exec stat -c '%n %a %u:%g %N' {} ';' | sort",
        );
        String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect()
    }

    /// Command lines of all processes in it, but for its first one, its helper, and the shell that asks.
    pub fn processes(&self) -> Vec<String> {
        let out = self.paste("ps -o args");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let own = ["sleep 1", "ps -o args", "/bin/sh -s", "COMMAND", "busybox sh -c"];
        text.lines().filter(|line| !own.iter().any(|own| line.contains(own))).map(str::to_owned).collect()
    }
}

impl Drop for InnerSite {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
