//! `landline forward`: listens on the operator's own machine and carries each connection to a target behind an agent.

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Args;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::{Context, client::segment, connect::carry, output, stop::StopSignal};
use crate::api::dto::agent::Agent;

/// Connections of one listener at once; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 512;
/// After a failed accept: no descriptors left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  landline forward home-1 5432:localhost:5432
  landline forward home-1 8443:192.168.1.1:443 2222:localhost:22
  landline forward home-1 0:localhost:80             any free port; the first line says which
  landline forward home-1 0.0.0.0:8080:nas.lan:80    for the whole network of this machine

Stays in the foreground until Ctrl-C, and outlives a lost line: new connections wait up to 10 s for the agent.")]
pub(super) struct Forward {
    agent: String,
    /// Where to listen here, and host and port as the agent sees them
    #[arg(value_name = "[BIND:]PORT:HOST:PORT", value_parser = parse_spec, required = true)]
    specs: Vec<Spec>,
}

/// One listener and its target.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Spec {
    bind: String,
    port: u16,
    target: String,
}

impl Forward {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<ExitCode> {
        let mut stop = StopSignal::listen()?;
        let agent: Agent = context.client.get(&format!("/agents/{}", segment(&self.agent)), &()).await?;
        let mut listeners = JoinSet::new();
        for spec in &self.specs {
            let bound = TcpListener::bind((spec.bind.as_str(), spec.port)).await;
            let listener = bound.with_context(|| format!("cannot listen on {}:{}", spec.bind, spec.port))?;
            let address = listener.local_addr()?;
            output::line(&format!("{address} -> {} {}", agent.id, spec.target))?;
            warn_if_open(address);
            listeners.spawn(listen(listener, context.client.clone(), agent.id.clone(), spec.target.clone()));
        }
        stop.wait().await;
        listeners.shutdown().await;
        Ok(ExitCode::SUCCESS)
    }
}

fn warn_if_open(address: SocketAddr) {
    if !address.ip().is_loopback() {
        eprintln!("landline: {address} is reachable by others: whoever connects reaches the target");
    }
}

async fn listen(listener: TcpListener, client: super::Client, agent: String, target: String) {
    let mut connections = JoinSet::new();
    loop {
        if connections.len() >= CONNECTIONS_MAX {
            let _ = connections.join_next().await;
        }
        let accepted = tokio::select! {
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _)) => _ = connections.spawn(connection(socket, client.clone(), agent.clone(), target.clone())),
            Err(error) => {
                eprintln!("landline: cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// A failure is told and, to the one who connected, a reset.
async fn connection(mut socket: TcpStream, client: super::Client, agent: String, target: String) {
    let _ = socket.set_nodelay(true);
    let result = async {
        let websocket = client.connect(&agent, &target).await?;
        let (input, output) = socket.split();
        carry(websocket, input, output).await?;
        anyhow::Ok(())
    };
    if let Err(error) = result.await {
        eprintln!("landline: {target}: {error:#}");
        let _ = socket.set_zero_linger();
    }
}

/// `host:port`, brackets around an IPv6 address.
pub(super) fn parse_target(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').ok_or("write HOST:PORT")?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    match port.parse::<u16>() {
        Ok(1..) if !host.is_empty() && (bracketed || !host.contains(':')) => Ok(text.to_owned()),
        Ok(_) | Err(_) => Err("write HOST:PORT, with brackets around an IPv6 address".into()),
    }
}

fn parse_spec(text: &str) -> Result<Spec, String> {
    let wanted = "write [BIND:]PORT:HOST:PORT, with brackets around IPv6 addresses";
    let parts = split(text).ok_or(wanted)?;
    let (bind, port, host, target_port) = match parts[..] {
        [port, host, target_port] => ("127.0.0.1", port, host, target_port),
        [bind, port, host, target_port] => {
            (bind.trim_start_matches('[').trim_end_matches(']'), port, host, target_port)
        }
        _ => return Err(wanted.into()),
    };
    let port = port.parse().map_err(|_| format!("{port:?} is no port"))?;
    Ok(Spec { bind: bind.to_owned(), port, target: parse_target(&format!("{host}:{target_port}"))? })
}

/// At the colons outside of brackets.
fn split(text: &str) -> Option<Vec<&str>> {
    let (mut parts, mut begin, mut inside) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            '[' if !inside => inside = true,
            ']' if inside => inside = false,
            '[' | ']' => return None,
            ':' if !inside => {
                parts.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[begin..]);
    (!inside && parts.iter().all(|part| !part.is_empty())).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_are_read_as_ssh_does() {
        let spec = |bind: &str, port, target: &str| Spec { bind: bind.into(), port, target: target.into() };
        assert_eq!(parse_spec("5432:localhost:5432").unwrap(), spec("127.0.0.1", 5432, "localhost:5432"));
        assert_eq!(parse_spec("0.0.0.0:80:nas.lan:8080").unwrap(), spec("0.0.0.0", 80, "nas.lan:8080"));
        assert_eq!(parse_spec("[::1]:0:[fd00::1]:443").unwrap(), spec("::1", 0, "[fd00::1]:443"));
        for bad in ["", "80", "80:x", "x:y:80", "80:host:0", "80:host:x", "::1:80:h:1", "80:[::1:80", "1:2:3:4:5"] {
            assert!(parse_spec(bad).is_err(), "{bad}");
        }
    }
}
