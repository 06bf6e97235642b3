//! The owner's own actions: an executable at `actions.d/<service>/<action>`, JSON in on its stdin, JSON out on its stdout.
//! Only files that nobody but the owner can change are run.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use proto::{command::is_name, limits::COMMAND_JSON_MAX};
use serde_json::Value;

use super::{Failure, Request, run};

/// Finds the executable; `Err` if it is there and must not be run.
pub(super) fn find(dir: &Path, service: &str, action: &str) -> Result<Option<PathBuf>, Failure> {
    if !is_name(service) || !is_name(action) {
        return Ok(None);
    }
    let program = dir.join(service).join(action);
    if fs::symlink_metadata(&program).is_err() {
        return Ok(None);
    }
    for path in [dir, &dir.join(service), &program] {
        check(path, path == program)?;
    }
    Ok(Some(program))
}

/// A file that others can write is theirs, not the owner's.
fn check(path: &Path, is_program: bool) -> Result<(), Failure> {
    let shown = path.display();
    let found = fs::metadata(path).map_err(|error| Failure::failed(format!("{shown}: {error}")))?;
    if found.mode() & 0o022 != 0 {
        return Err(Failure::failed(format!("{shown} can be written by others; chmod go-w {shown}")));
    }
    let own = rustix::process::geteuid().as_raw();
    if found.uid() != 0 && found.uid() != own {
        return Err(Failure::failed(format!(
            "{shown} belongs to user {}; it must be root's or the agent's",
            found.uid()
        )));
    }
    if is_program && !(found.is_file() && found.mode() & 0o111 != 0) {
        return Err(Failure::failed(format!("{shown} is not executable; chmod +x {shown}")));
    }
    Ok(())
}

pub(super) async fn run(program: &Path, run_as: Option<&str>, request: &Request<'_>) -> Result<Value, Failure> {
    let argv = [program.to_string_lossy().into_owned()];
    let payload = if request.payload.trim().is_empty() { "null" } else { request.payload };
    let output = run::run(&argv, payload, run_as, request).await?;
    if !output.succeeded() {
        return Err(Failure::failed(output.complaint()));
    }
    if output.stdout.len() > COMMAND_JSON_MAX {
        return Err(Failure::failed(format!("its output is longer than the {COMMAND_JSON_MAX} bytes allowed")));
    }
    if output.stdout.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&output.stdout).map_err(|error| Failure::failed(format!("its output is not JSON: {error}")))
}
