//! `network.*`: interfaces, sockets, routes, resolvers. Looks only.

use serde::Deserialize;
use serde_json::{Value, json};
use sysinfo::Networks;

use super::Failure;
use crate::platform;

/// Most sockets told in one reply.
const CONNECTIONS_MAX: usize = 300;
const RESOLV_CONF: &str = "/etc/resolv.conf";

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Wanted {
    limit: Option<usize>,
}

pub(super) fn interfaces() -> Result<Value, Failure> {
    let found = Networks::new_with_refreshed_list();
    let mut interfaces: Vec<Value> = found
        .iter()
        .map(|(name, data)| {
            let addresses: Vec<String> =
                data.ip_networks().iter().map(|one| format!("{}/{}", one.addr, one.prefix)).collect();
            json!({
                "name": name,
                "mac": data.mac_address().to_string(),
                "addresses": addresses,
                "mtu": data.mtu(),
                "received": data.total_received(),
                "sent": data.total_transmitted(),
            })
        })
        .collect();
    interfaces.sort_by_key(|interface| interface["name"].as_str().unwrap_or_default().to_owned());
    Ok(json!({ "interfaces": interfaces }))
}

pub(super) fn connections(wanted: &Wanted) -> Result<Value, Failure> {
    let limit = wanted.limit.unwrap_or(CONNECTIONS_MAX).min(CONNECTIONS_MAX);
    platform::connections(limit).map_err(Failure::failed)
}

pub(super) fn routes() -> Result<Value, Failure> {
    platform::routes().map_err(Failure::failed)
}

pub(super) fn dns() -> Result<Value, Failure> {
    let text =
        std::fs::read_to_string(RESOLV_CONF).map_err(|error| Failure::failed(format!("{RESOLV_CONF}: {error}")))?;
    let values = |key: &str| -> Vec<String> {
        let lines = text.lines().filter_map(|line| line.trim().strip_prefix(key)?.strip_prefix(char::is_whitespace));
        lines.flat_map(str::split_whitespace).map(str::to_owned).collect()
    };
    Ok(json!({ "servers": values("nameserver"), "search": values("search") }))
}
