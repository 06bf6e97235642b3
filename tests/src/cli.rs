//! `landline` as an operator runs it: against one master, with its pipes at hand, ended with its handle.

use std::{
    io::{Read, Write},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{binary, master::Master, wait::eventually};

/// The command against one master, not yet started.
pub fn landline(master: &Master, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary("landline"));
    command.env("LANDLINE_URL", master.url()).env("LANDLINE_DATA_DIR", master.data()).args(arguments);
    command
}

/// Runs it to its end without blocking the test's own tasks.
pub async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output().expect("it runs"))
        .await
        .expect("a thread")
}

/// One that runs while the test looks at it. What it prints is collected.
#[derive(Debug)]
pub struct Cli {
    child: Child,
    out: Arc<Mutex<Vec<u8>>>,
    err: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Cli {
    /// Standard input is a pipe that the test holds: see [`Self::stdin`].
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let (out, reads_out) = collect(child.stdout.take().expect("a pipe"));
        let (err, reads_err) = collect(child.stderr.take().expect("a pipe"));
        Self { child, out, err, readers: vec![reads_out, reads_err] }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn stdin(&mut self) -> impl Write + Send + use<> {
        self.child.stdin.take().expect("its input was not taken before")
    }

    pub fn stdout(&self) -> Vec<u8> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn printed(&self) -> String {
        String::from_utf8_lossy(&self.stdout()).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.err.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a pid");
        kill_process(pid, signal).expect("it is ours");
    }

    /// Waits until this stands on its standard output.
    pub async fn prints(&self, text: &str, within: Duration) {
        eventually(within, &format!("{text:?} is printed"), || async { self.printed().contains(text).then_some(()) })
            .await;
    }

    /// Its exit code; `None` if a signal ended it.
    pub async fn exit(&mut self, within: Duration) -> Option<i32> {
        let child = Mutex::new(&mut self.child);
        let status = eventually(within, "landline ends", || async {
            child.lock().unwrap_or_else(PoisonError::into_inner).try_wait().expect("a child can be asked")
        })
        .await;
        // What is still in its pipes.
        for reader in self.readers.drain(..) {
            reader.join().expect("it reads");
        }
        status.code()
    }
}

impl Drop for Cli {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- landline said ---\n{}", self.stderr());
        }
    }
}

fn collect(mut from: impl Read + Send + 'static) -> (Arc<Mutex<Vec<u8>>>, JoinHandle<()>) {
    let all = Arc::new(Mutex::new(Vec::new()));
    let kept = all.clone();
    let reader = std::thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            kept.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..count]);
        }
    });
    (all, reader)
}
