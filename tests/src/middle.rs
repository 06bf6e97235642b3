//! What stands between an agent and its master's TCP port: real nginx and Caddy that end TLS with a certificate of their
//! own, and a real HTTP proxy that takes CONNECT.

use std::{path::Path, process::Command, time::Duration};

use tempfile::TempDir;

use crate::{
    peers::{free_port, make_certificate, run_nginx},
    process::Process,
    tools::tool,
    wait::until,
};

/// A proxy, listening on loopback until dropped.
#[derive(Debug)]
pub struct Middle {
    pub port: u16,
    pub folder: TempDir,
    process: Process,
}

impl Middle {
    /// nginx with its own certificate before the master's port.
    pub async fn nginx(master_port: u16) -> Self {
        let (folder, port) = (tempfile::tempdir().expect("a folder"), free_port());
        let path = folder.path();
        make_certificate(path);
        let server = format!(
            "server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {dir}/cert.pem; ssl_certificate_key {dir}/key.pem;
               location / {{
                 proxy_pass https://127.0.0.1:{master_port}; proxy_ssl_verify off; proxy_http_version 1.1;
                 proxy_set_header Host $host; proxy_set_header Upgrade $http_upgrade;
                 proxy_set_header Connection upgrade; proxy_set_header X-Forwarded-For 192.0.2.7;
               }} }}",
            dir = path.display()
        );
        let process = run_nginx(path, port, &server).await;
        Self { port, folder, process }
    }

    /// Caddy the same way.
    pub async fn caddy(master_port: u16) -> Self {
        let (folder, port) = (tempfile::tempdir().expect("a folder"), free_port());
        let path = folder.path();
        make_certificate(path);
        let text = format!(
            "{{\n\tadmin off\n\tauto_https off\n\tdefault_bind 127.0.0.1\n}}\nhttps://localhost:{port} {{\n\ttls {dir}/cert.pem \
             {dir}/key.pem\n\treverse_proxy https://127.0.0.1:{master_port} {{\n\t\ttransport http \
             {{\n\t\t\ttls_insecure_skip_verify\n\t\t\tversions 1.1\n\t\t}}\n\t}}\n}}\n",
            dir = path.display()
        );
        std::fs::write(path.join("Caddyfile"), text).expect("a configuration");
        let mut command = Command::new(tool("caddy"));
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(path.join("Caddyfile"));
        command.env("HOME", path).env("XDG_DATA_HOME", path).env("XDG_CONFIG_HOME", path);
        let process = Process::start(command, &path.join("caddy.out"));
        listens(port).await;
        Self { port, folder, process }
    }

    /// tinyproxy, which connects to any port for whoever knows the password.
    pub async fn http_proxy(user: &str, password: &str) -> Self {
        let (folder, port) = (tempfile::tempdir().expect("a folder"), free_port());
        let text = format!(
            "Port {port}\nListen 127.0.0.1\nTimeout 600\nAllow 127.0.0.1\nBasicAuth {user} {password}\nLogFile {log:?}\n\
             LogLevel Connect\n",
            log = folder.path().join("proxy.log")
        );
        std::fs::write(folder.path().join("tinyproxy.conf"), text).expect("a configuration");
        let mut command = Command::new(tool("tinyproxy"));
        command.arg("-d").arg("-c").arg(folder.path().join("tinyproxy.conf"));
        let process = Process::start(command, &folder.path().join("proxy.out"));
        listens(port).await;
        Self { port, folder, process }
    }

    /// What the proxy wrote about itself.
    pub fn log(&self) -> String {
        self.process.log() + &read(&self.folder.path().join("proxy.log")) + &read(&self.folder.path().join("error.log"))
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

async fn listens(port: u16) {
    let there = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    until(Duration::from_secs(20), "it listens", there).await;
}
