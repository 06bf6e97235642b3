//! Real peers behind an agent: nginx with TLS, and plain TCP sockets driven by the test itself.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use crate::{process::Process, wait::until};

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port()
}

/// nginx with a self-signed certificate: files under `/`, uploads stored at `/upload/`, a 204 at `/nothing`.
#[derive(Debug)]
pub struct Nginx {
    pub port: u16,
    pub folder: TempDir,
    _process: Process,
}

impl Nginx {
    pub async fn start() -> Self {
        Self::start_on(free_port()).await
    }

    pub async fn start_on(port: u16) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        for name in ["www", "www/upload", "tmp"] {
            std::fs::create_dir(path.join(name)).expect("a folder for nginx");
        }
        std::fs::write(path.join("www/index.html"), "behind the agent\n").expect("a page");
        make_certificate(path);
        std::fs::write(path.join("nginx.conf"), configuration(path, port)).expect("a configuration");
        let mut command = Command::new("nginx");
        command.arg("-c").arg(path.join("nginx.conf")).arg("-e").arg(path.join("error.log")).arg("-p").arg(path);
        let process = Process::start(command, &path.join("nginx.out"));
        until(Duration::from_secs(10), "nginx listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())
            .await;
        Self { port, folder, _process: process }
    }

    pub fn www(&self) -> PathBuf {
        self.folder.path().join("www")
    }
}

fn make_certificate(folder: &Path) {
    let status = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=behind-the-agent", "-keyout"])
        .arg(folder.join("key.pem"))
        .arg("-out")
        .arg(folder.join("cert.pem"))
        .stderr(std::process::Stdio::null())
        .status()
        .expect("openssl runs");
    assert!(status.success(), "openssl made no certificate");
}

fn configuration(folder: &Path, port: u16) -> String {
    let folder = folder.display();
    // The workers run as the user of the test, root included: the folder is private to it.
    format!(
        "daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
         events {{ worker_connections 2048; }}
         http {{
           access_log off; client_max_body_size 0; client_body_temp_path {folder}/tmp; sendfile on; tcp_nodelay on;
           proxy_temp_path {folder}/tmp/p; fastcgi_temp_path {folder}/tmp/f; uwsgi_temp_path {folder}/tmp/u;
           scgi_temp_path {folder}/tmp/s;
           server {{
             listen 127.0.0.1:{port} ssl; ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
             root {folder}/www;
             location /nothing {{ return 204; }}
             location /upload/ {{ dav_methods PUT; }}
           }}
         }}\n"
    )
}
