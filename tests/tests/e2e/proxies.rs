//! The examples for nginx and Caddy in front of the master, run as they stand but for ports and paths: names, upgrades and
//! odd paths reach what is behind them unchanged.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use landline_tests::{peers::free_port, process::Process, tools::tool, wait::until};
use tempfile::TempDir;

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A folder with a real certificate for both names, and what stands in place of the master: it answers what it was asked.
struct Place {
    folder: TempDir,
    behind: u16,
    https: u16,
    http: u16,
    _behind: Process,
}

const NGINX: &str = "daemon off; master_process off; pid DIR/PID; error_log DIR/error.log; events {}
http { access_log off; client_body_temp_path DIR/t; proxy_temp_path DIR/p; fastcgi_temp_path DIR/f; uwsgi_temp_path DIR/u;
scgi_temp_path DIR/s;
";

fn nginx(folder: &Path, name: &str, http: &str) -> Command {
    let text = NGINX.replace("DIR", &folder.display().to_string()).replace("PID", &format!("{name}.pid"));
    let file = folder.join(format!("{name}.conf"));
    std::fs::write(&file, format!("{text}{http}\n}}\n")).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder).arg("-c").arg(file).arg("-e").arg(folder.join("error.log"));
    command
}

impl Place {
    async fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let names = "subjectAltName=DNS:desk.example.org,DNS:*.machines.example.net";
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=desk.example.org", "-addext", names, "-keyout"])
            .arg(path.join("key.pem"))
            .arg("-out")
            .arg(path.join("fullchain.pem"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", said(&made));
        let behind = free_port();
        let server = format!(
            "server {{ listen 127.0.0.1:{behind} ssl; client_max_body_size 0;
             ssl_certificate {dir}/fullchain.pem; ssl_certificate_key {dir}/key.pem;
             location / {{ return 200 \"$http_host $http_upgrade. $request_uri $request_method $http_connection.\"; }} }}",
            dir = path.display()
        );
        let process = Process::start(nginx(path, "behind", &server), &path.join("behind.out"));
        listens(behind).await;
        Self { behind, https: free_port(), http: free_port(), _behind: process, folder }
    }

    /// The example with ports and paths of this place.
    fn example(&self, name: &str) -> String {
        let dir = self.folder.path().display();
        let text = std::fs::read_to_string(deploy("proxy").join(name)).unwrap();
        text.replace("/etc/landline/", &format!("{dir}/"))
            .replace("/etc/ssl/certs/ca-certificates.crt", &format!("{dir}/fullchain.pem"))
            .replace("127.0.0.1:8443", &format!("127.0.0.1:{}", self.behind))
            .replace("listen 443 ssl", &format!("listen 127.0.0.1:{} ssl", self.https))
            .replace("listen 80;", &format!("listen 127.0.0.1:{};", self.http))
            .lines()
            .filter(|line| !line.contains("listen [::]"))
            .fold(String::new(), |text, line| text + line + "\n")
    }

    fn ask(&self, host: &str, path: &str, arguments: &[&str]) -> String {
        let resolve = format!("{host}:{}:127.0.0.1", self.https);
        let output = Command::new("curl")
            .args(["-sS", "--http1.1", "--max-time", "10", "--path-as-is", "--resolve", &resolve, "--cacert"])
            .arg(self.folder.path().join("fullchain.pem"))
            .args(arguments)
            .arg(format!("https://{host}:{}{path}", self.https))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What both must do.
    fn check(&self) {
        let plain = self.ask("desk.example.org", "/a%2Fb?x=%20", &[]);
        assert!(plain.starts_with("desk.example.org . /a%2Fb?x=%20 GET"), "{plain}");
        let upgrade = ["-H", "Connection: Upgrade", "-H", "Upgrade: websocket"];
        let upgraded = self.ask("k3x9.machines.example.net", "/ws", &upgrade).to_lowercase();
        assert_eq!(upgraded, "k3x9.machines.example.net websocket. /ws get upgrade.");
    }
}

async fn listens(port: u16) {
    let there = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    until(Duration::from_secs(20), "it listens", there).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_in_front_hands_everything_on() {
    let place = Place::make().await;
    let folder = place.folder.path();
    let example = place.example("nginx.conf");
    let tested = nginx(folder, "front", &example).arg("-t").output().unwrap();
    assert!(tested.status.success(), "{}", said(&tested));
    let _front = Process::start(nginx(folder, "front", &example), &folder.join("front.out"));
    listens(place.https).await;
    place.check();
    // A body larger than any buffer: nothing is kept here, and nothing is too large.
    std::fs::write(folder.join("large"), vec![7; 20 << 20]).unwrap();
    let large = format!("@{}", folder.join("large").display());
    let posted = place.ask("desk.example.org", "/upload", &["-X", "PUT", "--data-binary", &large, "-H", "Expect:"]);
    assert!(posted.contains(" PUT "), "{posted}");
    let moved = Command::new("curl")
        .args(["-sS", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", "-H", "Host: desk.example.org"])
        .arg(format!("http://127.0.0.1:{}/q?x=1", place.http))
        .output()
        .unwrap();
    assert_eq!(said(&moved), "308 https://desk.example.org/q?x=1");
}

#[tokio::test(flavor = "multi_thread")]
async fn caddy_in_front_hands_everything_on() {
    let place = Place::make().await;
    let folder = place.folder.path();
    let trusted = format!("tls_server_name {{host}}\n\t\t\ttls_trusted_ca_certs {}/fullchain.pem", folder.display());
    let ports = format!(
        "{{\n\tadmin off\n\thttp_port {}\n\thttps_port {}\n\tdefault_bind 127.0.0.1\n}}\n",
        place.http, place.https
    );
    let example = ports + &place.example("Caddyfile").replace("tls_server_name {host}", &trusted);
    let file = folder.join("Caddyfile");
    std::fs::write(&file, example).unwrap();
    let caddy = |word: &str| {
        let mut command = Command::new(tool("caddy"));
        command.args([word, "--adapter", "caddyfile", "--config"]).arg(&file);
        command.env("HOME", folder).env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder);
        command
    };
    let validated = caddy("validate").output().unwrap();
    assert!(validated.status.success(), "{}", said(&validated));
    let _front = Process::start(caddy("run"), &folder.join("caddy.out"));
    listens(place.https).await;
    place.check();
}
