//! One end of the lab's link: a network namespace, or this process's own, in which programs run and sockets are made.

use std::{
    fs::File,
    io::Write as _,
    net::{Ipv4Addr, TcpListener},
    os::fd::AsFd as _,
    path::Path,
    process::{Command, Stdio},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tun_rs::{DeviceBuilder, SyncDevice};

use super::slot::file_of;
use crate::{confined, confined::Prefix, tools::tool};

/// Packets that wait for the ferry: a burst of a sender must not be lost before the wire has decided.
const TXQUEUE: u32 = 10_000;

/// One end.
#[derive(Debug, Clone)]
pub struct Side {
    /// Of the end's device, when the lab began.
    pub address: Ipv4Addr,
    /// `None` is where this process is.
    pub(super) namespace: Option<String>,
}

impl Side {
    /// What stands in front of a command that shall run here, for [`Agent::confine`](crate::agent::Agent::confine).
    pub fn prefix(&self) -> Prefix {
        let enter = |name: &String| vec!["nsenter".to_owned(), format!("--net={}", file_of(name).display())];
        self.namespace.as_ref().map(enter).unwrap_or_default()
    }

    /// A program on this end's network, not yet started.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        confined::command(&self.prefix(), program.as_ref())
    }

    /// Runs `work` on this end's network. Sockets that it makes stay there, wherever they are used afterwards.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let Some(namespace) = &self.namespace else { return work() };
        let file = File::open(file_of(namespace)).expect("the namespace is there");
        // Only this thread moves, and it ends here.
        let entered = || {
            let moved = move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network));
            moved.unwrap_or_else(|error| fail("entering a network namespace", &error.into()));
            work()
        };
        std::thread::scope(|scope| scope.spawn(entered).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }

    /// A TCP server on this end's own loopback that says back what it hears, as long as this process lives; its port.
    pub fn echoing(&self) -> u16 {
        let listener = self.inside(|| TcpListener::bind("127.0.0.1:0")).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        std::thread::spawn(move || {
            for mut socket in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut reader = socket.try_clone()?;
                    std::io::copy(&mut reader, &mut socket)
                });
            }
        });
        port
    }

    /// Makes this end's device. It is gone when what this gives is.
    pub(super) fn device(&self, name: &str) -> SyncDevice {
        let built = self.inside(|| {
            DeviceBuilder::new()
                .name(name)
                .mtu(1500)
                .with(|device| {
                    device.tx_queue_len(TXQUEUE);
                })
                .build_sync()
        });
        built.unwrap_or_else(|error| fail("a TUN device", &error))
    }

    /// Carries out lines of `ip` commands here.
    pub(super) fn ip(&self, lines: &str) {
        ip(self.namespace.as_deref(), lines);
    }
}

/// Carries out lines of `ip` commands in a namespace, or here. Fails the test where they fail.
pub(super) fn ip(namespace: Option<&str>, lines: &str) {
    try_ip(namespace, lines).unwrap_or_else(|error| fail(&format!("ip {lines}"), &error));
}

pub(super) fn try_ip(namespace: Option<&str>, lines: &str) -> std::io::Result<()> {
    let mut command = Command::new(tool("ip"));
    if let Some(namespace) = namespace {
        command.args(["-n", namespace]);
    }
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut ip = command.spawn()?;
    if let Some(mut input) = ip.stdin.take() {
        input.write_all(lines.as_bytes())?;
    }
    let output = ip.wait_with_output()?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(std::io::Error::other(error)) }
}

/// Fails the test by name: what was not possible, why, and what to do about it.
pub(super) fn fail(what: &str, error: &std::io::Error) -> ! {
    panic!(
        "the lab needs network namespaces and /dev/net/tun, which take root (CAP_SYS_ADMIN, CAP_NET_ADMIN); {what}: {error}. \
         Run this test as root, or set {}=1 to skip it",
        super::SKIP
    )
}
