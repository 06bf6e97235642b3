//! `ssh -R` and, where it is installed, rathole beside a line of ours on the same link, while addresses change: what becomes
//! of a connection through each. For the record: only ours is held to anything.

use std::{
    net::{Ipv4Addr, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use landline_tests::{
    api::port_of,
    lab::{Lab, Lost, gaps::Ticker},
    link::Shape,
    master::Master,
    openssh::OpenSsh,
    peers::free_port,
    process::Process,
    soak,
    wait::eventually,
};

const SOON: Duration = Duration::from_secs(20);
/// How often a connection has to go on before the change, and after it to count as going on.
const STEADY: usize = 20;

type Change = fn(&Lab);

/// Somebody's way to the echo behind the link, with one connection through it.
struct Way {
    name: &'static str,
    ticker: Ticker,
    _processes: Vec<Process>,
}

async fn ticker(port: u16) -> Ticker {
    let connected = || async {
        let ticker = Ticker::start(TcpStream::connect(("127.0.0.1", port)).ok()?);
        // A listener may take a connection that leads nowhere yet.
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_secs(1) && ticker.ended().is_none() {
            if ticker.gaps.count_since(asked) > 3 {
                return Some(ticker);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        None
    };
    eventually(SOON, "a connection to the echo", connected).await
}

async fn landline(master: &Master, echo: u16) -> Way {
    let tunnel = master.api().open_tunnel("far", echo, "tcp").await;
    Way { name: "landline", ticker: ticker(port_of(&tunnel)).await, _processes: Vec::new() }
}

/// As one would keep it up by hand: it notices a dead connection after 15 s.
async fn ssh(lab: &Lab, sshd: &OpenSsh, echo: u16) -> Way {
    let (port, address) = (free_port(), lab.master_side().address);
    let block = format!(
        "Host out\n  HostName {address}\n  Port {}\n  ServerAliveInterval 5\n  ExitOnForwardFailure yes",
        sshd.port
    );
    let mut command = lab.agent_side().command("ssh");
    command.arg("-F").arg(sshd.client_config(&block)).args(["-l", &sshd.user, "-N", "-R"]);
    command.arg(format!("127.0.0.1:{port}:127.0.0.1:{echo}")).arg("out");
    let process = Process::start(command, &sshd.folder.path().join("ssh.log"));
    Way { name: "ssh -R", ticker: ticker(port).await, _processes: vec![process] }
}

/// `None` where it is not installed: it comes from no package of Debian's.
async fn rathole(lab: &Lab, echo: u16, folder: &Path) -> Option<Way> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = std::env::split_paths(&path).map(|folder| folder.join("rathole")).find(|path| path.exists())?;
    let (control, port, address) = (free_port(), free_port(), lab.master_side().address);
    let write = |name: &str, text: String| {
        let file = folder.join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let server = write(
        "server.toml",
        format!(
            "[server]\nbind_addr = \"{address}:{control}\"\ndefault_token = \"lab\"\n\
             [server.services.echo]\nbind_addr = \"{}:{port}\"\n",
            Ipv4Addr::LOCALHOST
        ),
    );
    let client = write(
        "client.toml",
        format!(
            "[client]\nremote_addr = \"{address}:{control}\"\ndefault_token = \"lab\"\n\
             [client.services.echo]\nlocal_addr = \"127.0.0.1:{echo}\"\n"
        ),
    );
    let mut serves = lab.master_side().command(&program);
    serves.arg("--server").arg(server);
    let mut dials = lab.agent_side().command(&program);
    dials.arg("--client").arg(client);
    let processes =
        vec![Process::start(serves, &folder.join("server.log")), Process::start(dials, &folder.join("client.log"))];
    Some(Way { name: "rathole", ticker: ticker(port).await, _processes: processes })
}

/// What became of the connection, a sentence.
async fn fate(way: &Way, changed: Instant, watched: Duration) -> String {
    loop {
        if let Some(why) = way.ticker.ended() {
            return format!("its connection ended ({why}) after {:.1?}", changed.elapsed());
        }
        if way.ticker.gaps.count_since(changed) > STEADY {
            return format!("went on, stood still {:.2?} at most", way.ticker.gaps.worst_since(changed));
        }
        if changed.elapsed() > watched {
            return format!("its connection hangs for {watched:?} and longer");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_ssh_and_rathole_lose_what_our_line_keeps() {
    let Some(lab) = Lab::start(32) else { return };
    lab.shape(Shape { delay: Duration::from_millis(20), ..Shape::default() });
    let (master, sshd) = (Master::start_in(&lab).await, OpenSsh::start_at(lab.master_side().address).await);
    let _agent = master.agent_in(&lab, "far").await;
    let (echo, folder) = (lab.agent_side().echoing(), tempfile::tempdir().unwrap());
    let changes: [(&str, Lost, Change); 3] = [
        ("the router forgot its mappings", Lost::Reset, |lab| lab.rebind()),
        ("the router forgot its mappings and says nothing", Lost::Silent, |lab| lab.rebind()),
        ("the machine has another address", Lost::Reset, |lab| _ = lab.move_agent()),
    ];
    let watched = soak::count(Duration::from_secs(5), Duration::from_secs(60));
    for (what, lost, change) in changes.into_iter().take(soak::count(1, 3)) {
        lab.lost(lost);
        let mut ways = vec![landline(&master, echo).await, ssh(&lab, &sshd, echo).await];
        ways.extend(rathole(&lab, echo, folder.path()).await);
        let changed = Instant::now();
        change(&lab);
        for way in &ways {
            println!("{what}: {}: {}", way.name, fate(way, changed, watched).await);
        }
        assert_eq!(ways[0].ticker.ended(), None, "ours lives");
        assert!(ways[0].ticker.gaps.worst_since(changed) <= Duration::from_secs(2), "ours goes on");
    }
}
