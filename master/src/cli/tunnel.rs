//! `landline tunnel …`: open (in the foreground it beats and closes on Ctrl-C), list, extend, close.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use tokio::time::Instant;

use super::{
    Context, UsageError,
    agents::word,
    client::{CallError, segment},
    is_passing,
    output::{self, or_dash},
    stop::StopSignal,
};
use crate::api::dto::{
    Page,
    tunnel::{Extend, KeepAlive, NewTunnel, Scheme, Target, Tunnel as Row, TunnelFilter, TunnelStatus, WaitQuery},
};

const PAGE: u32 = 500;
/// Far below the 150 s after which the master gives up, so that a tunnel closed elsewhere is noticed soon.
const BEAT_EVERY: Duration = Duration::from_secs(10);
/// After a beat that did not arrive.
const BEAT_AGAIN: Duration = Duration::from_secs(2);
const GIVE_UP_AFTER: Duration = Duration::from_secs(150);
/// The master settles a pending tunnel in 30 s; longer than that it is not well.
const SETTLED_WITHIN: Duration = Duration::from_secs(90);

mod web;

#[derive(Debug, Args)]
pub(super) struct Tunnel {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Open a tunnel; the address to connect to is the first line printed
    Open(Open),
    /// List tunnels
    #[command(after_help = "Examples:\n  landline tunnel ls\n  landline tunnel ls --agent home-1 --all")]
    Ls {
        #[arg(long)]
        agent: Option<String>,
        /// Closed ones too
        #[arg(long)]
        all: bool,
    },
    /// Give a tunnel more time
    #[command(after_help = "Example:\n  landline tunnel extend 0b8e6f3a-… --for 1h")]
    Extend {
        id: String,
        /// From now: 30m, 2h
        #[arg(long = "for", value_parser = output::parse_seconds)]
        ttl: Option<u32>,
    },
    /// Print a link that opens the target's pages in a browser, once
    #[command(after_help = "Example:\n  landline tunnel web 0b8e6f3a-…")]
    Web { id: String },
    /// Trust the certificate that the target shows now, in place of the one it showed before
    #[command(after_help = "\
Example:
  landline tunnel trust 0b8e6f3a-…            shows both certificates
  landline tunnel trust 0b8e6f3a-… 5d41402a…  trusts this one")]
    Trust {
        id: String,
        /// SHA-256 of the certificate, 64 hex digits, as the page shows it
        sha256: Option<String>,
    },
    /// Close a tunnel and every connection through it
    #[command(after_help = "Example:\n  landline tunnel close 0b8e6f3a-…")]
    Close { id: String },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  landline tunnel open home-1 localhost:443 --scheme https
  landline tunnel open home-1 192.168.1.1:443 --web
  landline tunnel open home-1 10.0.0.1:22 --detach --for 30m
  landline tunnel open home-1 localhost:3306 --standing

Without --detach or --standing it stays in the foreground and closes the tunnel on Ctrl-C.")]
struct Open {
    agent: String,
    /// Host and port as the agent sees them
    #[arg(value_name = "HOST:PORT", value_parser = parse_target)]
    target: (String, u16),
    /// What the target speaks; decides how it is probed. With --web https, or http for port 80; otherwise tcp
    #[arg(long, value_parser = ["https", "http", "tcp"])]
    scheme: Option<String>,
    /// Print a link that opens the target's pages in a browser, in place of the address
    #[arg(long)]
    web: bool,
    /// Return at once; the tunnel lives until its time runs out
    #[arg(long, conflicts_with = "standing")]
    detach: bool,
    /// Time to live: 90s, 30m, 2h
    #[arg(long = "for", value_parser = output::parse_seconds, conflicts_with = "standing")]
    ttl: Option<u32>,
    /// A permanent mapping, until closed by hand
    #[arg(long)]
    standing: bool,
}

impl Tunnel {
    pub(super) async fn run(self, context: Context) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Open(open) => open.run(&context).await?,
            Command::Ls { agent, all } => {
                let filter = TunnelFilter { limit: Some(PAGE), agent_id: agent, ..TunnelFilter::default() };
                output::print(context.format, &list(&context, filter, all).await?, |rows| show(rows))?;
            }
            Command::Extend { id, ttl } => {
                let path = format!("{}/extend", path(&id));
                let row: Row = context.client.post(&path, &Extend { ttl_s: ttl }).await?;
                output::print(context.format, &row, |row| {
                    format!("{} expires {}", row.id, output::relative(row.expires_at.as_ref(), output::now_ms()))
                })?;
            }
            Command::Web { id } => web::print_link(&context, &id).await?,
            Command::Trust { id, sha256 } => web::trust(&context, &id, sha256).await?,
            Command::Close { id } => context.client.delete(&path(&id)).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Open {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let mut stop = StopSignal::listen()?;
        let stays = !self.detach && !self.standing;
        let (row, ours): (Row, bool) = context.client.create("/tunnels", &self.call()).await?;
        let id = row.id;
        let opened = tokio::select! {
            biased;
            () = stop.wait() => Ok(None),
            row = settled(context, &id) => row.map(Some),
        };
        let row = match opened {
            Ok(Some(row)) => row,
            Ok(None) => return close(context, &id, ours).await,
            Err(error) => {
                if stays && ours {
                    // Best effort: what failed is told below, and an unbeaten tunnel ends by itself.
                    let _ = context.client.delete(&path(&id)).await;
                }
                return Err(error);
            }
        };
        if self.web {
            web::print_link(context, &id).await?;
        } else {
            output::print(context.format, &row, |row| row.listen.clone())?;
        }
        if !ours {
            eprintln!("tunnel {id} was open already and keeps its lifetime; close it with: landline tunnel close {id}");
        }
        if !stays {
            if !ours {
                return Ok(());
            }
            eprintln!("tunnel {id}; close it with: landline tunnel close {id}");
            return Ok(());
        }
        if ours {
            eprintln!("tunnel {id} is {}; Ctrl-C closes it", word(&row.status));
        } else {
            eprintln!("staying until it ends; Ctrl-C leaves it open");
        }
        tokio::select! {
            biased;
            () = stop.wait() => close(context, &id, ours).await,
            ended = beat(context, &id) => ended,
        }
    }

