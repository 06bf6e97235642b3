//! Programs that `make test` installs: where they are, and what to do where they are not.

use std::path::PathBuf;

/// A program in PATH or in the build folder's tools; panics naming what installs it.
pub fn tool(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let beside = ["target/tools/bin", "target/tools/venv/bin"].map(|folder| root.join(folder).join(name));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|folder| folder.join(name));
    let found = beside.into_iter().chain(in_path).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is missing: run deploy/dev/install-test-tools"))
}

/// The library that lies about the wall clock, for `LD_PRELOAD`.
pub fn faketime() -> String {
    let found = ["x86_64", "aarch64"]
        .map(|arch| format!("/usr/lib/{arch}-linux-gnu/faketime/libfaketime.so.1"))
        .into_iter()
        .find(|path| std::path::Path::new(path).exists());
    found.expect("libfaketime is installed by deploy/dev/install-test-tools")
}
