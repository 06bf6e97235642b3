//! Runs one program to its end on behalf of a command: bounded in time by the caller, in output here. Dropping the future
//! kills its whole process group.

use std::time::Duration;

use proto::{code::Code, limits::COMMAND_JSON_MAX};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::ChildStdin,
};

use super::{
    super::launch::{Launch, launch},
    Failure, Request,
};

/// Error output kept of a program, bytes.
const STDERR_MAX: usize = 4 * 1024;
/// A program that exited and left its pipes to a child is not waited for any longer.
const AFTER_EXIT: Duration = Duration::from_secs(2);

/// What a program did.
#[derive(Debug)]
pub(super) struct Output {
    /// 0–255; `None` if a signal ended it.
    pub(super) status: Option<i32>,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
}

impl Output {
    pub(super) fn succeeded(&self) -> bool {
        self.status == Some(0)
    }

    /// Why it failed, in its own words where it has some.
    pub(super) fn complaint(&self) -> String {
        let words = self.stderr.trim();
        match (words.is_empty(), self.status) {
            (false, _) => words.to_owned(),
            (true, Some(status)) => format!("it exited with {status} and said nothing"),
            (true, None) => "a signal ended it".into(),
        }
    }
}

pub(super) async fn run(
    argv: &[String],
    stdin: &str,
    run_as: Option<&str>,
    request: &Request<'_>,
) -> Result<Output, Failure> {
    let spawned = launch(&Launch { id: request.id, argv, cwd: None, env: &[], run_as, stdin: true });
    let (mut child, group) = spawned.map_err(|error| Failure::new(Code::SPAWN_FAILED, error.to_string()))?;
    let (input, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let exit = async {
        let status = child.wait().await;
        tokio::time::sleep(AFTER_EXIT).await;
        status
    };
    let pipes = async { tokio::join!(feed(input, stdin), read(out, COMMAND_JSON_MAX + 1), read(err, STDERR_MAX)) };
    let mut pipes = std::pin::pin!(pipes);
    let ((), stdout, stderr) = tokio::select! {
        biased;
        all = &mut pipes => all,
        _ = exit => return Err(Failure::failed("it exited and left its output open")),
    };
    let status = child.wait().await.map_err(|error| Failure::failed(error.to_string()))?;
    // What it started and let go of may stay: `service restart` is nothing else.
    group.release();
    Ok(Output { status: status.code(), stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() })
}

async fn feed(stdin: Option<ChildStdin>, text: &str) {
    if let Some(mut stdin) = stdin {
        // A program that does not read its input closes it; that is its affair.
        let _ = stdin.write_all(text.as_bytes()).await;
    }
}

/// Keeps the first `max` bytes and reads on to the end, so that the program is not held up.
async fn read(source: Option<impl AsyncRead + Unpin>, max: usize) -> Vec<u8> {
    let Some(mut source) = source else { return Vec::new() };
    let mut kept = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = source.read(&mut piece).await {
        let fits = read.min(max - kept.len());
        kept.extend_from_slice(&piece[..fits]);
    }
    kept
}