    fn call(&self) -> NewTunnel {
        let (host, port) = self.target.clone();
        let scheme = match (self.scheme.as_deref(), self.web, port) {
            (Some("https"), ..) => Scheme::Https,
            (Some("http"), ..) | (None, true, 80) => Scheme::Http,
            (None, true, _) => Scheme::Https,
            _ => Scheme::Tcp,
        };
        NewTunnel {
            agent_id: self.agent.clone(),
            target: Target { host, port, scheme },
            standing: self.standing,
            ttl_s: self.ttl,
            heartbeat: self.detach.then_some(false),
            listen: None,
        }
    }
}

fn path(id: &str) -> String {
    format!("/tunnels/{}", segment(id))
}

/// Closes what this call opened; what somebody else opened is theirs to close.
async fn close(context: &Context, id: &str, ours: bool) -> anyhow::Result<()> {
    if ours {
        context.client.delete(&path(id)).await?;
    }
    Ok(())
}

/// Waits until the tunnel is active. A standing one whose agent is away stays pending, and that is fine.
async fn settled(context: &Context, id: &str) -> anyhow::Result<Row> {
    let deadline = Instant::now() + SETTLED_WITHIN;
    let query = WaitQuery { wait: Some("30s".to_owned()) };
    loop {
        let row: Row = context.client.get(&path(id), &query).await?;
        match row.status {
            TunnelStatus::Active => return Ok(row),
            TunnelStatus::Pending if row.standing => return Ok(row),
            TunnelStatus::Pending if Instant::now() < deadline => {}
            TunnelStatus::Pending => {
                bail!("tunnel {id} is still pending; is the agent online? Try: landline agents ls")
            }
            TunnelStatus::Disconnected | TunnelStatus::Timeout | TunnelStatus::Expired => bail!(over(&row)),
        }
    }
}

fn over(row: &Row) -> String {
    let probe = if row.probe.is_null() { String::new() } else { format!("; probe: {}", row.probe) };
    let reason = or_dash(row.closed_reason.as_ref());
    output::plain(&format!("tunnel {} ended: {} ({reason}){probe}", row.id, word(&row.status)))
}

/// Beats until the master says that the tunnel is over, or cannot be reached for so long that it must be.
async fn beat(context: &Context, id: &str) -> anyhow::Result<()> {
    let mut heard = Instant::now();
    let mut wait = BEAT_EVERY;
    loop {
        tokio::time::sleep(wait).await;
        let beaten: Result<KeepAlive, CallError> =
            context.client.post(&format!("{}/heartbeat", path(id)), &serde_json::json!({})).await;
        match beaten {
            Ok(KeepAlive { keep_alive: true }) => {
                heard = Instant::now();
                wait = BEAT_EVERY;
            }
            Ok(KeepAlive { keep_alive: false }) => {
                let row: Row = context.client.get(&path(id), &()).await.context("the tunnel is over")?;
                bail!(over(&row));
            }
            Err(error) if is_passing(&error) && heard.elapsed() < GIVE_UP_AFTER => wait = BEAT_AGAIN,
            Err(error) => return Err(error.into()),
        }
    }
}

async fn list(context: &Context, mut filter: TunnelFilter, all: bool) -> anyhow::Result<Vec<Row>> {
    filter.open = (!all).then_some(true);
    let mut rows = Vec::new();
    loop {
        let page: Page<Row> = context.client.get("/tunnels", &filter).await?;
        rows.extend(page.items);
        filter.cursor = page.next_cursor;
        if filter.cursor.is_none() {
            return Ok(rows);
        }
    }
}

fn show(rows: &[Row]) -> String {
    let now = output::now_ms();
    let rows = rows.iter().map(|row| {
        vec![
            row.id.clone(),
            row.agent_id.clone(),
            host_port(&row.target),
            word(&row.status),
            word(&row.health),
            row.listen.clone(),
            row.connections_open.to_string(),
            output::bytes(row.bytes_in),
            output::bytes(row.bytes_out),
            output::relative(row.expires_at.as_ref(), now),
            or_dash(row.closed_reason.as_ref()),
        ]
    });
    let head =
        ["TUNNEL", "AGENT", "TARGET", "STATUS", "HEALTH", "LISTEN", "CONNS", "IN", "OUT", "EXPIRES", "CLOSED BECAUSE"];
    output::table(&head, rows)
}

fn host_port(target: &Target) -> String {
    if target.host.contains(':') {
        format!("[{}]:{}", target.host, target.port)
    } else {
        format!("{}:{}", target.host, target.port)
    }
}

fn parse_target(text: &str) -> Result<(String, u16), UsageError> {
    let wrong = || UsageError(format!("{text:?} is no target; write HOST:PORT, e.g. localhost:443 or [::1]:443"));
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').ok_or_else(wrong)?,
        None if host.contains(':') => return Err(wrong()),
        None => host,
    };
    let port: u16 = port.parse().map_err(|_| wrong())?;
    if host.is_empty() || port == 0 { Err(wrong()) } else { Ok((host.to_owned(), port)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        assert_eq!(parse_target("localhost:443").unwrap(), ("localhost".into(), 443));
        assert_eq!(parse_target("[::1]:22").unwrap(), ("::1".into(), 22));
        for bad in ["", "localhost", "::1:22", "[::1:22", ":22", "h:0", "h:99999", "h:x"] {
            assert!(parse_target(bad).is_err(), "{bad:?}");
        }
    }
}
