//! A machine as bare as a fresh container: a root of its own on a tmpfs with busybox, this machine's libraries read-only,
//! and process ids of its own. Everything in it, processes and mounts, is gone when its first process is.

use std::{
    io::Write,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use crate::{tools::tool, wait::until};

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

impl Container {
    /// One whose `/bin/sh` is `shell` (a path of this machine), with these further programs of this machine.
    pub async fn start(shell: &str, programs: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("root");
        std::fs::create_dir(&root).expect("a root");
        let mut setup = format!(
            "set -e; mount --make-rprivate /; R={}; mount -t tmpfs none $R; cd $R; \
             mkdir -p bin usr/bin usr/lib lib lib64 etc proc dev tmp root var/lib var/log usr/local/bin; \
             for d in lib lib64 usr/lib; do mount --bind /$d $d; mount -o remount,bind,ro $d; done; \
             cp {} bin/busybox; chroot . /bin/busybox --install -s /bin; rm -f bin/sh; cp {shell} bin/sh; \
             mknod dev/null c 1 3; mknod dev/urandom c 1 9; mknod dev/random c 1 8; chmod 666 dev/*; chmod 1777 tmp; \
             mount -t proc none proc; hostname() {{ :; }}; ",
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
        command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", &setup]);
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
        command.args(["--target", &self.pid.to_string(), "--mount", "--pid", "--root", "--wd=/", "/bin/sh", "-s"]);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("TMPDIR", "/tmp");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut shell = command.spawn().expect("nsenter");
        let mut input = shell.stdin.take().expect("a pipe");
        input.write_all(format!("{line}\n").as_bytes()).expect("the shell reads");
        drop(input);
        shell.wait_with_output().expect("the shell ends")
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

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
