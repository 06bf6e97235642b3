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
        let process = run_nginx(path, port, &site(path, port)).await;
        Self { port, folder, _process: process }
    }

    pub fn www(&self) -> PathBuf {
        self.folder.path().join("www")
    }
}

/// nginx as a proxy in plain HTTP before an [`Nginx`]: it keeps its connections to it, as the gateway does.
#[derive(Debug)]
pub struct NginxProxy {
    pub port: u16,
    _folder: TempDir,
    _process: Process,
}

impl NginxProxy {
    pub async fn start(site: &Nginx) -> Self {
        let (folder, port) = (tempfile::tempdir().expect("a folder"), free_port());
        let server = format!(
            "upstream site {{ server 127.0.0.1:{}; keepalive 32; keepalive_requests 1000000; }}
             server {{
               listen 127.0.0.1:{port};
               location / {{
                 proxy_pass https://site; proxy_http_version 1.1; proxy_set_header Connection \"\";
                 proxy_set_header Host 127.0.0.1:{}; proxy_ssl_verify off;
               }}
             }}",
            site.port, site.port
        );
        let process = run_nginx(folder.path(), port, &server).await;
        Self { port, _folder: folder, _process: process }
    }
}

/// A server of many years ago: TLS 1.1 is the best it speaks.
#[derive(Debug)]
pub struct OldTls {
    pub port: u16,
    _folder: TempDir,
    _process: Process,
}

impl OldTls {
    pub async fn start() -> Self {
        let (folder, port) = (tempfile::tempdir().expect("a folder"), free_port());
        make_certificate(folder.path());
        let mut command = Command::new("openssl");
        command.args(["s_server", "-quiet", "-www", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
        // Without the system's configuration, which forbids what this is for.
        command.args(["-accept", &format!("127.0.0.1:{port}")]).env("OPENSSL_CONF", "/dev/null");
        command.arg("-cert").arg(folder.path().join("cert.pem")).arg("-key").arg(folder.path().join("key.pem"));
        let process = Process::start(command, &folder.path().join("openssl.out"));
        let listens = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        until(Duration::from_secs(10), "the old server listens", listens).await;
        Self { port, _folder: folder, _process: process }
    }
}

pub(crate) fn make_certificate(folder: &Path) {
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

pub(crate) async fn run_nginx(path: &Path, port: u16, servers: &str) -> Process {
    std::fs::write(path.join("nginx.conf"), configuration(path, servers)).expect("a configuration");
    let mut command = Command::new("nginx");
    command.arg("-c").arg(path.join("nginx.conf")).arg("-e").arg(path.join("error.log")).arg("-p").arg(path);
    let process = Process::start(command, &path.join("nginx.out"));
    until(Duration::from_secs(10), "nginx listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
    process
}

fn site(folder: &Path, port: u16) -> String {
    let folder = folder.display();
    format!(
        "server {{
           listen 127.0.0.1:{port} ssl; ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
           root {folder}/www;
           location /nothing {{ return 204; }}
           location /upload/ {{ dav_methods PUT; }}
         }}"
    )
}

fn configuration(folder: &Path, servers: &str) -> String {
    let folder = folder.display();
    // The workers run as the user of the test, root included: the folder is private to it.
    format!(
        "daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
         events {{ worker_connections 2048; }}
         http {{
           access_log off; client_max_body_size 0; client_body_temp_path {folder}/tmp; sendfile on; tcp_nodelay on;
           proxy_temp_path {folder}/tmp/p; fastcgi_temp_path {folder}/tmp/f; uwsgi_temp_path {folder}/tmp/u;
           scgi_temp_path {folder}/tmp/s; keepalive_requests 1000000;
           {servers}
         }}\n"
    )
}

/// A port that says everything back.
pub fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut reader = socket.try_clone().expect("a second handle");
                let _ = std::io::copy(&mut reader, &mut socket);
            });
        }
    });
    port
}
