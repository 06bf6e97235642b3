//! Linux: /proc and systemd.

use std::fs;

use serde_json::{Value, json};

use super::ServiceManager;

/// Changes with every boot.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// When a living process started, ticks since boot. A zombie counts as gone.
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = Stat::read(pid)?;
    (stat.state != 'Z').then_some(stat.start_time)
}

/// Whether any living process belongs to the group.
pub fn group_exists(group: i32) -> bool {
    processes().any(|pid| Stat::read(pid).is_some_and(|stat| stat.group == group && stat.state != 'Z'))
}

/// Living processes whose environment holds `NAME=value` as one whole variable.
pub fn marked_processes(variable: &str) -> Vec<i32> {
    let marked = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes())
    };
    processes().filter(marked).filter(|pid| start_time(*pid).is_some()).collect()
}

/// Living processes of the session that this process leads, whatever group they are in.
pub fn session_members(leader: i32) -> Vec<i32> {
    let member = |pid: &i32| Stat::read(*pid).is_some_and(|stat| stat.session == leader && stat.state != 'Z');
    processes().filter(member).collect()
}

pub fn process_count() -> u32 {
    u32::try_from(processes().count()).unwrap_or(u32::MAX)
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

struct Stat {
    state: char,
    group: i32,
    session: i32,
    start_time: u64,
}

impl Stat {
    /// The program's name may hold anything, so fields are counted behind its last parenthesis.
    fn read(pid: i32) -> Option<Self> {
        let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let text = String::from_utf8_lossy(&text);
        let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
        Some(Self {
            state: fields.first()?.chars().next()?,
            group: fields.get(2)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            start_time: fields.get(19)?.parse().ok()?,
        })
    }
}

pub fn service_manager() -> ServiceManager {
    ServiceManager::Systemd
}

/// The IPv4 and IPv6 routes of the main table.
pub fn routes() -> Result<Value, String> {
    let v4 = fs::read_to_string("/proc/net/route").map_err(|error| error.to_string())?;
    let v6 = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    let routes: Vec<Value> = v4.lines().skip(1).filter_map(route_v4).chain(v6.lines().filter_map(route_v6)).collect();
    Ok(json!({ "routes": routes }))
}

fn route_v4(line: &str) -> Option<Value> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let address = |field: usize| {
        u32::from_str_radix(fields.get(field)?, 16).ok().map(|raw| std::net::Ipv4Addr::from(raw.to_ne_bytes()))
    };
    let prefix = u32::from_str_radix(fields.get(7)?, 16).ok()?.count_ones();
    Some(json!({
        "destination": format!("{}/{prefix}", address(1)?),
        "gateway": Some(address(2)?).filter(|gateway| !gateway.is_unspecified()).map(|gateway| gateway.to_string()),
        "interface": fields.first()?,
        "metric": fields.get(6)?.parse::<u32>().ok()?,
    }))
}

fn route_v6(line: &str) -> Option<Value> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let address = |field: usize| u128::from_str_radix(fields.get(field)?, 16).ok().map(std::net::Ipv6Addr::from);
    let prefix = u8::from_str_radix(fields.get(1)?, 16).ok()?;
    Some(json!({
        "destination": format!("{}/{prefix}", address(0)?),
        "gateway": Some(address(4)?).filter(|gateway| !gateway.is_unspecified()).map(|gateway| gateway.to_string()),
        "interface": fields.get(9)?,
        "metric": u32::from_str_radix(fields.get(5)?, 16).ok()?,
    }))
}

/// Sockets of TCP and UDP, at most `limit`.
pub fn connections(limit: usize) -> Result<Value, String> {
    let tables =
        [("tcp", "/proc/net/tcp"), ("tcp6", "/proc/net/tcp6"), ("udp", "/proc/net/udp"), ("udp6", "/proc/net/udp6")];
    let mut sockets = Vec::new();
    let mut total = 0_usize;
    for (protocol, path) in tables {
        let table = fs::read_to_string(path).unwrap_or_default();
        for socket in table.lines().skip(1).filter_map(|line| socket(protocol, line)) {
            total += 1;
            if sockets.len() < limit {
                sockets.push(socket);
            }
        }
    }
    Ok(json!({ "total": total, "connections": sockets }))
}

fn socket(protocol: &str, line: &str) -> Option<Value> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let state = u8::from_str_radix(fields.get(3)?, 16).ok()?;
    Some(json!({
        "protocol": protocol,
        "local": socket_address(fields.get(1)?)?,
        "remote": socket_address(fields.get(2)?)?,
        "state": socket_state(state),
    }))
}

fn socket_address(text: &str) -> Option<String> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words = (0..address.len() / 8).map(|word| u32::from_str_radix(address.get(word * 8..word * 8 + 8)?, 16).ok());
    let bytes: Vec<u8> = words.collect::<Option<Vec<u32>>>()?.into_iter().flat_map(u32::to_ne_bytes).collect();
    let address: std::net::IpAddr = match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok()?.into(),
        _ => <[u8; 16]>::try_from(bytes).ok()?.into(),
    };
    Some(std::net::SocketAddr::new(address, port).to_string())
}

fn socket_state(state: u8) -> &'static str {
    match state {
        1 => "established",
        2 => "syn_sent",
        3 => "syn_received",
        4 => "fin_wait_1",
        5 => "fin_wait_2",
        6 => "time_wait",
        7 => "closed",
        8 => "close_wait",
        9 => "last_ack",
        10 => "listen",
        11 => "closing",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_tables_are_read() {
        assert_eq!(socket_address("0100007F:1F40").as_deref(), Some("127.0.0.1:8000"));
        assert_eq!(socket_address("00000000000000000000000001000000:0050").as_deref(), Some("[::1]:80"));
        let route = route_v4("eth0 00000000 0100A8C0 0003 0 0 100 00000000 0 0 0").unwrap();
        assert_eq!(
            (route["destination"].as_str(), route["gateway"].as_str()),
            (Some("0.0.0.0/0"), Some("192.168.0.1"))
        );
    }

    #[test]
    fn this_process_has_a_start_and_a_boot() {
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(start_time(me).is_some() && !boot_id().is_empty());
        assert_eq!(start_time(i32::MAX), None);
        assert!(process_count() >= 1);
    }
}
