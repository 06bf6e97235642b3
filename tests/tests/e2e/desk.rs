//! Any port from the operator's desk: OpenSSH's programs, git and psql through an agent, and what goes wrong on the way.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use landline_tests::{
    binary,
    master::Master,
    openssh::OpenSsh,
    peers::{Nginx, free_port},
    postgres::Postgres,
    wait::eventually,
};
use serde_json::{Value, json};

/// `landline` against one master, not yet started.
fn landline(master: &Master) -> Command {
    master.landline()
}

/// `landline forward` in the background, ended with its handle.
struct Forward {
    child: Child,
    port: u16,
}

impl Forward {
    fn start(master: &Master, agent: &str, target: &str) -> Self {
        let mut command = landline(master);
        command.args(["forward", agent, &format!("0:{target}")]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.split_whitespace().next().unwrap_or_else(|| panic!("no address in {line:?}"));
        let port = address.rsplit_once(':').unwrap().1.parse().unwrap();
        Self { child, port }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn succeeded(what: &str, output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}

async fn run(what: &str, mut command: Command) -> String {
    let what = what.to_owned();
    tokio::task::spawn_blocking(move || succeeded(&what, &command.output().unwrap())).await.unwrap()
}

/// ssh, scp, sftp, rsync and git, all through `ProxyCommand landline stdio`, as `landline ssh-config` wrote it.
#[tokio::test(flavor = "multi_thread")]
async fn ssh_and_what_stands_on_it_work_through_stdio() {
    let master = Master::start().await;
    let _agent = master.agent("desk").await;
    let sshd = OpenSsh::start().await;
    let mut command = landline(&master);
    let target = format!("127.0.0.1:{}", sshd.port);
    command.args(["ssh-config", "desk", "--user", &sshd.user, "--target", &target]);
    let blocks = run("ssh-config", command).await;
    // The admin token is found through the data folder, which ssh hands on in its environment.
    let config = sshd.client_config(&blocks);
    let with = |program: &str| {
        let mut command = Command::new(program);
        command.env("LANDLINE_DATA_DIR", master.data()).env("LANDLINE_URL", master.url());
        command
    };
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();

    let mut ssh = with("ssh");
    ssh.arg("-F").arg(&config).args(["desk.landline", "echo over-the-line; exit 0"]);
    assert_eq!(run("ssh", ssh).await, "over-the-line\n");
    let mut ssh = with("ssh");
    ssh.arg("-F").arg(&config).args(["desk.landline", "exit 7"]);
    let status = tokio::task::spawn_blocking(move || ssh.status().unwrap()).await.unwrap();
    assert_eq!(status.code(), Some(7), "the remote exit code");

    let bytes: Vec<u8> = (0..3_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    std::fs::write(here.join("there"), &bytes).unwrap();
    let (there, back) = (here.join("there"), here.join("back"));
    let mut scp = with("scp");
    scp.arg("-F").arg(&config).arg(&there).arg(format!("desk.landline:{}", here.join("copied").display()));
    run("scp there", scp).await;
    let mut scp = with("scp");
    scp.arg("-F").arg(&config).arg(format!("desk.landline:{}", here.join("copied").display())).arg(&back);
    run("scp back", scp).await;
    assert!(std::fs::read(&back).unwrap() == bytes, "scp both ways");

    let batch = here.join("batch");
    std::fs::write(&batch, format!("put {} {}\n", there.display(), here.join("by-sftp").display())).unwrap();
    let mut sftp = with("sftp");
    sftp.arg("-F").arg(&config).arg("-b").arg(&batch).arg("desk.landline");
    run("sftp", sftp).await;
    assert!(std::fs::read(here.join("by-sftp")).unwrap() == bytes, "sftp");

    std::fs::create_dir(here.join("tree")).unwrap();
    for number in 0..50 {
        std::fs::write(here.join("tree").join(number.to_string()), format!("file {number}")).unwrap();
    }
    let mut rsync = with("rsync");
    rsync.arg("-a").arg("-e").arg(format!("ssh -F {}", config.display())).arg(here.join("tree"));
    rsync.arg(format!("desk.landline:{}/", here.join("synced").display()));
    run("rsync", rsync).await;
    assert_eq!(std::fs::read_to_string(here.join("synced/tree/49")).unwrap(), "file 49");

    let git = |arguments: &[&str]| {
        let mut git = with("git");
        git.args(["-c", "user.name=t", "-c", "user.email=t@example", "-c", "init.defaultBranch=main"]).args(arguments);
        git.env("GIT_SSH_COMMAND", format!("ssh -F {}", config.display())).env("GIT_CONFIG_GLOBAL", "/dev/null");
        git.env("GIT_CONFIG_NOSYSTEM", "1").current_dir(here);
        git
    };
    run("git init", git(&["init", "-q", "origin"])).await;
    std::fs::write(here.join("origin/file"), "in git").unwrap();
    run("git add", git(&["-C", "origin", "add", "."])).await;
    run("git commit", git(&["-C", "origin", "commit", "-q", "-m", "one"])).await;
    let url = format!("desk.landline:{}", here.join("origin").display());
    run("git clone", git(&["clone", "-q", &url, "clone"])).await;
    assert_eq!(std::fs::read_to_string(here.join("clone/file")).unwrap(), "in git");
}

/// A PostgreSQL behind the agent, asked by psql through a port of the operator's own machine.
#[tokio::test(flavor = "multi_thread")]
async fn psql_works_through_forward() {
    let server = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    let master = Master::start().await;
    let _agent = master.agent("desk").await;
    let forward = Forward::start(&master, "desk", &format!("localhost:{}", server.port));
    let here = format!("postgres://postgres@127.0.0.1:{}/postgres", forward.port);
    let mut psql = Command::new("psql");
    psql.args(["-X", "-A", "-t", "-d", &here, "-c", "SELECT 6 * 7, current_user"]);
    assert_eq!(run("psql", psql).await.trim(), "42|postgres");
    let mut many = Command::new("psql");
    many.args(["-X", "-A", "-t", "-d", &here, "-c", "SELECT repeat('x', 1000) FROM generate_series(1, 20000)"]);
    assert_eq!(run("psql", many).await.len(), 20_000 * 1_001);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forward_carries_https_half_closes_and_resets() {
    let master = Master::start().await;
    let _agent = master.agent("desk").await;
    let nginx = Nginx::start().await;
    let forward = Forward::start(&master, "desk", &format!("127.0.0.1:{}", nginx.port));
    let mut curl = Command::new("curl");
    curl.args(["-sk", &format!("https://127.0.0.1:{}/", forward.port)]);
    assert_eq!(run("curl", curl).await, "behind the agent\n");

    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let forward = Forward::start(&master, "desk", &target.local_addr().unwrap().to_string());
    let through = move || TcpStream::connect(("127.0.0.1", forward.port)).unwrap();
    tokio::task::spawn_blocking(move || {
        // Half-close: all is read to its end, then answered.
        let mut client = through();
        let (mut server, _) = target.accept().unwrap();
        client.write_all(b"question").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        server.read_to_string(&mut text).unwrap();
        assert_eq!(text, "question");
        server.write_all(b"answer").unwrap();
        drop(server);
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert_eq!(text, "answer");
        // A reset is one on the other side, either way.
        let mut client = through();
        let (server, _) = target.accept().unwrap();
        client.write_all(b"x").unwrap();
        rustix::net::sockopt::set_socket_linger(&server, Some(Duration::ZERO)).unwrap();
        drop(server);
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        let client = through();
        let (mut server, _) = target.accept().unwrap();
        rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
        drop(client);
        server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(server.read(&mut [0; 1]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    })
    .await
    .unwrap();
}

/// What cannot be reached is told with its code and reset, and both ends of each connection are on record.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_cannot_be_is_told_why() {
    let master = Master::start().await;
    let _agent = master.agent_under("desk", Some("[forward]\ntargets = [\"localhost:1-60000\"]\n")).await;
    master.add("away").await;
    let stdio = async |agent: &str, target: &str| {
        let mut command = landline(&master);
        command.args(["stdio", agent, target]).stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let closed = free_port();
    for (agent, target, code) in [
        ("desk", format!("127.0.0.1:{closed}"), "agent_failed"),
        ("desk", "192.0.2.1:80".to_owned(), "policy"),
        ("desk", "169.254.169.254:80".to_owned(), "policy"),
        ("away", "127.0.0.1:80".to_owned(), "agent_offline"),
        ("nobody", "127.0.0.1:80".to_owned(), "not_found"),
    ] {
        let told = stdio(agent, &target).await;
        assert!(told.contains(&format!("({code})")), "{agent} {target}: {told}");
    }
    let read_only: Value =
        master.api().post("/tokens", json!({ "name": "r", "permissions": ["agents:read", "tunnels:read"] })).await;
    let refused = master.api().with_token(read_only["secret"].as_str().unwrap());
    let path = "/agents/desk/connect?target=127.0.0.1:80";
    assert_eq!(refused.refused(reqwest::Method::GET, path, None).await, (403, "forbidden".into()));
    assert_eq!(master.api().refused(reqwest::Method::GET, path, None).await, (400, "bad_request".into()));
}

/// Losing the right ends a connection that is open (SECURITY R15).
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_ends_its_connections() {
    let master = Master::start().await;
    let _agent = master.agent("desk").await;
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let api = master.api();
    let token = api.post("/tokens", json!({ "name": "t", "permissions": ["agents:read", "tunnels:write"] })).await;
    let mut command = Command::new(binary("landline"));
    command.env("LANDLINE_URL", master.url()).env("LANDLINE_TOKEN", token["secret"].as_str().unwrap());
    command.args(["stdio", "desk", &target.local_addr().unwrap().to_string()]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (server, _) = tokio::task::spawn_blocking(move || target.accept().unwrap()).await.unwrap();
    let id = token["id"].as_str().unwrap();
    let revoked = Instant::now();
    api.call(reqwest::Method::DELETE, &format!("/tokens/{id}"), None).await;
    let status =
        eventually(Duration::from_secs(5), "stdio ended", || std::future::ready(child.try_wait().unwrap())).await;
    assert!(!status.success());
    println!("a revoked token's connection ended after {:?}", revoked.elapsed());
    drop(server);
}
